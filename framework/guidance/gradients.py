"""The gradient of a group of terms: one backward, scaled in half precision, its size, and what a broken one leads to."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..types import Latents, Step
from .schedule import Schedule

SCALES = (2.0**16, 2.0**11, 2.0**6, 1.0)
"""What the backward of a sample starts with instead of 1 through a float16 network: the first that gives finite gradients."""


class Backward:
    """The backwards of one run.

    float16 has nothing between 0 and 6e-8, so small gradients would vanish on their way through the network: each sample's energy
    is scaled up before, and its gradient down after, in float32 (loss scaling; Micikevicius et al. 2018, section 3.2). A scale
    that overflows for a sample is given up for this sample, for the rest of the run; others keep theirs.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._scales = SCALES if dtype == torch.float16 else SCALES[-1:]
        self._places: Tensor | None = None  # [b], each sample's place in the scales

    def __call__(self, energies: Tensor, leaf: Latents, *, keep_graph: bool) -> Tensor | None:
        """The gradient `[b c h w]` of energies `[b]`; None if they do not depend on the leaf.

        A sample whose gradient is not finite at any scale keeps it as it is, and its place for the next time.
        """
        scales = torch.tensor(self._scales, dtype=energies.dtype, device=leaf.device)
        last = len(self._scales) - 1
        if self._places is None:
            self._places = torch.zeros(len(leaf), dtype=torch.long, device=leaf.device)
        places = self._places
        while True:
            scale = scales[places]  # [b]
            (gradient,) = cast(
                "tuple[Tensor | None]",
                torch.autograd.grad(energies, leaf, scale, retain_graph=keep_graph or last > 0, allow_unused=True),
            )
            if gradient is None:
                return None
            gradient = gradient.detach() / scale.to(gradient.dtype).reshape(-1, 1, 1, 1)
            if last == 0:
                return gradient
            broken = broken_samples(gradient)
            if not bool((broken & (places < last)).any()):
                self._places = torch.where(broken, self._places, places)
                return gradient
            places = torch.where(broken, (places + 1).clamp(max=last), places)


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
