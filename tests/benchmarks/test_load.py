"""Private memory is what is measured, and its peak."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest

from benchmarks import load, subjects

MIB = 2**20
SIZE = 64 * MIB


def test_the_peak_is_found_after_it_is_gone() -> None:
    # A mapping of its own: memory from an allocator may be pages that it kept from an earlier test.
    with load.Peak() as peak, mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(bytes(SIZE))
        deadline = time.monotonic() + 60
        while peak.bytes < 0.9 * SIZE and time.monotonic() < deadline:
            time.sleep(load.POLL)  # the watching thread needs its turn
    assert peak.bytes >= 0.9 * SIZE


def test_weights_are_written_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subjects.UNETS, load.FAMILY, subjects.NARROW["SD 1.5"])  # pyright: ignore[reportArgumentType]
    size = load.write(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    assert 0 < file.stat().st_size - size < MIB
    assert load.load(tmp_path, "fp32") >= 0
