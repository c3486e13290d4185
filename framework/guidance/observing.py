"""The passes that guidance makes: one for the union of what its terms need, without the samples that are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ..protocols import Run
from ..reductions import listed
from ..sampling.taps import Taps
from ..types import Latents, Prediction, Step, View
from .contracts import check_attached
from .gradients import to_device
from .term import ActiveTerm
from .term_step import TermStep

Pending: TypeAlias = tuple[ActiveTerm, TermStep]
"""A term that is not done with every sample of a step, and how far it is."""


@dataclass(frozen=True)
class Observation:
    """A view of the batch, and which `samples` `[b]` (on the CPU) it holds; the others were left out, being done."""

    view: View
    samples: Tensor


class Observer:
    """Makes the passes of one run, and counts them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.passes = 0

    def observe(self, leaf: Latents, step: Step, pending: Sequence[Pending], *, shared: bool = False) -> Observation:
        """One pass for the union of what the terms need; none at all if they look at `z` only.

        Once half of the samples or more are done, the others are passed without them. `shared`: denoising uses the pass too, and
        needs every sample.
        """
        denoiser, model = self.run.denoiser, self.run.model
        points = {point for active, _ in pending for point in active.points}
        taps = Taps(points, full=shared or any(active.needs.estimate for active, _ in pending))
        live = torch.stack([progress.updated for _, progress in pending]).any(dim=0)
        everyone = torch.ones_like(live)
        if not taps.wanted and not taps.full:
            return Observation(View(leaf, step, taps, denoiser.layers), everyone)
        self.passes += 1
        if shared or 2 * int(live.sum()) > len(leaf):
            return Observation(check_attached(denoiser.observe(leaf, step, taps), model), everyone)
        chosen = listed(live.nonzero()[:, 0])
        some = check_attached(denoiser.select(chosen).observe(leaf[chosen], step, taps), model)
        return Observation(some.spread(leaf, partial(scatter_live, live=to_device(live, leaf))), live)

    def of_estimate(self, z: Latents, step: Step, prediction: Prediction) -> Observation:
        """What is known without a pass: a prediction that was made of `z`."""
        view = View(z, step, Taps(()), self.run.denoiser.layers, prediction, self.run.model.decode)
        return Observation(view, torch.ones(len(z), dtype=torch.bool))


def scatter_live(value: Tensor, live: Tensor) -> Tensor:
    """What was computed for the `live` samples alone, for all `[b]`: the others get copies, into which no gradient goes."""
    copies = value[(live.cumsum(dim=0) - 1).clamp(min=0)]
    return torch.where(live.reshape(-1, *[1] * (value.ndim - 1)), copies, copies.detach())
