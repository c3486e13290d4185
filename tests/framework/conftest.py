"""What several tests of the framework need."""

from __future__ import annotations

import pytest

from lsregen.framework import Pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The embedded model, a new one for every file: some tests break it."""
    return Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")
