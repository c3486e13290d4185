"""Numbers with intervals: average precision of requested boxes, the bootstrap over images, and paired differences.

Everything is resampled by image, because the objects of one image are not independent. A metric is a `Statistic`: a function of
which images were drawn. Intervals are `scipy.stats.bootstrap`'s: bias-corrected and accelerated (BCa; Efron 1987).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ...framework.errors import ConfigError

Floats: TypeAlias = NDArray[np.float64]
Draws: TypeAlias = NDArray[np.intp]
Corners: TypeAlias = tuple[float, float, float, float]

RECALLS: Floats = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""
MOST_BOXES = 100  # of one phrase in one image: COCO leaves out the others
RESAMPLES = 1000
CELLS = 2**21
"""The most numbers of one array of a statistic while it is resampled: 16 MiB."""
MOST_LEFT_OUT = 2000
"""The most items of a BCa interval, which leaves each of them out once. With more items it is percentiles, which are as good."""
SAME = 1e-12
"""Values of resamples that differ by less are the same."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; `low` and `high` are None where no interval is known."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
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
    nothing. `trials`: of a share, the number of items that it is a share of; None for other numbers. `method`: of the interval,
    `BCa` or `percentile`. `resamples`: how many are drawn for it. `width`: how many numbers `of` holds in an array for each
    resample, where they are more than `items`. `known`: the value itself, where a library computes it; that of `of` is the same
    number to rounding.
    """

    items: int
    of: Callable[[Draws], Floats]
    trials: int | None = None
    method: str = "BCa"
    resamples: int = RESAMPLES
    width: int = 0
    known: float | None = None

    @property
    def value(self) -> float:
        """With every item drawn once."""
        if self.known is not None:
            return self.known
        return float(self.of(np.arange(self.items)[None, :])[0])


def mean(values: Sequence[float] | Floats, *, share: bool = False) -> Statistic:
    """The mean of one value per item. `share`: the values are shares of the item, in [0, 1]."""
    array = np.asarray(values, dtype=np.float64)
    return Statistic(len(array), lambda draws: array[draws].mean(axis=1), len(array) if share else None)


def ratio(totals: Sequence[float] | Floats, counts: Sequence[float] | Floats, *, share: bool = True) -> Statistic | None:
    """The sum of the totals over the sum of the counts, one of each per item; None where nothing was counted.

    A resample without a count is not a number: it says nothing of the share, and its interval is that of the others.
    """
    above, below = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not below.any():
        return None

    def of(draws: Draws) -> Floats:
        counted = below[draws].sum(axis=1)
        return above[draws].sum(axis=1) / np.where(counted > 0, counted, np.nan)

    return Statistic(len(above), of, int(np.count_nonzero(below)) if share else None)


def bootstrap(values: Statistic | Sequence[float] | Floats, seed: int = 0) -> Interval:
    """The value with its 95 % interval over resamples of the items; a sequence stands for its mean.

    Where all resamples agree, the interval of a share is the exact binomial one (Clopper and Pearson 1934), and any other number
    has none. Equal arguments draw equal items.

    Raises:
        ValueError: there are no items.
        ConfigError: scipy is not installed.
    """
    statistic = values if isinstance(values, Statistic) else mean(values)
    if statistic.items < 1:
        raise ValueError("nothing to resample: 0 items")
    stats = _scipy_stats()
    if statistic.items == 1:
        return _agreed(statistic, stats)

    def of(draws: NDArray[Any], axis: int) -> Floats:
        rows = np.atleast_2d(draws).astype(np.intp)
        found = statistic.of(rows)
        return found[0] if draws.ndim == 1 else found

    with warnings.catch_warnings(), np.errstate(all="ignore"):  # scipy warns where it gives nan, which is handled here
        warnings.simplefilter("ignore")
        found: Any = stats.bootstrap(
            (np.arange(statistic.items),),
            of,
            n_resamples=statistic.resamples,
            batch=max(1, CELLS // max(statistic.items, statistic.width)),
            vectorized=True,
            axis=-1,
            method=statistic.method if statistic.items <= MOST_LEFT_OUT else "percentile",
            rng=np.random.default_rng(seed),
        )
    drawn = cast("Floats", found.bootstrap_distribution)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) <= SAME * max(1.0, abs(statistic.value)):
        return _agreed(statistic, stats)
    bounds = np.array([found.confidence_interval.low, found.confidence_interval.high], dtype=np.float64)
    if not np.isfinite(bounds).all():  # all resamples to one side of the value, or some that tell nothing
        bounds = np.percentile(drawn, (2.5, 97.5))
    return Interval(statistic.value, float(bounds[0]), float(bounds[1]))


def _agreed(statistic: Statistic, stats: Any) -> Interval:
    """The interval where all resamples have one value."""
    value = statistic.value
    if not statistic.trials:
        return Interval(value, None, None)
    right = value * statistic.trials
    low, high = (
        stats.binomtest(min(statistic.trials, max(0, whole)), statistic.trials).proportion_ci(method="exact")
        for whole in (math.floor(right + SAME), math.ceil(right - SAME))
    )
    return Interval(value, float(low.low), float(high.high))


def difference(first: Statistic, second: Statistic) -> Statistic:
    """`second - first`, both of the same draws, so that what the items share cancels.

    Raises:
        ValueError: there are not equally many items.
    """
    if first.items != second.items:
        raise ValueError(f"a paired difference needs the same items on both sides, got {first.items} and {second.items}")
    return Statistic(
        first.items,
        lambda draws: second.of(draws) - first.of(draws),
        method="percentile" if "percentile" in (first.method, second.method) else "BCa",
        resamples=min(first.resamples, second.resamples),
        width=max(first.width, second.width),
        known=second.value - first.value,
    )


def remembered(statistic: Statistic) -> Statistic:
    """The same, with every answer kept: a method stands in several differences, which draw the same items."""
    known: dict[tuple[tuple[int, ...], int], Floats] = {}

    def of(draws: Draws) -> Floats:
        key = draws.shape, hash(draws.tobytes())
        if key not in known:
            known[key] = statistic.of(draws)
        return known[key]

    return replace(statistic, of=of, known=statistic.value)


def _scipy_stats() -> Any:
    try:
        return import_module("scipy.stats")
    except ImportError:
        raise ConfigError(
            "intervals need scipy, which is in the extra eval; install it with: pip install 'lsregen[eval]'"
        ) from None


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
    image drawn twice stands beside itself in the order of equal scores. Resamples lie higher than the value, because a class has
    few boxes, and to draw one of them twice raises its precision more often than not. BCa intervals correct this.

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
    return Statistic(len(results), of, width=widest)


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
