"""The command `lsregen evaluate`, with a stand-in for the pipeline that draws the scenes it is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lsregen.apps.evaluating import comparison, evaluate
from lsregen.evaluation.shapeworld.rows import ALL, read_rows
from lsregen.framework.config.resolve import load_guidance, validate
from lsregen.framework.errors import ConfigError, LsregenError
from lsregen.framework.plugins.registry import discover
from tests.apps.conftest import FakePipeline

pytestmark = pytest.mark.slow


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate.command, [str(argument) for argument in arguments])


def shapeworld(tmp_path: Path, *arguments: str, guidance: str = "none,layout-guidance", count: int = 3) -> Result:
    folder, result = tmp_path / "items", tmp_path / "result.json"
    return call("shapeworld", "--guidance", guidance, "--count", str(count), "--out", folder, "--json", result, *arguments)


def test_result_and_table(tmp_path: Path, fake: FakePipeline) -> None:
    outcome = shapeworld(tmp_path, "--batch", "2", "--images", "--objects", "1")
    assert outcome.exit_code == 0, outcome.output
    data = json.loads((tmp_path / "result.json").read_text())
    assert [row["guidance"] for row in data["rows"]] == ["none", "layout-guidance"]
    assert [row["metrics"]["map50"]["value"] for row in data["rows"]] == [1, 0]
    assert {row["model"] for row in data["rows"]} == {"shapeworld-base"}
    assert data["differences"][0]["metrics"]["right"] == {"value": -1, "low": None, "high": None}
    assert (data["format"], data["diagnostics"]) == ("lsregen-evaluation", {})
    assert fake.batches == [2, 1, 2, 1]
    assert (tmp_path / "items" / "sheet.png").stat().st_size > 0
    assert len(list((tmp_path / "items" / "images").glob("*/*.png"))) == 6
    assert outcome.stdout == call("table", tmp_path / "result.json").stdout
    assert outcome.stdout.count("| none |") == 2, "a row and a difference"
    assert "%|" not in outcome.output, "no progress bar where nobody looks"


def test_a_log_has_a_line_about_progress_now_and_then(
    tmp_path: Path, fake: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "SILENCE", 0)
    said = shapeworld(tmp_path, "--batch", "2", guidance="none").stderr.splitlines()
    assert [line for line in said if line.startswith("none: ")] == [
        "none: 0 of 3 images",
        "none: 2 of 3 images",
        "none: 3 of 3 images",
    ]


def test_restart_makes_nothing_again(tmp_path: Path, fake: FakePipeline) -> None:
    first = shapeworld(tmp_path)
    assert fake.batches == [3, 3]
    again = shapeworld(tmp_path)
    assert fake.batches == [3, 3]
    assert first.stdout == again.stdout
    shapeworld(tmp_path, "--set", "steps=20", guidance="none")
    assert fake.batches == [3, 3, 3], "another setting is another item"


def test_interrupt_keeps_finished_items(tmp_path: Path, fake: FakePipeline) -> None:
    fake.interrupt_at = 2  # type: ignore[attr-defined]
    outcome = shapeworld(tmp_path, "--batch", "2", guidance="none")
    assert outcome.exit_code == 130
    assert "finished items are kept" in outcome.stderr
    assert not (tmp_path / "result.json").exists()
    assert shapeworld(tmp_path, "--batch", "2", guidance="none").exit_code == 0
    assert fake.batches == [2, 1, 1]


def test_model_of_a_guidance_file(tmp_path: Path, fake: FakePipeline) -> None:
    config = tmp_path / "mine.yaml"
    folders = {name: tmp_path / name for name in ("file", "flag", "set")}
    for folder in folders.values():
        folder.mkdir()
    config.write_text(f"model: {folders['file']}\nsteps: 5\n")
    for options, name in (([], "file"), (["--model", str(folders["flag"])], "flag")):
        assert shapeworld(tmp_path, *options, guidance=str(config)).exit_code == 0
        assert fake.name == str(folders[name])
    options = ["--model", str(folders["flag"]), "--set", f"model={folders['set']}"]
    assert shapeworld(tmp_path, *options, guidance=str(config)).exit_code == 0
    (row,) = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert (fake.name, row["model"]) == (str(folders["set"]), str(folders["set"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "none,"], "separated by commas"),
        (["--guidance", "none,none"], "given twice"),
        (["--count", "0"], "1<=x"),
        (["--objects", "4"], "1<=x<=3"),
        (["--batch", "0"], "1<=x"),
        (["--steps", "0"], "1<=x"),
        (["--seed", "-1"], "0<=x"),
    ],
)
def test_bad_options(tmp_path: Path, fake: FakePipeline, arguments: list[str], message: str) -> None:
    outcome = shapeworld(tmp_path, *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert fake.batches == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "layuot-guidance"], "did you mean 'layout-guidance'"),
        (["--guidance", "nowhere.yaml"], "nowhere.yaml"),
        (["--size", "65x64"], "multiples of 4"),
        (["--size", "64"], "WIDTHxHEIGHT"),
        (["--size", "0x64"], "WIDTHxHEIGHT"),
        (["--model", "nowhere"], "'nowhere' is neither"),
        (["--set", "model=nowhere"], "'nowhere' is neither"),
        (["--set", "model=[3]"], r"model: [3] is not text"),
        (["--json", "."], "is a folder"),
    ],
)
def test_errors_come_before_the_first_image(tmp_path: Path, fake: FakePipeline, arguments: list[str], message: str) -> None:
    outcome = shapeworld(tmp_path, *arguments)
    assert isinstance(outcome.exception, LsregenError)
    assert message in str(outcome.exception)
    assert fake.batches == []


def rows(tmp_path: Path, text: str, *arguments: str) -> Result:
    path = tmp_path / "rows.yaml"
    path.write_text(text)
    folder, result = str(tmp_path / "out"), str(tmp_path / "result.json")
    return call("shapeworld", "--rows", str(path), "--count", "2", "--out", folder, "--json", result, *arguments)


def test_rows_have_their_own_guidance_model_size_and_settings(tmp_path: Path, fake: FakePipeline) -> None:
    (tmp_path / "other").mkdir()
    text = f"""rows:
  plain: {{guidance: none}}
  large: {{guidance: none, model: {tmp_path / "other"}, size: [96, 64]}}
  pulled: {{guidance: layout-guidance, sets: [steps=7]}}
  enlarged: {{enlarged: [192, 192]}}
