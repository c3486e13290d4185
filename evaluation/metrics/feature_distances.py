"""How far a set of pictures is from a reference set, by their features: the Frechet distance and the kernel distance.

Both are `Statistic`s over the pictures, so that they get intervals and paired differences like any other metric; the reference is
taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .bootstrap import Draws, Floats, Statistic, times_drawn


@dataclass(frozen=True, eq=False)
class Reference:
    """Features `[m d]` of the pictures to compare with, more of them than dimensions, and what is needed of them.

    Raises:
        ValueError: not more pictures than dimensions.
    """

    features: Floats

    def __post_init__(self) -> None:
        if not enough(self.features):
            count, dimensions = self.features.shape
            raise ValueError(f"a reference of {count} pictures with {dimensions} features: expected more pictures than features")

    @cached_property
    def mean(self) -> Floats:
        return self.features.mean(axis=0)

    @cached_property
    def covariance(self) -> Floats:
        return np.cov(self.features, rowvar=False)

    @cached_property
    def root(self) -> Floats:
        """The symmetric square root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T

    @cached_property
    def likeness(self) -> float:
        """The mean of the kernel over all pairs of two different pictures."""
        kernel, count = cubic(self.features, self.features), len(self.features)
        return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def enough(features: Floats) -> bool:
    """Whether features `[n d]` have a covariance of full rank: with `n <= d` a Frechet distance means nothing."""
    return features.shape[0] > features.shape[1]


def frechet_distance(features: Floats, reference: Reference) -> Statistic:
    """The Frechet distance between Gaussians of the same means and covariances, 0 or more (Heusel et al. 2017, as FID).

    `|m - m'|^2 + tr(C + C' - 2 (C' C)^(1/2))` with unbiased covariances. Few pictures make it too large; compare it only with
    values of equally many. Resamples hold fewer different pictures and lie higher still, which no correction of the median mends:
    the interval is of percentiles.

    Args:
        features: `[n d]`, with more pictures than features.

    Raises:
        ValueError: `n <= d`.
    """
    count, dimensions = features.shape
    if not enough(features):
        raise ValueError(
            f"the Frechet distance of {count} pictures with {dimensions} features means nothing: expected more pictures"
        )
    centred = features - reference.mean
    turned = centred @ reference.root  # their covariance is C'^(1/2) C C'^(1/2), with the eigenvalues of C' C
    lengths = (centred**2).sum(axis=1)

    def of(draws: Draws) -> Floats:
        drawn = draws.shape[1]  # another number than `count` where whole groups of pictures are drawn
        weights, unbiased = times_drawn(draws, count) / drawn, drawn / (drawn - 1)
        means, turned_means = weights @ centred, weights @ turned
        shifts = (means**2).sum(axis=1)
        spreads = (weights @ lengths - shifts) * unbiased
        products = np.stack([(turned.T * weight) @ turned for weight in weights])
        products -= turned_means[:, :, None] * turned_means[:, None, :]
        roots = np.sqrt(np.linalg.eigvalsh(products * unbiased).clip(min=0)).sum(axis=1)
        return (shifts + spreads + np.trace(reference.covariance) - 2 * roots).clip(min=0)  # rounding makes 0 negative

    return Statistic(count, of, method="percentile", width=dimensions**2)


def kernel_distance(features: Floats, reference: Reference) -> Statistic:
    """The squared maximum mean discrepancy with the kernel `cubic`, unbiased (Binkowski et al. 2018, as KID).

    Over the whole sets, not a mean over subsets. Its expectation does not depend on the number of pictures and is 0 for
    pictures like those of the reference, so it may be negative. A picture that is drawn twice is no pair with itself.

    Args:
        features: `[n d]` of two pictures or more.

    Raises:
        ValueError: fewer than two pictures.
    """
    count = len(features)
    if count < 2:
        raise ValueError(f"the kernel distance of {count} pictures means nothing: expected two or more")
    own, other = cubic(features, features), cubic(features, reference.features).mean(axis=1)
    diagonal = np.diag(own)

    def of(draws: Draws) -> Floats:
        times = times_drawn(draws, count).astype(np.float64)
        likeness = ((times @ own) * times).sum(axis=1) - times**2 @ diagonal
        pairs, drawn = draws.shape[1] ** 2 - (times**2).sum(axis=1), draws.shape[1]
        return likeness / np.where(pairs > 0, pairs, np.nan) + reference.likeness - 2 * (times @ other) / drawn

    return Statistic(count, of)


def cubic(first: Floats, second: Floats) -> Floats:
    """`(x . y / d + 1)^3` of all pairs of features, `[n d]` and `[m d]`: `[n m]`."""
    return (first @ second.T / first.shape[1] + 1) ** 3
