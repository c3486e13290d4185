"""Equal to rounding: what docs/explanation/numbers.md promises of two computations of one thing, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

PARITY, TRAJECTORY = 2e-5, 1e-4


def near(ours: Tensor, theirs: Tensor, tolerance: float = PARITY) -> bool:
    """Whether two tensors of one shape differ nowhere by more than a tolerance, fp32 values of about 1."""
    assert ours.shape == theirs.shape
    return float((ours.detach() - theirs.detach()).abs().max()) <= tolerance


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference, as a share of that of the second."""
    assert ours.shape == theirs.shape
    return float((ours.detach() - theirs.detach()).norm() / theirs.detach().norm())


def same_pictures(ours: Sequence[Image.Image], theirs: Sequence[Image.Image]) -> bool:
    """Whether no pixel differs by more than the one level out of 255 that rounding to eight bits may make of a last digit."""
    pairs = [[np.asarray(image).astype(int) for image in pair] for pair in zip(ours, theirs, strict=True)]
    return all(a.shape == b.shape and int(abs(a - b).max()) <= 1 for a, b in pairs)
