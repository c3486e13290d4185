"""Names and files: slugs, folders, whole files or none, and whose files they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lsregen.apps.generating.metadata import encode_png
from lsregen.apps.output import OutputError, check_name, claim, keep_aside, png_text, read_own, slug, sole, write_file, write_json
from lsregen.framework.errors import ConfigError


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red circle and a blue square", "a-red-circle-and-a-blue-square"),
        ("A  Cat's_hat, 5!", "a-cat-s-hat-5"),
        ("??? /", "image"),
        ("../../etc/passwd", "etc-passwd"),
        ("ein grüner Kreis", "ein-grüner-kreis"),
        ("one two three four five six seven eight nine ten eleven", "one-two-three-four-five-six-seven-eight-nine-ten"),
        ("x" * 300, "x" * 48),
    ],
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name
    assert check_name(slug(prompt)) == slug(prompt)


@pytest.mark.parametrize("name", ["", " ", ".", "..", ".hidden", "a/b", "a\\b", "C:x", "a\nb", "a\0b", "ü" * 101])
def test_bad_names(name: str) -> None:
    with pytest.raises(OutputError, match="--name"):
        check_name(name)


def test_one_command_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with sole(folder):
        with pytest.raises(ConfigError, match="another command is making images there"), sole(folder):
            pass
        (folder / "x").touch()
    with sole(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_folder_in_which_nothing_was_kept_is_removed_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "mine" / "c", tmp_path / "mine"):
        with sole(folder):
            assert folder.is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write there"), sole(tmp_path / "file" / "b"):
        pass


def behind(path: Path) -> Path:
    """The same PNG file with its texts behind the pixels, as other programs write them."""
    data, chunks, at = path.read_bytes(), list[bytes](), 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big") + 12
        chunks.append(data[at : at + length])
        at += length
    texts = [chunk for chunk in chunks if chunk[4:8] in (b"tEXt", b"zTXt", b"iTXt")]
    assert texts
    rest = [chunk for chunk in chunks if chunk not in texts]
    path.write_bytes(data[:8] + b"".join([*rest[:-1], *texts, rest[-1]]))
    return path


def test_texts_behind_the_pixels_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_file(path, encode_png(Image.new("RGB", (2, 2)), about="another"))
    before = {key: png_text(path, key) for key in ("Software", "lsregen-about", "nothing")}
    assert before == {"Software": "lsregen", "lsregen-about": "another", "nothing": None}
    with Image.open(behind(path)) as picture:
        assert "Software" not in picture.info
    assert {key: png_text(path, key) for key in before} == before
    assert claim([path]) == [path]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    write_file(path, b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_file(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert path.read_bytes() == b"old"
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(path / "x.png", b"")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    write_file(tmp_path / (check_name("ü" * 100) + f"-{2**63 - 1}-attention.png"), b"x")


def test_whose_files_they_are(tmp_path: Path) -> None:
    own, report = tmp_path / "own.png", tmp_path / "report.json"
    write_file(own, encode_png(Image.new("RGB", (2, 2))))
    write_file(report, b'{"format": "lsregen-report"}')
    assert claim([own, report, tmp_path / "absent.png"]) == [own, report]
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    for name in ("other.png", "list.json", "cut.json", "text.png", "link.png"):
        with pytest.raises(OutputError, match="not made by lsregen"):
            claim([own, tmp_path / name])
    with pytest.raises(OutputError, match="a folder is in the way"):
        claim([tmp_path])


def test_json_of_another_format_is_not_own(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_file(path, b'{"format": "lsregen-evaluation", "rows": []}')
    assert read_own(path) is None
    assert read_own(path, "lsregen-evaluation") == {"format": "lsregen-evaluation", "rows": []}
    assert claim([path], "lsregen-evaluation") == [path]
    with pytest.raises(OutputError, match=r"not made by lsregen \(no lsregen-report\); choose another --json, or move it away"):
        claim([path], cure="choose another --json")


def test_what_json_replaces_is_kept_if_it_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert write_json(path, {"rows": [1]}, keep=True) is None
    assert write_json(path, {"rows": [1]}, keep=True) is None
    assert write_json(path, {"rows": [2]}, keep=True) == tmp_path / "result-1.json"
    assert [json.loads(each.read_text())["rows"] for each in (path, tmp_path / "result-1.json")] == [[2], [1]]
    assert write_json(path, {"rows": [3]}) is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["result-1.json", "result.json"]


def test_kept_aside_under_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    (tmp_path / "report-2.json").write_text("other")
    for number, text in ((1, "a"), (3, "b")):
        path.write_text(text)
        assert keep_aside(path) == tmp_path / f"report-{number}.json"
        assert (tmp_path / f"report-{number}.json").read_text() == text
    assert (tmp_path / "report-2.json").read_text() == "other"
    path.unlink()
    with pytest.raises(OutputError, match="cannot be kept aside"):
        keep_aside(path)
