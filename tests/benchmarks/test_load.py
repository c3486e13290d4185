"""Private memory is what is measured, and its peak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import load, subjects

from .conftest import NARROW

MIB = 2**20


def test_the_peak_is_found_after_it_is_gone() -> None:
    with load.Peak() as peak:
        held = torch.ones(64 * MIB // 4)
        assert held.sum() > 0
        del held
    assert peak.bytes > 48 * MIB


def test_weights_are_written_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subjects.UNETS, load.FAMILY, NARROW)  # pyright: ignore[reportArgumentType]
    size = load.write(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    assert 0 < file.stat().st_size - size < MIB
    assert load.load(tmp_path, "fp32") >= 0
