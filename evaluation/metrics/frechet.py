"""The Frechet distance between pictures and a reference: the value by torchmetrics, its interval by resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .bootstrap import RESAMPLES, Floats, Resampled, draw
from .feature_distances import Reference, frechet_distance
from .measures import per_item

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDE, FEW = 256, 100
"""Above so many features there are only so many resamples: each takes the eigenvalues of a matrix of that side."""
CHUNK = 2**25  # numbers of the matrices that are held at once


class _AsGiven(nn.Module):
    """Stands where torchmetrics expects Inception: the features are known already."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions

    def forward(self, features: Tensor) -> Tensor:
        return features


def distance(features: Floats, reference: Floats) -> float:
    """The Frechet distance of features `[n d]` and `[m d]` by torchmetrics, in double precision."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric: Any = FrechetInceptionDistance(feature=_AsGiven(features.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(torch.tensor(reference), real=True)
    metric.update(torch.tensor(features), real=False)
    return max(0.0, float(metric.compute()))


def resampled(features: Floats, reference: Reference, items: Sequence[str], n: int | None = None, seed: int = 0) -> Resampled:
    """The distance with its resamples over items.

    Args:
        features: `[n d]`, with more pictures than features.
        items: the item of every picture.
        n: resamples; by default `RESAMPLES`, or `FEW` of more than `WIDE` features.

    Raises:
        ValueError: not more pictures than features.
    """
    dimensions = features.shape[1]
    count = n or (RESAMPLES if dimensions <= WIDE else FEW)
    statistic = per_item(frechet_distance(features, reference), items)
    draws, rows = draw(statistic.items, count, seed), max(1, CHUNK // dimensions**2)
    values = np.concatenate([statistic.of(draws[first : first + rows]) for first in range(0, count, rows)])
    return Resampled(statistic.items, distance(features, reference.features), values, statistic.centred, statistic.bounds)
