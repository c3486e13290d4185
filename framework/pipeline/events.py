"""What `Pipeline.stream` tells of: how a run begins and ends, and everything between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..events import Evaluated, Inverted, Rendering, Stepped
from ..types import Step
from .report import Result


@dataclass(frozen=True)
class Prepared:
    """A run begins: the prompts are encoded, and the noise is drawn.

    `steps`: those that will be made. `size`: width and height of the images in pixels. `notices`: the warnings so far.
    """

    steps: tuple[Step, ...]
    size: tuple[int, int]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """A run has ended, and its images are decoded. `result.finished` says whether all of its steps were made."""

    result: Result


Event: TypeAlias = Prepared | Rendering | Inverted | Evaluated | Stepped | Finished
"""`Prepared` comes first and `Finished` last. Between them, extractors may render (`Rendering`) and invert (`Inverted`); then
every step has an `Evaluated` for each evaluation of each term, and ends with `Stepped`."""
