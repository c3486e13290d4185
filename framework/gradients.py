"""The gradient of a group of terms: one backward, scaled in half precision, its size, and what a broken one leads to."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from .schedule import Schedule
from .types import Latents, Step

SCALES = (2.0**16, 2.0**11, 2.0**6, 1.0)
"""What a backward starts with instead of 1 through a float16 network, the first that gives finite gradients."""


class Backward:
    """The backwards of one run.

    float16 has nothing between 0 and 6e-8, so small gradients would vanish on their way through the network: the energy is scaled
    up before, and the gradient down after, in float32 (loss scaling; Micikevicius et al. 2018, section 3.2). A scale that
    overflows is given up for the rest of the run; the graph is kept for the next one.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._scales = SCALES if dtype == torch.float16 else SCALES[-1:]

    def __call__(self, total: Tensor, leaf: Latents, *, keep_graph: bool) -> Tensor | None:
        """The gradient `[b c h w]` of a scalar; None if it does not depend on the leaf. It may not be finite at any scale."""
        while True:
            scale, *lower = self._scales
            (gradient,) = cast(
                "tuple[Tensor | None]",
                torch.autograd.grad(
                    total, leaf, torch.full_like(total, scale), retain_graph=keep_graph or bool(lower), allow_unused=True
                ),
            )
            if gradient is None:
                return None
            if not lower or bool(torch.isfinite(gradient).all()):
                return gradient.detach() / scale
            self._scales = tuple(lower)


def normalised(gradient: Latents, schedule: Schedule, step: Step) -> Latents:
    """`gamma * g`: each sample's gradient by its own size where the schedule says so; a sample without a pull stays as it is."""
    if schedule.normalise == "none":
        return gradient  # gamma is in it already
    flat = gradient.flatten(1)
    size = flat.abs().amax(dim=1) if schedule.normalise == "linf" else flat.square().mean(dim=1).sqrt()
    size = torch.where(size > 0, size, torch.inf).reshape(-1, 1, 1, 1)
    return schedule.strength(step) * (gradient / size)


def broken_samples(gradient: Latents) -> Tensor:
    """Which samples' gradients hold a value that is not finite, `[b]`."""
    return ~torch.isfinite(gradient).flatten(1).all(dim=1)
