"""Object detectors, by which evaluations find again what a picture shows: what they are, and what they give back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detected:
    """One object found in a picture.

    `label`: one of the detector's classes, or of the words it was asked for. `box`: (left, top, right, bottom) as fractions of
    the picture's width and height, as the detector says it: it may reach beyond the picture. `score`: in [0, 1], the higher the
    surer.
    """

    label: str
    box: Corners
    score: float


class LoadedDetector(Protocol):
    """A detector with its weights, ready to look.

    `classes`: the labels that it knows, or None if it looks for any words. `sha256`: of every file that decides what it finds, by
    name. `settings`: everything else that does, as JSON types. `threshold`: the score in [0, 1] from which an object counts as
    there, where somebody asks whether it is; objects of lower scores are given back too, as average precision wants them.
    """

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def sha256(self) -> Mapping[str, str]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def threshold(self) -> float: ...

    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Sequence[Sequence[Detected]]:
        """What each of the pictures shows, of any sizes, in RGB.

        What is found in a picture depends on that picture alone. A detector with `classes` reports all of them; one without
        reports `wanted`, words for each picture.
        """
        ...


class Detector(Protocol):
    """What a detector plugin registers: a frozen dataclass of options, cheap to make."""

    def load(self, device: str) -> LoadedDetector:
        """Read the weights. `device`: by torch's name, or `auto`.

        Raises:
            LsregenError: they cannot be used.
        """
        ...
