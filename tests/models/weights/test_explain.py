"""What is said of paths that are no model: what they are, and what to give instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lsregen.framework import CheckpointError, ConfigError, LoadOptions, LsregenError, Pipeline
from lsregen.models import CheckpointFile, DiffusersFolder

INDEX, CONFIG = "model_index.json", "config.json"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "the folder is empty"),
        ({CONFIG: {"_class_name": "ControlNetModel"}}, r"this is one component \(ControlNetModel\), not a whole model"),
        ({CONFIG: {"_class_name": "AutoencoderKL"}}, r"\(AutoencoderKL\), not a whole model; give it to a model with --vae"),
        ({CONFIG: {"architectures": ["CLIPTextModel"]}}, r"\(CLIPTextModel\), not a whole model"),
        ({CONFIG: {}}, r"\(its config\.json does not name it\)"),
        ({CONFIG: {"_class_name": "X"}, f"../{INDEX}": {}}, r"one component \(X\), .*; the whole model is \S+/home$"),
        (
            {"unet/config.json": {}, "vae/config.json": {}},
            "the components of a model, but no model_index.json; download that too",
        ),
        ({"sd1.safetensors": {}, "sd1.yaml": {}}, r"it holds sd1\.safetensors; give the path of the file itself"),
        ({"notes.txt": {}}, r"it holds notes\.txt"),
    ],
)
def test_folders_without_an_index(tmp_path: Path, files: dict[str, object], said: str) -> None:
    folder = tmp_path / "home" / "model"
    folder.mkdir(parents=True)
    for name, values in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=rf"model {folder}: not recognised .* or a file of weights: .*{said}"):
        Pipeline.load(folder)


def test_a_broken_config_names_nothing(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match=r"or a file of weights: it holds config\.json$"):
        Pipeline.load(tmp_path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"or a file of weights$"):
        Pipeline.load(tmp_path / "notes.txt")


def hub_cache(folder: Path, *, blobs: bool) -> Path:
    """The folder of a repository in the hub's cache; without its blobs, as if links alone had been copied."""
    home = folder / "models--me--tiny"
    commit = home / "snapshots" / "0123abc"
    for part in (home / "blobs", home / "refs", commit):
        part.mkdir(parents=True)
    if blobs:
        (home / "blobs" / "b1").write_text("{}")
    (commit / INDEX).symlink_to(Path("..") / ".." / "blobs" / "b1")
    return home


def test_a_repository_in_the_hubs_cache(tmp_path: Path) -> None:
    home = hub_cache(tmp_path, blobs=True)
    with pytest.raises(ConfigError, match=rf"me/tiny, or by the folder {home}/snapshots/0123abc"):
        Pipeline.load(home)


def test_a_cache_that_was_copied_without_its_blobs(tmp_path: Path) -> None:
    commit = hub_cache(tmp_path, blobs=False) / "snapshots" / "0123abc"
    for path in (commit, commit / INDEX):
        with pytest.raises(LsregenError, match=r"a link to \S+blobs/b1, which is not there.* without its blobs"):
            Pipeline.load(path)


def test_weights_whose_blob_is_gone(oracles: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(oracles("base").folder, tmp_path / "copy"))
    for name in ("unet/diffusion_pytorch_model.safetensors", "vae/config.json", "scheduler/scheduler_config.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to("../../../blobs/b2")
        with pytest.raises(CheckpointError, match=rf"{name}.*blobs/b2, which is not there.* without its blobs"):
            Pipeline.load(folder, device="cpu", dtype="fp32")
        (folder / name).unlink()
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "a/" * 3000 + "x.ckpt", "\0.safetensors", "/dev/zero"])
def test_paths_that_no_model_has(name: str) -> None:
    for given in (name, Path(name)):
        with pytest.raises(LsregenError):
            Pipeline.load(given)
    for loader in (DiffusersFolder(), CheckpointFile()):
        with pytest.raises(LsregenError):
            loader.load(Path(name), LoadOptions(device="cpu", dtype="fp32"))
        assert not loader.recognises(Path(name)) or name.endswith((".safetensors", ".ckpt"))
