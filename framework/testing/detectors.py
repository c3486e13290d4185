"""The properties of a detector, and `check_detector`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
from PIL.Image import Image, fromarray

from ..config.arguments import checked
from ..plugins.class_checks import check_instance, check_plugin
from ..plugins.detection import Detected, Detector, LoadedDetector
from .checks import OPTIONS_MEND, REPEAT_MEND, Conformance, Property, expect, expect_options, meanings, run_checks

SIZES = ((64, 64), (96, 64), (64, 64))
CLOSE = 1e-3  # between a picture alone and among others: batches are computed in another order


@dataclass(frozen=True)
class Subject:
    """A detector under test, and words that it may be asked for."""

    detector: Detector
    device: str
    words: tuple[str, ...]

    @cached_property
    def loaded(self) -> LoadedDetector:
        return self.detector.load(self.device)

    @cached_property
    def pictures(self) -> tuple[Image, ...]:
        """Noise, with a patch of one colour that a detector may find."""
        stream = np.random.default_rng(0)
        pictures: list[Image] = []
        for (width, height), colour in zip(SIZES, ((220, 30, 30), (30, 60, 220), (40, 170, 60)), strict=True):
            pixels = stream.integers(100, 140, (height, width, 3), dtype=np.uint8)
            pixels[16:40, 20:44] = colour
            pictures.append(fromarray(pixels))
        return tuple(pictures)

    def look(self, pictures: Sequence[Image]) -> list[list[Detected]]:
        return [list(found) for found in self.loaded(pictures, [self.words] * len(pictures))]


def declarations(subject: Subject) -> None:
    """It is a frozen dataclass, and says loaded what it knows and what decides its findings."""
    check_plugin("detector", "checked", type(subject.detector))
    classes = subject.loaded.classes
    named = type(classes) is tuple and len(classes) > 0 and all(type(name) is str for name in classes)
    expect(classes is None or named, "classes to be None or a tuple of names", repr(classes)[:200])
    expect(0 <= subject.loaded.threshold <= 1, "a threshold in [0, 1]", subject.loaded.threshold)
    wrong = [name for name, value in subject.loaded.sha256.items() if not re.fullmatch("[0-9a-f]{64}", value)]
    expect(bool(subject.loaded.sha256) and not wrong, "the SHA-256 of every file that decides", dict(subject.loaded.sha256))


def answers(subject: Subject) -> None:
    """It answers for every picture in its order, with labels that it knows, finite boxes with an area, and scores in [0, 1]."""
    found = subject.look(subject.pictures)
    expect(len(found) == len(subject.pictures), f"{len(subject.pictures)} answers", len(found))
    known = subject.loaded.classes or subject.words
    for each in (one for row in found for one in row):
        left, top, right, bottom = each.box
        expect(all(map(isfinite, each.box)) and left < right and top < bottom, "left < right and top < bottom", each.box)
        expect(0 <= each.score <= 1, "a score in [0, 1]", each.score)
        expect(each.label in known, f"a label out of {', '.join(known)[:200]}", each.label)


def fractions(subject: Subject) -> None:
    """Boxes are fractions of the picture, whatever its size: not pixels."""
    boxes = [each.box for row in subject.look(subject.pictures) for each in row]
    largest = max((abs(value) for box in boxes for value in box), default=0.0)
    expect(largest < 8, "fractions of width and height", f"a box that reaches to {largest:.3g}")


def deterministic(subject: Subject) -> None:
    """The same pictures give the same answers."""
    expect(subject.look(subject.pictures) == subject.look(subject.pictures), "equal answers", "others the second time")


def per_picture_independence(subject: Subject) -> None:
    """What is found in a picture does not depend on the others."""
    together = subject.look(subject.pictures)
    for picture, row in zip(subject.pictures, together, strict=True):
        (alone,) = subject.look([picture])
        same = len(alone) == len(row) and all(
            a.label == b.label and max(abs(x - y) for x, y in zip((*a.box, a.score), (*b.box, b.score), strict=True)) < CLOSE
            for a, b in zip(alone, row, strict=True)
        )
        expect(same, "a picture alone to give what it gives among others", f"{len(alone)} objects alone, {len(row)} among others")


def options_round_trip(subject: Subject) -> None:
    """Its options survive JSON, and each has a line of help."""
    expect_options(subject.detector)


FIRST = ("declarations",)
PROPERTIES: tuple[Property[Subject], ...] = (
    Property(declarations, "see the `Detector` and `LoadedDetector` protocols"),
    Property(answers, "give one list of `Detected` for each picture", FIRST),
    Property(fractions, "divide by the picture's width and height", ("answers",)),
    Property(deterministic, REPEAT_MEND, ("answers",)),
    Property(per_picture_independence, "pass pictures of different sizes one by one: padding changes them", ("deterministic",)),
    Property(options_round_trip, OPTIONS_MEND, FIRST),
)
DETECTOR_PROPERTIES = meanings(PROPERTIES)


@checked
def check_detector(
    detector: Detector, *, words: Sequence[str] = ("cat", "dog"), only: Collection[str] | None = None, device: str = "cpu"
) -> Conformance:
    """Check that a detector can measure: its weights are loaded, and it looks at small pictures of several sizes.

    Args:
        words: what a detector without classes of its own is asked for.
        only: names out of `DETECTOR_PROPERTIES`; all of them by default.
        device: where it runs, by torch's name, or `auto`.

    Raises:
        ConformanceError: it lacks some of the properties; a line for each.
        ConfigError: `only` names a property that does not exist.
    """
    check_instance("detector", detector)
    return run_checks("detector", detector, Subject(detector, device, tuple(words)), PROPERTIES, only)
