"""A narrow network of SD 1.5's shape, small enough to run for real."""

from __future__ import annotations

import pytest

from benchmarks.subjects import UNETS, Subject

NARROW = {
    "attention_head_dim": 4,
    "block_out_channels": [32, 32, 64, 64],
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setitem(UNETS, "SD 1.5", NARROW)  # pyright: ignore[reportArgumentType]
    return Subject("SD 1.5", (128, 128))
