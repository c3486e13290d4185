"""What happens in a run, one value for each thing, and the generators that tell of it.

Whatever makes passes through a network is a generator of these: it pauses between any two passes, so closing it cancels there.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from torch import Tensor

from .types import Latents, Prediction, Step

T = TypeVar("T")


@dataclass(frozen=True)
class LogEntry:
    """One evaluation of one term: the watched energy of each sample, and whether the sample was updated by it.

    The energy of a sample that was left out of the pass, being done, is NaN.
    """

    step: int
    term: str
    energy: tuple[float, ...]
    updated: tuple[bool, ...]
    strength: float


@dataclass(frozen=True)
class StepReport:
    """One finished step: the latent that was denoised, the next one, and what was predicted, `[b c h w]` each.

    `energies`: the last watched energy `[b]` of every term evaluated so far, on the CPU.
    """

    step: Step
    z: Latents
    z_next: Latents
    prediction: Prediction
    energies: Mapping[str, Tensor]


@dataclass(frozen=True)
class Evaluated:
    """A term was evaluated, and the latent is moved by it: one of these for every term of a guided pass."""

    entry: LogEntry


@dataclass(frozen=True)
class Stepped:
    """A step was made."""

    report: StepReport


@dataclass(frozen=True)
class Inverted:
    """One pass of an inversion was made, from the cleaner end of this step to its noisier one (see `Run.inverting`)."""

    step: Step


@dataclass(frozen=True)
class Rendering:
    """Another model makes an image for an extractor: the name of the model, and what happened in its own run."""

    source: str
    event: Progress


Progress: TypeAlias = "Rendering | Inverted | Evaluated | Stepped"
"""What happens between the beginning of a run and its end."""

Passes: TypeAlias = Generator[Progress, None, T]
"""Makes passes, pauses between them, and returns what they are made for."""


def drained(passes: Generator[object, None, T]) -> T:
    """Let a generator of events run to its end; what it returns."""
    while True:
        try:
            next(passes)
        except StopIteration as end:
            return end.value


def at_once(value: T) -> Passes[T]:
    """A generator without a pass, which returns what is there already."""
    yield from ()
    return value
