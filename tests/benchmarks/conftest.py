"""A narrow network of SD 1.5's shape, small enough to run for real."""

from __future__ import annotations

import pytest

from benchmarks.subjects import Subject


@pytest.fixture
def narrow() -> Subject:
    return Subject("SD 1.5", (128, 128), narrow=True)
