"""Distances between sets of features: closed forms, invariances, a direct count of all pairs, and intervals."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from lsregen.evaluation.metrics.bootstrap import Statistic, bootstrap, difference
from lsregen.evaluation.metrics.feature_distances import Reference, enough, frechet_distance, kernel_distance


def normal(count: int, dimensions: int = 6, seed: int = 0, *, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, dimensions))


def standardised(features: np.ndarray) -> np.ndarray:
    """The same features with a mean of exactly 0 and the identity as their covariance."""
    centred = features - features.mean(axis=0)
    return centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T


def fewer(statistic: Statistic) -> Statistic:
    return replace(statistic, resamples=300)


def cubic(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def test_frechet_distance_of_known_gaussians() -> None:
    # N(0, I) and N(m, S) with diagonal S: |m|^2 + sum (sqrt(S) - 1)^2
    means, deviations = np.array([1.0, 0.0, -2.0]), np.array([0.5, 1.0, 3.0])
    reference = Reference(standardised(normal(500, 3)))
    found = frechet_distance(standardised(normal(40, 3, seed=1)) * deviations + means, reference)
    assert found.value == pytest.approx((means**2).sum() + ((deviations - 1) ** 2).sum(), rel=1e-9)


def test_frechet_distance_of_correlated_gaussians_is_that_of_a_matrix_root() -> None:
    mixing = np.random.default_rng(2).normal(size=(6, 6))
    one, other = normal(50, seed=3) @ mixing, normal(300, seed=4) @ mixing.T + 0.5
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum() + np.trace(
        first + second - 2 * np.real(sqrtm(first @ second))
    )
    assert frechet_distance(one, Reference(other)).value == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_in_any_order() -> None:
    features = normal(50)
    assert frechet_distance(features[::-1], Reference(features)).value == pytest.approx(0, abs=1e-9)


def test_frechet_distance_does_not_depend_on_the_axes() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))
    one, other = normal(50, seed=1, shift=0.3), normal(200, seed=2, scale=1.5)
    turned = frechet_distance(one @ rotation, Reference(other @ rotation)).value
    assert turned == pytest.approx(frechet_distance(one, Reference(other)).value, rel=1e-9)


def test_kernel_distance_is_that_of_all_pairs_one_by_one() -> None:
    one, other = normal(7, seed=1, shift=0.2), normal(9, seed=2)
    own = [cubic(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j]
    theirs = [cubic(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j]
    between = [cubic(a, b) for a in one for b in other]
    expected = np.mean(own) + np.mean(theirs) - 2 * np.mean(between)
    assert kernel_distance(one, Reference(other)).value == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_like_sets_is_zero_on_average() -> None:
    reference = Reference(normal(400))
    found = [kernel_distance(normal(20, seed=seed), reference).value for seed in range(1, 101)]
    assert min(found) < 0 < max(found), "unbiased, so it may be negative"
    assert abs(np.mean(found)) < 3 * np.std(found) / 10


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_a_resample_is_the_distance_of_the_pictures_drawn(distance: object) -> None:
    one, reference = normal(12, seed=1), Reference(normal(100))
    statistic: Statistic = distance(one, reference)  # type: ignore[operator]
    draws = np.random.default_rng(0).integers(12, size=(3, 12))
    if distance is frechet_distance:
        expected = [frechet_distance(one[row], reference).value for row in draws]
    else:  # a picture and its copy are no pair
        expected = []
        for row in draws:
            kernel, pairs = (one[row] @ one[row].T / 6 + 1) ** 3, row[:, None] != row[None, :]
            between = (one[row] @ reference.features.T / 6 + 1) ** 3
            expected.append(kernel[pairs].mean() + reference.likeness - 2 * between.mean())
    assert statistic.of(draws) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_intervals_hold_their_value_and_narrow(distance: object) -> None:
    reference = Reference(normal(400))
    few, many = (bootstrap(fewer(distance(normal(n, seed=1, shift=0.5), reference))) for n in (40, 640))  # type: ignore[operator]
    for interval in (few, many):
        assert interval.low < interval.high
        assert distance is frechet_distance or interval.low <= interval.value <= interval.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_pairing_removes_what_two_methods_share() -> None:
    reference, shared = Reference(normal(400)), normal(100, seed=1, shift=0.2)
    noise = normal(100, seed=2, scale=0.05)
    one, other = frechet_distance(shared, reference), frechet_distance(shared + 0.2 + noise, reference)
    change = bootstrap(difference(fewer(one), fewer(other)))
    assert 0 < change.low < change.value < change.high
    widths = [interval.high - interval.low for interval in (change, bootstrap(fewer(other)))]
    assert widths[0] < widths[1]


def test_too_few_pictures_are_refused() -> None:
    reference = Reference(normal(20))
    assert not enough(normal(6))
    assert enough(normal(7))
    with pytest.raises(ValueError, match="of 6 pictures with 6 features means nothing"):
        frechet_distance(normal(6), reference)
    with pytest.raises(ValueError, match="expected two or more"):
        kernel_distance(normal(1), reference)
    with pytest.raises(ValueError, match="a reference of 6 pictures with 6 features"):
        Reference(normal(6))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_resamples_of_other_sizes_are_those_of_the_features_themselves(distance: Callable[..., Statistic]) -> None:
    """Where one is left out, or groups of pictures are drawn, a resample holds fewer than there are."""
    rng = np.random.default_rng(3)
    features, reference = rng.normal(size=(40, 3)) + 1, Reference(rng.normal(size=(200, 3)))
    for size in (20, 30):
        draw = rng.choice(40, size, replace=False)
        direct = distance(features[draw], reference).value
        assert distance(features, reference).of(draw[None])[0] == pytest.approx(direct)
