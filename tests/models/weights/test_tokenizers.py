"""One rule for tokenizers: in a folder, beside a single file and in the hub's cache."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lsregen.framework import CheckpointError
from lsregen.models.weights.tokenizers import ALL, OPENAI, SD2, copy_tokenizer, find_tokenizers, folder_tokenizers, lacking
from tests.models.small_models import write_tokenizer

Place = Callable[[Path], Path]


@pytest.fixture
def whole(tmp_path: Path, oracles: object) -> Path:
    """A tokenizer in one file, as newer versions of transformers write it."""
    from transformers import CLIPTokenizerFast

    write_tokenizer(tmp_path / "old")
    CLIPTokenizerFast.from_pretrained(tmp_path / "old").save_pretrained(tmp_path / "new")
    made = tmp_path / "whole"
    made.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "new" / name, made / name)
    return made


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in the hub's cache of whatever repository is asked for."""
    import huggingface_hub

    folder = tmp_path / "cached"
    folder.mkdir()

    def look_up(_: str, name: str) -> str | None:
        path = folder / Path(name).name
        return str(path) if path.exists() else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look_up)
    return folder


def beside(path: Path) -> Path:
    return find_tokenizers(path / "model.safetensors", "sd1", ["text_encoder"])["text_encoder"]


def inside(path: Path) -> Path:
    return folder_tokenizers(path, "sd1", ["text_encoder"])["text_encoder"]


@pytest.mark.parametrize("find", [beside, inside])
def test_one_file_or_two(tmp_path: Path, whole: Path, cached: Path, find: Place) -> None:
    for kind in (whole, tmp_path / "old"):
        home = tmp_path / f"home-{kind.name}"
        shutil.copytree(kind, home / "tokenizer")
        assert find(home) == home / "tokenizer"
        for file in kind.iterdir():
            shutil.copy(file, cached / file.name)
        assert find(tmp_path / "nothing-there") == cached
        for file in cached.iterdir():
            file.unlink()


@pytest.mark.parametrize("find", [beside, inside])
def test_what_a_folder_lacks_is_named(tmp_path: Path, cached: Path, find: Place, caplog: pytest.LogCaptureFixture) -> None:
    write_tokenizer(tmp_path / "home" / "tokenizer")
    (tmp_path / "home" / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"home/tokenizer is not whole: it lacks tokenizer\.json, or merges\.txt"):
        find(tmp_path / "home")
    write_tokenizer(tmp_path / "old")
    copied = [shutil.copy(file, cached / file.name) for file in (tmp_path / "old").iterdir()]
    with caplog.at_level(logging.WARNING):
        assert find(tmp_path / "home") == cached
    assert copied
    assert "merges.txt" in caplog.text


def test_how_it_pads_must_be_said_where_it_pads_otherwise(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", pad="!")
    assert lacking(tmp_path / "tokenizer", SD2) == ""
    (tmp_path / "tokenizer" / "tokenizer_config.json").unlink()
    assert lacking(tmp_path / "tokenizer", OPENAI) == ""
    assert "tokenizer_config.json" in lacking(tmp_path / "tokenizer", SD2)


def test_only_a_tokenizer_is_copied(tmp_path: Path) -> None:
    """In the hub's cache weights lie beside it."""
    write_tokenizer(tmp_path / "home")
    (tmp_path / "home" / "model.safetensors").write_bytes(bytes(100))
    copy_tokenizer(tmp_path / "home", tmp_path / "copy")
    copied = {path.name for path in (tmp_path / "copy").iterdir()}
    assert copied == {"vocab.json", "merges.txt", "tokenizer_config.json"} < set(ALL)
