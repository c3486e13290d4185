"""Average precision agrees with faster-coco-eval on any resample; intervals cover, and pairing narrows them."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lsregen.evaluation.metrics.bootstrap import (
    RESAMPLES,
    Draws,
    Floats,
    FoundBox,
    ImageResult,
    Interval,
    Statistic,
    average_precision,
    bootstrap,
    box_overlap,
    difference,
    mean,
    precision_statistic,
    ratio,
    remembered,
)
from lsregen.framework.errors import ConfigError

LEFT = (0.0, 0.0, 0.4, 0.4)
RIGHT = (0.6, 0.6, 1.0, 1.0)


def image(*requested: str, found: tuple[FoundBox, ...] = ()) -> ImageResult:
    return ImageResult(tuple(zip(requested, (LEFT, RIGHT), strict=False)), found)


def test_box_overlap() -> None:
    assert box_overlap(LEFT, LEFT) == pytest.approx(1)
    assert box_overlap(LEFT, RIGHT) == 0
    assert box_overlap((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3)
    assert box_overlap((0.5, 0.5, 0.5, 0.5), (0, 0, 1, 1)) == 0


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


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
    draws = np.sort(np.random.default_rng(2).integers(len(results), size=(6, len(results))), axis=1)
    expected = [average_precision([results[i] for i in row], iou) for row in draws]
    assert statistic.of(draws) == pytest.approx(expected, abs=1e-9)


def test_precision_of_nothing_is_refused() -> None:
    for function in (average_precision, precision_statistic):
        with pytest.raises(ValueError, match="no requested boxes"):
            function([ImageResult((), ())])


@pytest.mark.parametrize("value_of", [mean, lambda values: ratio(values, np.ones(len(values)))])
def test_intervals_are_those_of_scipy(value_of: Callable[[Floats], Statistic]) -> None:
    values = np.random.default_rng(0).gamma(0.5, size=60)
    found = bootstrap(value_of(values))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high))
    assert found.value == pytest.approx(values.mean())


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        interval = bootstrap(replace(mean((rng.uniform(size=80) < 0.3).astype(float)), resamples=300), seed=trial)
        low, high = bounds(interval)
        assert low <= interval.value <= high
        covered += low <= 0.3 <= high
    assert 88 <= covered <= 100


def test_interval_of_a_precision_lies_about_its_value() -> None:
    statistic = precision_statistic(random_results(60, seed=5))
    plain, corrected = bootstrap(replace(statistic, method="percentile")), bootstrap(statistic)
    assert bounds(corrected)[0] < bounds(plain)[0], "resamples are too high on average"
    assert bounds(corrected)[0] < corrected.value < bounds(corrected)[1]


def test_where_all_resamples_agree_a_share_has_the_exact_interval_and_any_other_number_none() -> None:
    perfect = [image("red circle", found=(FoundBox("red circle", LEFT, 0.9),))] * 3
    assert bootstrap(precision_statistic(perfect)) == Interval(pytest.approx(1), None, None)
    assert bootstrap([0.3, 0.3]) == Interval(pytest.approx(0.3), None, None)
    assert bootstrap(mean([1.0] * 10, share=True)) == Interval(1, pytest.approx(0.025**0.1), 1)  # Clopper and Pearson
    assert bootstrap(mean([0.0] * 10, share=True)) == Interval(0, 0, pytest.approx(1 - 0.025**0.1))
    halves = bootstrap(mean([0.5] * 5, share=True))
    exact = [stats.binomtest(right, 5).proportion_ci() for right in (2, 3)]
    assert bounds(halves) == (exact[0].low, exact[1].high)
    assert bootstrap(mean([1.0], share=True)) == Interval(1, pytest.approx(0.025), 1)
    assert bootstrap([1.0]) == Interval(1, None, None)


def test_more_items_than_can_be_left_out_one_by_one_have_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    values = mean(np.random.default_rng(1).gamma(0.5, size=40))
    assert bootstrap(values) != bootstrap(replace(values, method="percentile"))
    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.MOST_LEFT_OUT", 39)
    assert bootstrap(values) == bootstrap(replace(values, method="percentile"))


@pytest.mark.parametrize("cells", [1, 700, 10**9])
def test_intervals_are_the_same_however_many_resamples_are_held(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = random_results(30, seed=7)
    statistics = [replace(each, resamples=50) for each in (precision_statistic(results), share_of(range(30), range(1, 31)))]
    wanted = [bootstrap(each).to_json() for each in statistics]
    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.CELLS", cells)
    assert [bootstrap(each).to_json() for each in statistics] == [pytest.approx(each) for each in wanted]


def test_no_array_of_a_resampled_statistic_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def of(draws: Draws) -> Floats:
        found.append(len(draws))
        return draws.mean(axis=1)

    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.CELLS", 100)
    bootstrap(Statistic(10, of, method="percentile", width=30, resamples=7))
    assert max(found) == 3
    found.clear()
    bootstrap(Statistic(10, of, method="percentile", resamples=12))
    assert max(found) == 10


def test_bootstrap_is_reproducible() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(values) == bootstrap(mean(values))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap([])


def test_ratio_weighs_items_by_their_counts() -> None:
    assert bootstrap(share_of([8, 1], [8, 2])).value == pytest.approx(0.9)


def test_resamples_in_which_nothing_is_counted_say_nothing_of_a_share() -> None:
    one_of_six = share_of([1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0])
    assert bootstrap(one_of_six) == Interval(1, pytest.approx(0.025), 1), "one trial"
    none = share_of([0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0])
    assert bootstrap(difference(none, one_of_six)) == Interval(1, None, None)
    some = share_of([1, 0, 1, 0, 0, 0], [1, 0, 2, 0, 1, 0])
    low, high = bounds(bootstrap(some))
    assert 0 <= low < some.value < high <= 1
    assert ratio([0, 0], [0, 0]) is None


def test_pairing_removes_what_the_items_share() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(size=100)
    first, second = mean(hard + rng.normal(0, 0.1, 100)), mean(hard + 0.2 + rng.normal(0, 0.1, 100))
    change = bootstrap(difference(first, second))
    low, high = bounds(change)
    assert 0 < low < change.value < high
    alone = bounds(bootstrap(second))
    assert high - low < (alone[1] - alone[0]) / 3
    with pytest.raises(ValueError, match="same items"):
        difference(mean([1.0]), mean([1.0, 2.0]))


def test_difference_of_precisions() -> None:
    results = random_results(40, seed=4)
    poorer = [ImageResult(result.requested, result.found[:1]) for result in results]
    statistics = [replace(precision_statistic(each), resamples=200) for each in (poorer, results)]
    change = bootstrap(difference(*statistics))
    assert change.value == pytest.approx(average_precision(results) - average_precision(poorer))
    assert bounds(change)[0] > 0
    assert bootstrap(difference(*map(remembered, statistics))) == change


def test_what_is_remembered_is_computed_once() -> None:
    asked: list[int] = []

    def of(draws: Draws) -> Floats:
        asked.append(len(draws))
        return draws.mean(axis=1)

    kept = remembered(Statistic(10, of))
    first = bootstrap(kept)
    count = len(asked)
    assert bootstrap(kept) == first
    assert len(asked) == count


def test_scipy_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ConfigError, match=r"scipy.*extra eval.*pip install"):
        bootstrap([0.0, 1.0])
