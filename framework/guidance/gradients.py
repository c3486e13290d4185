"""The gradients of energies: one backward for each sum of terms, scaled in half precision, and one transfer to the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from ..types import Latents, Step
from .schedule import NORMALISATIONS, Schedule

SCALES = (2.0**16, 2.0**11, 2.0**6, 1.0)
"""What the backward of a sample starts with instead of 1 through a float16 network: the first that gives finite gradients."""


@dataclass(frozen=True)
class Summed:
    """Energies `[b]` that share one backward. `calling` makes the context in which it runs, which names whose code may fail."""

    energies: Tensor
    calling: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Gradients:
    """`values`: the gradients `[b c h w]`, on the device; None for energies that do not depend on the leaf.

    On the CPU: which samples of each are `broken` `[b]`, and what was asked for `beside` them, `[b]` each.
    """

    values: list[Tensor | None]
    broken: list[Tensor]
    beside: list[Tensor]


class Backward:
    """The backwards of one run.

    float16 has nothing between 0 and 6e-8, so small gradients would vanish on their way through the network: each sample's energy
    is scaled up before, and its gradient down after, in float32 (loss scaling; Micikevicius et al. 2018, section 3.2). A scale
    that overflows for a sample is given up for this sample, for the rest of the run; others keep theirs.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._scales = SCALES if dtype == torch.float16 else SCALES[-1:]
        self._places: Tensor | None = None  # [b], each sample's place in the scales, on the CPU

    def __call__(
        self, sums: Sequence[Summed], leaf: Latents, beside: Sequence[Tensor] = (), *, keep_graph: bool = False
    ) -> Gradients:
        """The gradient of each sum, in order. One transfer to the CPU, unless a scale overflows.

        A sample whose gradient is not finite at any scale keeps it as it is, and its place for the next time.

        Args:
            beside: values `[b]` that the CPU needs to know too.
            keep_graph: whether the graph is needed after the last of the backwards.
        """
        last, count = len(self._scales) - 1, len(sums)
        before = torch.zeros(len(leaf), dtype=torch.long) if self._places is None else self._places
        places = [before] * count
        kept = [keep_graph or last > 0 or i < count - 1 for i in range(count)]
        values = [self._once(sums[i], leaf, places[i], keep_graph=kept[i]) for i in range(count)]
        while True:
            flags = [torch.zeros_like(s.energies) if v is None else broken_samples(v) for s, v in zip(sums, values, strict=True)]
            told = to_cpu([*beside, *flags])
            broken = [flag.bool() for flag in told[len(beside) :]]
            again = [i for i in range(count) if bool((broken[i] & (places[i] < last)).any())]
            if not again:
                break
            for i in again:
                places[i] = torch.where(broken[i], (places[i] + 1).clamp(max=last), places[i])
                values[i] = self._once(sums[i], leaf, places[i], keep_graph=True)
        settled = [torch.where(flag, before, place) for flag, place in zip(broken, places, strict=True)]
        self._places = reduce(torch.maximum, settled, before)
        return Gradients(values, broken, told[: len(beside)])

    def _once(self, sums: Summed, leaf: Latents, places: Tensor, *, keep_graph: bool) -> Tensor | None:
        energies = sums.energies
        scale = to_device(torch.tensor(self._scales, dtype=energies.dtype)[places], leaf)  # [b]
        with sums.calling():
            (gradient,) = cast(
                "tuple[Tensor | None]",
                torch.autograd.grad(energies, leaf, scale, retain_graph=keep_graph, allow_unused=True),
            )
        if gradient is None:
            return None
        return gradient.detach() / scale.to(gradient.dtype).reshape(-1, 1, 1, 1)


def normalised(gradient: Latents, schedule: Schedule, step: Step) -> Latents:
    """`gamma * g`: each sample's gradient by its own size where the schedule says so; a sample without a pull stays as it is."""
    if schedule.normalise == "none":
        return gradient  # gamma is in it already
    flat = gradient.flatten(1)
    size = NORMALISATIONS[schedule.normalise](flat)
    size = torch.where(size > 0, size, torch.inf).reshape(-1, 1, 1, 1)
    return schedule.strength(step) * (gradient / size)


def broken_samples(gradient: Latents) -> Tensor:
    """Which samples' gradients hold a value that is not finite, `[b]`."""
    return ~torch.isfinite(gradient).flatten(1).all(dim=1)


def to_cpu(values: Sequence[Tensor]) -> list[Tensor]:
    """Values `[b]` of one device, brought to the CPU by one transfer, as numbers of one type that holds them all."""
    dtype = reduce(torch.promote_types, (value.dtype for value in values), torch.float32)
    return list(torch.stack([value.detach().to(dtype) for value in values]).cpu())


def to_device(mask: Tensor, like: Tensor) -> Tensor:
    """A value of the CPU on the device of another, which is not waited for."""
    return mask.to(like.device, non_blocking=True)
