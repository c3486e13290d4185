"""What is said of paths that are no model: what they are, and what to give instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsregen.framework import ConfigError, Pipeline

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
