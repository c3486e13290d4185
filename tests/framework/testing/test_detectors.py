"""A plain detector conforms, and for every property there is one that lacks just that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from PIL.Image import Image

from lsregen.framework import ConfigError, Detected, option
from lsregen.framework.testing import DETECTOR_PROPERTIES, ConformanceError, check_detector

HASHES = {"weights": "0" * 64}


@dataclass(frozen=True)
class Whole:
    """Finds a cat from edge to edge in every picture, and is surer of large ones."""

    doubt: float = option(0.5, "taken from its score")
    classes: ClassVar[Any] = ("cat",)
    sha256: ClassVar[Any] = HASHES
    settings: ClassVar[Any] = {}
    threshold: ClassVar[float] = 0.5

    def load(self, device: str) -> Any:
        return self

    def one(self, picture: Image, wanted: Sequence[str]) -> list[Detected]:
        return [Detected("cat", (0.0, 0.0, 1.0, 1.0), 1 - self.doubt / picture.width)]

    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Any:
        return [self.one(picture, words) for picture, words in zip(pictures, wanted, strict=True)]


@dataclass(frozen=True)
class Open(Whole):
    """Finds whatever it is asked for."""

    classes: ClassVar[Any] = None

    def one(self, picture: Image, wanted: Sequence[str]) -> list[Detected]:
        return [Detected(word, (0.0, 0.0, 1.0, 1.0), 0.5) for word in wanted]


@dataclass(frozen=True)
class Unhashed(Whole):
    sha256: ClassVar[Any] = {"weights": "unknown"}


@dataclass(frozen=True)
class Strange(Whole):
    def one(self, picture: Image, wanted: Sequence[str]) -> list[Detected]:
        return [Detected("dog", (0.0, 0.0, 1.0, 1.0), 0.5)]


@dataclass(frozen=True)
class Pixels(Whole):
    def one(self, picture: Image, wanted: Sequence[str]) -> list[Detected]:
        return [Detected("cat", (0.0, 0.0, float(picture.width), float(picture.height)), 0.5)]


@dataclass(frozen=True)
class Moody(Whole):
    def one(self, picture: Image, wanted: Sequence[str]) -> list[Detected]:
        return [Detected("cat", (0.0, 0.0, 1.0, 1.0), random.random())]


@dataclass(frozen=True)
class Crowded(Whole):
    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Any:
        return [[Detected("cat", (0.0, 0.0, 1.0, 1.0), 1 / len(pictures))] for _ in pictures]


@dataclass(frozen=True)
class Silent(Whole):
    doubt: float = option(0.5, "")


def test_detectors_conform() -> None:
    assert check_detector(Whole()).held == tuple(DETECTOR_PROPERTIES)
    assert check_detector(Open(), words=["unicorn"]).held == tuple(DETECTOR_PROPERTIES)


@pytest.mark.parametrize(
    ("detector", "lacks", "seen"),
    [
        (Unhashed(), "declarations", "SHA-256"),
        (Strange(), "answers", "a label out of cat; saw dog"),
        (Pixels(), "fractions", "a box that reaches to 96"),
        (Moody(), "deterministic", "others the second time"),
        (Crowded(), "per_picture_independence", "1 objects alone, 1 among others"),
        (Silent(), "options_round_trip", "none for doubt"),
    ],
)
def test_every_property_can_be_lacked(detector: Whole, lacks: str, seen: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_detector(detector)
    assert list(caught.value.failed) == [lacks]
    assert seen in caught.value.failed[lacks]


def test_a_property_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no property is called 'fraction' \\(did you mean 'fractions'\\?\\)"):
        check_detector(Whole(), only=["fraction"])
