"""The Frechet distance between pictures and a reference: the value by torchmetrics, its interval by resampling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .bootstrap import RESAMPLES, Floats, Statistic
from .feature_distances import Reference, frechet_distance

WIDE, FEW = 256, 100
"""Above so many features there are only so many resamples: each takes the eigenvalues of a matrix of that side."""


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


def statistic(features: Floats, reference: Reference) -> Statistic:
    """The distance of features `[n d]` over their pictures: torchmetrics' value; `FEW` resamples of more than `WIDE` features.

    Raises:
        ValueError: not more pictures than features.
    """
    found = frechet_distance(features, reference)
    few = FEW if features.shape[1] > WIDE else RESAMPLES
    return replace(found, known=distance(features, reference.features), resamples=few)
