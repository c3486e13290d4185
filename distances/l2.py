"""The squared Euclidean distance to a target: LSReGen's distance between latents, and a baseline for anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import Raster
from ..framework.types import Energy, Features


@dataclass(frozen=True)
class L2:
    """`sum weight * (current - target)^2` of each sample, over everything present (LSReGen, section 3.3).

    With the reduction `sum` on latents, `gamma` = 0.5 replaces the latent by its target; `mean` divides by the number of values.
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "logits", "probability", "latent", "image")
    needs_target: ClassVar[bool] = True

    reduction: Literal["sum", "mean"] = option("sum", "sum (LSReGen's) or mean over the values of a sample")
    raster: Raster = option("area", "how boxes become masks, where the target is a mask")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def blends(self) -> bool:
        return self.reduction == "sum"

    def __call__(self, current: Features, target: Features | None) -> Energy:
        if target is None:
            raise ConfigError("l2 needs a target")
        present = (current.present & target.present)[:, None, :, None, None]  # [b 1 k 1 1]
        weights = current.weight or (None,) * len(current.maps)
        total = torch.zeros(len(current.present), device=current.present.device)
        count = torch.zeros_like(total)
        for maps, aim, weight in zip(current.maps, target.maps, weights, strict=True):
            # Left out before it is squared: what is absent may hold anything, and must not reach the gradient.
            square = torch.where(present, maps - aim, torch.zeros_like(maps)).square()
            if weight is not None:
                square = square * weight
            total = total + square.flatten(1).sum(dim=1)
            count = count + present.expand_as(maps).flatten(1).sum(dim=1)
        return Energy.of(total if self.reduction == "sum" else total / count.clamp(min=1))
