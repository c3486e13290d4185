"""Numbers with intervals: average precision of requested boxes, the bootstrap over images, and paired differences.

Everything is resampled by image, because the objects of one image are not independent. A metric is a `Statistic`: a function of
which images were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Draws: TypeAlias = NDArray[np.intp]
Corners: TypeAlias = tuple[float, float, float, float]

RECALLS: Floats = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""
MOST_BOXES = 100  # of one phrase in one image: COCO leaves out the others
RESAMPLES = 1000
CELLS = 2**21
"""The most numbers of one array of a statistic while it is resampled: 16 MiB."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class FoundBox:
    """A detected object: its phrase (`red circle`), its box and a score, the higher the surer. Boxes as in `ImageResult`."""

    phrase: str
    box: Corners
    score: float


@dataclass(frozen=True)
class ImageResult:
    """What was asked of one image (phrases and boxes), and everything that was found in it.

    A box is (left, top, right, bottom), in any unit, the same for all boxes of an image.
    """

    requested: tuple[tuple[str, Corners], ...]
    found: tuple[FoundBox, ...]


@dataclass(frozen=True)
class Statistic:
    """A number that depends on which of `items` are drawn.

    `of`: from numbers of items `[resamples, drawn]`, each in [0, items), to values `[resamples]`, NaN where those items tell
    nothing. `centred`: the values of resamples lie to one side of the value itself, so only their spread is used for an interval.
    `bounds`: of all values. `width`: how many numbers `of` holds in an array for each resample, where they are more than `items`.
    `known`: the value itself, where a library tells it; that of `of` is the same number to rounding.
    """

    items: int
    of: Callable[[Draws], Floats]
    centred: bool = False
    bounds: tuple[float, float] = (-np.inf, np.inf)
    width: int = 0
    known: float | None = None

    @property
    def value(self) -> float:
        """With every item drawn once."""
        if self.known is not None:
            return self.known
        return float(self.of(np.arange(self.items)[None, :])[0])

    def values(self, draws: Draws) -> Floats:
        """`of` many resamples, some at a time, so that they fit into memory."""
        some = max(1, CELLS // max(self.items, self.width))
        return np.concatenate([self.of(draws[first : first + some]) for first in range(0, len(draws), some)])


def mean(values: Sequence[float] | Floats) -> Statistic:
    """The mean of one value per item."""
    array = np.asarray(values, dtype=np.float64)
    return Statistic(len(array), lambda draws: array[draws].mean(axis=1))


def ratio(totals: Sequence[float] | Floats, counts: Sequence[float] | Floats) -> Statistic | None:
    """The sum of the totals over the sum of the counts, one of each per item; None where nothing was counted.

    A resample without a count is not a number: it says nothing of the share, and its interval is that of the others.
    """
    above, below = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not below.any():
        return None

    def of(draws: Draws) -> Floats:
        counted = below[draws].sum(axis=1)
        return above[draws].sum(axis=1) / np.where(counted > 0, counted, np.nan)

    return Statistic(len(above), of)


@dataclass(frozen=True, eq=False)
class Resampled:
    """The `value` of a statistic, and its `values` `[n]` over resamples, NaN in some; the rest as in `Statistic`."""

    items: int
    value: float
    values: Floats
    centred: bool
    bounds: tuple[float, float]

    @property
    def interval(self) -> Interval:
        """See `bootstrap`."""
        low, high = np.nanpercentile(self.values, (2.5, 97.5))
        if self.centred:
            offset = np.nanmean(self.values) - self.value
            low, high = np.clip((low - offset, high - offset), *self.bounds)
        return Interval(self.value, float(low), float(high))


def resample(values: Statistic | Sequence[float] | Floats, n: int = RESAMPLES, seed: int = 0) -> Resampled:
    """A statistic over `n` resamples of its items; a sequence stands for its mean. Equal arguments draw equal items.

    Raises:
        ValueError: there are no items.
    """
    statistic = values if isinstance(values, Statistic) else mean(values)
    drawn = statistic.values(draw(statistic.items, n, seed))
    return Resampled(statistic.items, statistic.value, drawn, statistic.centred, statistic.bounds)


def bootstrap(values: Statistic | Sequence[float] | Floats, n: int = RESAMPLES, seed: int = 0) -> Interval:
    """The value with its 95 % percentile interval over `n` resamples of the items; a sequence stands for its mean.

    The percentiles of a `centred` statistic are moved by what its resamples are off the value on average, within its bounds.

    Raises:
        ValueError: there are no items.
    """
    return resample(values, n, seed).interval


def paired_difference(
    first: Statistic | Sequence[float] | Floats, second: Statistic | Sequence[float] | Floats, n: int = RESAMPLES, seed: int = 0
) -> Interval:
    """`second - first` with its interval: both are computed on the same draws, so that what the items share cancels.

    Raises:
        ValueError: there are no items, or not equally many.
    """
    return difference(resample(first, n, seed), resample(second, n, seed))


def difference(first: Resampled, second: Resampled) -> Interval:
    """`paired_difference` of what was resampled before, with equal `n` and `seed`.

    Raises:
        ValueError: there are not equally many items.
    """
    if first.items != second.items:
        raise ValueError(f"a paired difference needs the same items on both sides, got {first.items} and {second.items}")
    bounds = second.bounds[0] - first.bounds[1], second.bounds[1] - first.bounds[0]
    return Resampled(
        first.items, second.value - first.value, second.values - first.values, first.centred or second.centred, bounds
    ).interval


def draw(items: int, n: int, seed: int) -> Draws:
    """Numbers of items drawn with replacement, `[n, items]`; a pure function of its arguments."""
    if items < 1 or n < 1:
        raise ValueError(f"nothing to resample: {items} items, {n} resamples")
    return np.random.default_rng(seed).integers(items, size=(n, items))


def average_precision(results: Sequence[ImageResult], iou: float = 0.5) -> float:
    """COCO's mean average precision of the requested boxes, in [0, 1], by faster-coco-eval.

    Classes are phrases, case and all. A found box of a class counts in every image, whether or not the class was asked for there;
    classes that were asked for nowhere are left out of the mean. `iou`: the least overlap of a right box with a requested one.

    Raises:
        ValueError: no box was requested.
    """
    truth, found = _coco_truth(results), _coco_found(results)
    if not found:
        return 0.0
    coco: Any = import_module("faster_coco_eval")
    reference = coco.COCO(truth, print_function=_silent)
    evaluation = coco.COCOeval_faster(reference, reference.loadRes(found), iouType="bbox", print_function=_silent)
    evaluation.params.iouThrs = np.array([iou])
    evaluation.params.maxDets = [1, 10, MOST_BOXES]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = cast("Floats", evaluation.eval["precision"])[0, :, :, 0, -1]  # [recalls classes]; -1 where nothing was asked for
    return float(precision[precision > -1].mean())


def precision_statistic(results: Sequence[ImageResult], iou: float = 0.5) -> Statistic:
    """`average_precision` as a function of the images drawn: the same number, fast enough for a thousand resamples.

    Whether a found box is right depends on its own image alone, so boxes are matched once, and a resample only counts images. An
    image drawn twice stands beside itself in the order of equal scores. The statistic is centred: a class has few boxes, and
    drawing one of them twice raises its precision more often than not, so that plain percentiles lie too high.

    Raises:
        ValueError: no box was requested.
    """
    classes = _classes(results)
    matched = [_match_class(results, phrase, iou) for phrase in classes]

    def of(draws: Draws) -> Floats:
        times = times_drawn(draws, len(results))
        total, asked = np.zeros(len(draws)), np.zeros(len(draws))
        for wanted, image, right in matched:  # one class after the other: the sum does not depend on how many resamples there are
            boxes = times[:, wanted].sum(axis=1)
            total += _class_precision(boxes, times[:, image], right) * (boxes > 0)
            asked += boxes > 0
        return total / asked.clip(min=1)

    widest = max(len(image) for _, image, _ in matched)
    return Statistic(len(results), of, centred=True, bounds=(0.0, 1.0), width=widest)


def _silent(*_: object) -> None:
    """The evaluation reports its progress by a function."""


def _classes(results: Sequence[ImageResult]) -> list[str]:
    classes = sorted({phrase for result in results for phrase, _ in result.requested})
    if not classes:
        raise ValueError("average precision of no requested boxes: ask for at least one box")
    return classes


def _coco_truth(results: Sequence[ImageResult]) -> dict[str, Any]:
    numbers = {phrase: i for i, phrase in enumerate(_classes(results), 1)}
    boxes = [(image, phrase, box) for image, result in enumerate(results, 1) for phrase, box in result.requested]
    return {
        "images": [{"id": image} for image in range(1, len(results) + 1)],
        "categories": [{"id": number, "name": phrase} for phrase, number in numbers.items()],
        "annotations": [  # counted from 1: to COCO's matching, 0 is no box
            {"id": i, "image_id": image, "category_id": numbers[phrase], "bbox": _xywh(box), "area": _area(box), "iscrowd": 0}
            for i, (image, phrase, box) in enumerate(boxes, 1)
        ],
    }


def _coco_found(results: Sequence[ImageResult]) -> list[dict[str, Any]]:
    numbers = {phrase: i for i, phrase in enumerate(_classes(results), 1)}
    return [
        {"image_id": image, "category_id": numbers[found.phrase], "bbox": _xywh(found.box), "score": found.score}
        for image, result in enumerate(results, 1)
        for found in result.found
        if found.phrase in numbers
    ]


def _xywh(box: Corners) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def box_overlap(first: Corners, second: Corners) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width, height = min(first[2], second[2]) - max(first[0], second[0]), min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (_area(first) + _area(second) - width * height)


def _match_class(results: Sequence[ImageResult], phrase: str, iou: float) -> tuple[Draws, Draws, NDArray[np.bool_]]:
    """Of one class: the image of every requested box, and of every found box, surest first, its image and whether it is right."""
    wanted: list[int] = []
    rows: list[tuple[float, int, bool]] = []
    for image, result in enumerate(results):
        boxes = [box for name, box in result.requested if name == phrase]
        wanted += [image] * len(boxes)
        found = sorted((f for f in result.found if f.phrase == phrase), key=lambda f: -f.score)[:MOST_BOXES]
        rows += [(f.score, image, right) for f, right in zip(found, _match_image(found, boxes, iou), strict=True)]
    rows.sort(key=lambda row: -row[0])  # stable: among equal scores the images stay in order, as in COCO
    images = np.array([image for _, image, _ in rows], dtype=np.intp)
    return np.array(wanted, dtype=np.intp), images, np.array([right for _, _, right in rows], dtype=np.bool_)


def _match_image(found: Sequence[FoundBox], boxes: Sequence[Corners], iou: float) -> list[bool]:
    """Which found boxes, surest first, get a requested box: each the free one that it overlaps most, if by `iou` or more."""
    free, right = list(boxes), list[bool]()
    for candidate in found:
        overlaps = [box_overlap(candidate.box, box) for box in free]
        best = max(overlaps, default=-1.0)
        right.append(best >= min(iou, 1 - 1e-10))
        if right[-1]:
            free.pop(len(overlaps) - 1 - overlaps[::-1].index(best))  # the last of equals, as in COCO
    return right


def times_drawn(draws: Draws, items: int) -> Draws:
    """How often each item was drawn: `[resamples items]`."""
    rows = np.arange(len(draws))[:, None] * items
    return np.bincount((draws + rows).ravel(), minlength=len(draws) * items).reshape(len(draws), items)


def _class_precision(wanted: Draws, times: Draws, right: NDArray[np.bool_]) -> Floats:
    """Average precision of one class, `[resamples]`.

    `wanted`: how many boxes were requested, `[resamples]`. `times`: how often each found box was drawn, `[resamples found]`,
    surest first. Boxes drawn several times count at once: right ones only raise the precision and wrong ones only lower it, so
    what lies between never shows in the highest precision from some recall on.
    """
    if times.shape[1] == 0:
        return np.zeros(len(wanted))
    hits, drawn = np.cumsum(times * right, axis=1), np.cumsum(times, axis=1)
    precision = hits / drawn.clip(min=1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # from each recall on
    reached = np.searchsorted(
        RECALLS, hits / wanted.clip(min=1)[:, None], side="right"
    )  # how many of the recalls, after each box
    newly = np.diff(reached, axis=1, prepend=0)
    return (highest * newly).sum(axis=1) / len(RECALLS)