"""
    outcome = rows(tmp_path, text)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads((tmp_path / "result.json").read_text())["rows"]
    sizes = {row["guidance"]: row["size"] for row in found}
    assert sizes == {"plain": [64, 64], "large": [96, 64], "pulled": [64, 64], "enlarged": [192, 192]}
    assert fake.sizes == [(64, 64), (96, 64), (64, 64), (64, 64)], "the enlarged one is made small"
    assert found[1]["model"] == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "arguments", "messages"),
    [
        ("rows: []", [], ["expected a mapping 'rows'"]),
        ("lines: {}", [], ["expected a mapping 'rows'"]),
        ("rows: {a: 3, b: {guidence: none}}", [], ["rows.a: 3 is not a mapping", "rows.b.guidence", "did you mean 'guidance'?"]),
        ("rows: {a: {size: 64}}", [], ["rows.a.size: 64 is not a list of 2"]),
        ("rows: {a: {enlarged: [64, 32]}}", [], ["rows.a.enlarged: 64x32 is smaller than", "64x64"]),
        ("rows: {a: {guidance: layuot-guidance}}", [], ["did you mean 'layout-guidance'"]),
        ("rows: {a: {model: nowhere}}", [], ["'nowhere' is neither"]),
        ("rows: {a: {}}", ["--guidance", "none"], ["either --guidance NAME,... or --rows all, and not both"]),
        ("rows: {a: {}}", ["--size", "64x64"], ["--rows with --model, --size or --set"]),
    ],
)
def test_bad_rows(tmp_path: Path, fake: FakePipeline, text: str, arguments: list[str], messages: list[str]) -> None:
    outcome = rows(tmp_path, text, *arguments)
    assert isinstance(outcome.exception, LsregenError)
    for message in messages:
        assert message in str(outcome.exception)
    assert fake.batches == []


def test_nothing_to_compare_is_said(tmp_path: Path, fake: FakePipeline) -> None:
    outcome = call("shapeworld", "--json", str(tmp_path / "result.json"))
    assert "expected either --guidance NAME,... or --rows all" in str(outcome.exception)


def test_the_rows_that_ship_can_be_used() -> None:
    shipped = read_rows(ALL)
    plugins = discover(only=())
    for name, row in shipped.items():
        resolved = validate(load_guidance(row.guidance), plugins)
        assert (row.model or resolved.model) in {None, *plugins.embedded_models()}, name


def test_result_that_cannot_be_written(tmp_path: Path, fake: FakePipeline) -> None:
    (tmp_path / "file").write_text("")
    outcome = shapeworld(tmp_path, "--json", str(tmp_path / "file" / "result.json"))
    assert isinstance(outcome.exception, LsregenError)
    assert fake.batches == []


def test_only_an_earlier_result_is_replaced(tmp_path: Path, fake: FakePipeline) -> None:
    result = tmp_path / "result.json"
    for content in ("notes", "{}", '{"format": "lsregen-report"}'):
        result.write_text(content)
        outcome = shapeworld(tmp_path, guidance="none")
        assert "exists and was not made by lsregen (no lsregen-evaluation); choose another --json" in str(outcome.exception)
        assert result.read_text() == content
    assert fake.batches == []
    result.unlink()
    for _ in range(2):
        assert shapeworld(tmp_path, guidance="none").exit_code == 0


def test_a_full_memory_is_named(tmp_path: Path, fake: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(FakePipeline, "__call__", full)
    outcome = shapeworld(tmp_path, "--batch", "2")
    assert isinstance(outcome.exception, ConfigError)
    assert "not enough memory with --batch 2; lower --batch" in str(outcome.exception)


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "EXTRA", {"no_such_module": "no-such-package"})
    outcome = shapeworld(tmp_path)
    assert isinstance(outcome.exception, ConfigError)
    assert "no-such-package" in str(outcome.exception)
    assert "pip install " in str(outcome.exception)
