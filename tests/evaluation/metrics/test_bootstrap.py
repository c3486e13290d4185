"""Average precision agrees with faster-coco-eval on any resample; intervals cover, and pairing narrows them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lsregen.evaluation.metrics.bootstrap import (
    Draws,
    Floats,
    FoundBox,
    ImageResult,
    Statistic,
    average_precision,
    bootstrap,
    box_overlap,
    draw,
    mean,
    paired_difference,
    precision_statistic,
    ratio,
    resample,
)

LEFT = (0.0, 0.0, 0.4, 0.4)
RIGHT = (0.6, 0.6, 1.0, 1.0)


def image(*requested: str, found: tuple[FoundBox, ...] = ()) -> ImageResult:
    return ImageResult(tuple(zip(requested, (LEFT, RIGHT), strict=False)), found)


def test_box_overlap() -> None:
    assert box_overlap(LEFT, LEFT) == pytest.approx(1)
    assert box_overlap(LEFT, RIGHT) == 0
    assert box_overlap((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3)
    assert box_overlap((0.5, 0.5, 0.5, 0.5), (0, 0, 1, 1)) == 0


def share_of(totals: Sequence[float], counts: Sequence[float]) -> Statistic:
    found = ratio(totals, counts)
    assert found is not None
    return found


def random_results(count: int, seed: int, *, levels: int | None = None) -> list[ImageResult]:
    """Images with two requests and noisy detections; `levels`: scores are rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    kinds = [f"{colour} {shape}" for colour in "rgb" for shape in "cst"]

    def box() -> tuple[float, float, float, float]:
        left, top = rng.uniform(0, 0.6, 2)
        width, height = rng.uniform(0.2, 0.4, 2)
        return float(left), float(top), float(left + width), float(top + height)

    def score() -> float:
        value = float(rng.uniform())
        return round(value * levels) / levels if levels else value

    results: list[ImageResult] = []
    for _ in range(count):
        requested = tuple((str(kind), box()) for kind in rng.choice(kinds, 2))
        found = [FoundBox(str(rng.choice(kinds)), box(), score()) for _ in range(rng.integers(4))]
        for phrase, wanted in requested:
            if rng.uniform() < 0.7:
                near = tuple(float(side + rng.normal(0, 0.04)) for side in wanted)
                found.append(FoundBox(phrase, (near[0], near[1], near[2], near[3]), score()))
        results.append(ImageResult(requested, tuple(found)))
    return results


def test_precision_of_known_answers() -> None:
    right = (FoundBox("red circle", LEFT, 0.9), FoundBox("blue star", RIGHT, 0.8))
    assert average_precision([image("red circle", "blue star", found=right)]) == pytest.approx(1)
    assert average_precision([image("red circle", "blue star", found=right[:1])]) == pytest.approx(0.5)
    assert average_precision([image("red circle", found=(FoundBox("red circle", RIGHT, 0.9),))]) == 0
    assert average_precision([image("red circle")]) == 0
    # A surer detection in an image that did not ask for the class halves the precision.
    wrong = image("blue star", found=(FoundBox("red circle", LEFT, 0.95), FoundBox("blue star", LEFT, 0.5)))
    assert average_precision([image("red circle", found=right[:1]), wrong]) == pytest.approx(0.75)


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_fast_precision_is_that_of_faster_coco_eval(iou: float, levels: int | None) -> None:
    results = random_results(60, seed=1, levels=levels)
    statistic = precision_statistic(results, iou)
    assert statistic.value == pytest.approx(average_precision(results, iou), abs=1e-9)
    draws = np.sort(draw(len(results), 6, seed=2), axis=1)
    expected = [average_precision([results[i] for i in row], iou) for row in draws]
    assert statistic.of(draws) == pytest.approx(expected, abs=1e-9)


def test_precision_of_nothing_is_refused() -> None:
    for function in (average_precision, precision_statistic):
        with pytest.raises(ValueError, match="no requested boxes"):
            function([ImageResult((), ())])


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        interval = bootstrap((rng.uniform(size=80) < 0.3).astype(float), n=300, seed=trial)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 0.3 <= interval.high
    assert 88 <= covered <= 100


def test_interval_of_a_precision_lies_about_its_value() -> None:
    statistic = precision_statistic(random_results(60, seed=5))
    plain, centred = bootstrap(replace(statistic, centred=False)), bootstrap(statistic)
    assert centred.low < plain.low, "resamples are too high on average"
    assert centred.high - centred.low == pytest.approx(plain.high - plain.low)
    assert abs((centred.low + centred.high) / 2 - centred.value) < 0.2 * (centred.high - centred.low)
    perfect = [image("red circle", found=(FoundBox("red circle", LEFT, 0.9),))] * 3
    assert bootstrap(precision_statistic(perfect)).to_json() == pytest.approx({"value": 1, "low": 1, "high": 1})


@pytest.mark.parametrize("cells", [1, 700, 10**9])
def test_resamples_are_the_same_however_many_are_held(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = random_results(30, seed=7)
    statistics = [
        precision_statistic(results),
        mean(np.random.default_rng(0).uniform(size=30)),
        share_of(range(30), range(1, 31)),
    ]
    wanted = [each.of(draw(30, 50, seed=4)) for each in statistics]
    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.CELLS", cells)
    for each, values in zip(statistics, wanted, strict=True):
        assert np.array_equal(resample(each, n=50, seed=4).values, values)


def test_no_array_of_a_resampled_statistic_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def of(draws: Draws) -> Floats:
        found.append(len(draws))
        return draws.mean(axis=1)

    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.CELLS", 100)
    resample(Statistic(10, of, width=30), n=7)
    resample(Statistic(10, of), n=12)
    assert found == [3, 3, 1, 1, 10, 2, 1]  # and the value itself


def test_bootstrap_is_reproducible() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(values) == bootstrap(mean(values))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap([1.0, 1.0]).to_json() == {"value": 1.0, "low": 1.0, "high": 1.0}
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap([])


def test_ratio_weighs_items_by_their_counts() -> None:
    assert bootstrap(share_of([8, 1], [8, 2])).value == pytest.approx(0.9)


def test_resamples_in_which_nothing_is_counted_say_nothing_of_a_share() -> None:
    one_of_six = share_of([1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0])
    assert bootstrap(one_of_six).to_json() == {"value": 1.0, "low": 1.0, "high": 1.0}
    none = share_of([0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0])
    assert paired_difference(none, one_of_six).to_json() == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert ratio([0, 0], [0, 0]) is None


def test_pairing_removes_what_the_items_share() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(size=100)
    first, second = hard + rng.normal(0, 0.1, 100), hard + 0.2 + rng.normal(0, 0.1, 100)
    difference = paired_difference(first, second)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < (bootstrap(second).high - bootstrap(second).low) / 3
    with pytest.raises(ValueError, match="same items"):
        paired_difference([1.0], [1.0, 2.0])


def test_difference_of_precisions() -> None:
    results = random_results(40, seed=4)
    poorer = [ImageResult(result.requested, result.found[:1]) for result in results]
    difference = paired_difference(precision_statistic(poorer), precision_statistic(results), n=200)
    assert difference.value == pytest.approx(average_precision(results) - average_precision(poorer))
    assert difference.low > 0
