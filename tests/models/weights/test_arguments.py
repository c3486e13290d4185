"""What a loader is given: everything that it cannot use is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lsregen.framework import ConfigError, LoadOptions, LsregenError
from lsregen.models import EMBEDDED, CheckpointFile, DiffusersFolder

BASE = EMBEDDED / "shapeworld-base"
GIVEN: dict[str, Any] = {"device": "cpu", "dtype": "fp32"}
FOREIGN: list[tuple[str, Any]] = [
    ("device", 3), ("device", None), ("device", torch.device("cpu")), ("device", ""), ("dtype", None), ("dtype", torch.int8),
    ("dtype", "int8"), ("vae", 3), ("vae", b"x"), ("vae", ""), ("vae", "~nobody-of-this-name/x"), ("prediction_type", 3),
    ("prediction_type", "x"), ("grounding", "x"), ("grounding", float("nan")), ("grounding", 10**400), ("grounding", True),
    ("memory", 3), ("memory", None), ("memory", "much"), ("tiling", 3), ("tiling", True), ("tile", "big"), ("tile", 2.5),
    ("tile", -1), ("offload", "yes"), ("offload", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*FOREIGN, ("variant", 3), ("variant", "")])
def test_a_folder(name: str, value: Any) -> None:
    with pytest.raises(LsregenError, match=name):
        DiffusersFolder().load(BASE, LoadOptions(**{**GIVEN, name: value}))


@pytest.mark.parametrize(("name", "value"), [*FOREIGN, ("family", 3), ("family", "sd9")])
def test_a_file(files: Path, name: str, value: Any) -> None:
    with pytest.raises(LsregenError, match=name):
        CheckpointFile().load(files / "sd1.safetensors", LoadOptions(**{**GIVEN, name: value}))


def test_all_of_them_at_once() -> None:
    arguments: dict[str, Any] = {"device": 3, "dtype": None, "memory": 5}
    with pytest.raises(ConfigError) as caught:
        DiffusersFolder().load(BASE, LoadOptions(**arguments))
    assert [line.split(": ")[1] for line in str(caught.value).split("\n")] == ["device", "dtype", "memory"]
