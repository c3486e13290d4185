"""The peak of memory: what is held for a moment counts, what was there before does not."""

from pathlib import Path

import pytest
import torch

from lsregen.evaluation.runs import peak_memory as memory

MEBIBYTE = 2**20


def test_a_short_peak_is_seen_and_earlier_work_is_not() -> None:
    peaks: list[int | None] = []
    for size in (192, 48):
        peak = memory.watch("cpu")
        held = torch.ones(size * MEBIBYTE // 4)
        del held
        peaks.append(peak())
    if None in peaks:
        pytest.skip("this system does not tell a process its peak")
    for seen, size in zip(peaks, (192, 48), strict=True):
        assert seen is not None
        assert (size - 8) * MEBIBYTE < seen < (size + 24) * MEBIBYTE


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    assert memory.watch("cpu")() is None


def test_nothing_is_told_under_an_allocator_that_may_keep_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_allocator", lambda: "libjemalloc.so.2")
    assert memory.watch("cpu")() is None


def test_an_accelerator_is_asked_for_its_own_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        asked: list[str] = []  # noqa: RUF012

        def reset_peak_memory_stats(self, device: str) -> None:
            self.asked.append(f"reset {device}")

        def max_memory_allocated(self, device: str) -> int:
            self.asked.append(f"read {device}")
            return 123

    module = Module()
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert memory.watch("cuda:1")() == 123
    assert module.asked == ["reset cuda:1", "read cuda:1"]
