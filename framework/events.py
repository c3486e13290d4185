"""What happens in a run, one value for each thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .types import Latents, Prediction, Step


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
    """What an observer sees of one finished step: the latent that was denoised, the next one, and what was predicted.

    `energies`: the last watched energy `[b]` of every term evaluated so far.
    """

    step: Step
    z: Latents
    z_next: Latents
    prediction: Prediction
    energies: Mapping[str, Tensor]
