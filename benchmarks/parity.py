"""One request on two devices, in two dtypes or in a batch and alone: how far the latents are apart, and which decisions differ.

Two engines round differently, and a run of many steps makes more of it: a stop rule at its threshold or the largest cell of a
map may fall the other way, and then the two runs are different ones. So a run has goals for three things. The first energy is
computed from the same latent in every run. The first step and the last latent, in fp32, should be no further from those of the
CPU than the CPU's own are when the weights of its first convolution are moved by `NUDGE`, a hundred rounding errors; the last one
only where as many updates were made. In half precision decisions differ so often that these two have no goal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from benchmarks.records import Row
from benchmarks.subjects import LAYOUT, PROMPT
from lsregen.framework import Pipeline
from lsregen.framework.events import StepReport
from lsregen.models.runtime.latent_diffusion import LatentDiffusion

STEPS = 20
NUDGE = 1e-5
ROUNDING = 1e-4  # relative; what is as near as this is near, however little the run makes of a nudge
# Of the first energy, relative, by the dtype of the networks: ten times what half precision makes of it on a CPU.
ENERGY: Mapping[str, float] = MappingProxyType({"fp32": 1e-4, "fp16": 3e-3, "bf16": 0.03})


@dataclass(frozen=True)
class Walk:
    """What is compared of a batch: `start`, and the latents after the `first` and the `last` step, `[b c h w]` on the CPU; the
    `updates` made of every sample, and its first `energies`, NaN where nothing is pulled."""

    start: Tensor
    first: Tensor
    last: Tensor
    updates: tuple[int, ...]
    energies: tuple[float, ...]

    def of(self, sample: int) -> Walk:
        """One sample of the batch."""
        one = slice(sample, sample + 1)
        return Walk(self.start[one], self.first[one], self.last[one], self.updates[one], self.energies[one])

    def energy_apart(self, other: Walk) -> float:
        """How far the first energy is from `other`'s, relative; of the worst sample, NaN where nothing is pulled."""
        return max(abs(one - there) / abs(there) for one, there in zip(self.energies, other.energies, strict=True))

    def first_apart(self, other: Walk) -> float:
        """How far the first step is from `other`'s, as a part of the way it goes; of the worst sample."""
        return _worst(self.first - other.first, other.first - other.start)

    def last_apart(self, other: Walk) -> float:
        """How far the last latent is from `other`'s, as a part of its size; of the worst sample."""
        return _worst(self.last - other.last, other.last)


@dataclass
class _Latents:
    """Keeps the latents after every step, on the CPU."""

    seen: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, report: StepReport) -> None:
        self.seen.append(report.z_next.float().cpu())


def walk(pipeline: Pipeline, guidance: str | None, *, count: int = 1, seed: int = 0, steps: int = STEPS) -> Walk:
    """Make images, and keep what is compared. Raises NonFiniteError where a value is not finite."""
    latents = _Latents()
    result = pipeline(PROMPT, layout=guidance and LAYOUT, guidance=guidance, seed=seed, count=count, steps=steps, on_step=latents)
    shape = pipeline.model.latent_shape(result.report.size)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    start = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    updates = tuple(sum(entry.updated[i] for entry in result.report.energies) for i in range(count))
    log = result.report.energies
    energies = log[0].energy if log else (math.nan,) * count
    return Walk(start, latents.seen[0], latents.seen[-1], updates, energies)


@contextmanager
def nudged(pipeline: Pipeline) -> Iterator[None]:
    """Within it, the weights of the UNet's first convolution are larger by `NUDGE`."""
    assert isinstance(pipeline.model, LatentDiffusion)
    weight = pipeline.model.unet.conv_in.weight
    before = weight.clone()
    weight.mul_(1 + NUDGE)
    try:
        yield
    finally:
        weight.copy_(before)


@dataclass(frozen=True)
class Known:
    """A run on the CPU in fp32, and the same with a nudge: how far rounding may carry it."""

    run: Walk
    nudged: Walk

    @classmethod
    def of(cls, pipeline: Pipeline, guidance: str | None, steps: int) -> Known:
        run = walk(pipeline, guidance, steps=steps)
        with nudged(pipeline):
            return cls(run, walk(pipeline, guidance, steps=steps))

    def rows(self, subject: str, name: str, run: Walk, dtype: str) -> list[Row]:
        """How far another run is from the one on the CPU."""
        first = last = None
        if dtype == "fp32":
            first = max(ROUNDING, self.nudged.first_apart(self.run))
        if dtype == "fp32" and run.updates == self.run.updates:
            last = max(ROUNDING, self.nudged.last_apart(self.run))
        energy = run.energy_apart(self.run)
        pulled = [] if math.isnan(energy) else [Row(subject, f"{name}, first energy", energy, goal=ENERGY[dtype])]
        return [
            *pulled,
            Row(subject, f"{name}, first step", run.first_apart(self.run), goal=first),
            Row(subject, f"{name}, last latent", run.last_apart(self.run), goal=last),
            Row(subject, f"{name}, updates more than on the CPU", sum(run.updates) - sum(self.run.updates)),
        ]


def batch_and_singles(subject: str, pipeline: Pipeline, guidance: str | None, count: int, steps: int, dtype: str) -> list[Row]:
    """A batch beside its images made alone, and beside itself made again."""
    name, together = guidance or "plain", walk(pipeline, guidance, count=count, steps=steps)
    pairs = [(together.of(seed), walk(pipeline, guidance, seed=seed, steps=steps)) for seed in range(count)]
    energy = max(one.energy_apart(other) for one, other in pairs)
    pulled = [] if math.isnan(energy) else [Row(subject, f"{name}, first energy", energy, goal=ENERGY[dtype])]
    return [
        *pulled,
        Row(subject, f"{name}, first step", max(one.first_apart(other) for one, other in pairs)),
        Row(subject, f"{name}, last latent, median image", statistics.median(one.last_apart(other) for one, other in pairs)),
        Row(subject, f"{name}, last latent, worst image", max(one.last_apart(other) for one, other in pairs)),
        Row(subject, f"{name}, images with another number of updates", sum(a.updates != b.updates for a, b in pairs)),
        Row(
            subject,
            f"{name}, last latent of the batch made twice",
            walk(pipeline, guidance, count=count, steps=steps).last_apart(together),
        ),
    ]


def _worst(difference: Tensor, size: Tensor) -> float:
    return float((_norms(difference) / _norms(size)).max())


def _norms(values: Tensor) -> Tensor:
    return values.double().flatten(1).norm(dim=1)
