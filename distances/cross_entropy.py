"""How well soft segments agree with masks (Couairon et al. 2023, ZestGuide, eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import torch
from torch import Tensor

from ..framework.config.constraints import Positive, Range
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import Raster
from ..framework.reductions import mean_present, over_groups
from ..framework.types import Energy, Features, Maps

EDGE = 1e-3  # shares are kept this far from 0 and 1, as published: a logarithm has no pull beyond
SMALLEST_PEAK = 1e-4  # added to a map's largest value before it divides the map, as published


Ignored: TypeAlias = Annotated[float, Range(low=0, below=1)]


@dataclass(frozen=True)
class CrossEntropy:
    """The binary cross-entropy of `scale` times a map `[b n k h w]` with its mask `[b 1 k h w]`, plus that of the map divided by
    its largest value; from both the mask's own entropy is taken off, so that a map equal to its mask has 0.

    Means over cells, views, maps, word pieces and the phrases that have a place. Cells where map and mask are both at most
    `ignore` (`ignore_normalised`, for the second) are not pulled. Cells beyond 0.001 to 0.999 have no pull either, as published.

    Raises:
        ConfigError: `scale` is not positive, or what is ignored is not in [0, 1).
    """

    accepts: ClassVar[tuple[str, ...]] = ("probability", "attention")
    needs_target: ClassVar[bool] = True

    scale: Positive = option(1.0, "factor of the maps before they are compared (published code: 10)")
    ignore: Ignored = option(0.0, "scaled maps and masks up to this are not pulled (published code: 0.01)")
    ignore_normalised: Ignored = option(0.0, "the same for maps divided by their largest value (published code: 0.1)")
    raster: Raster = option("area", "how boxes become masks on a map's grid")

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, current: Features, target: Features | None) -> Energy:
        if target is None:
            raise ConfigError("cross_entropy needs a target: the mask of every thing")
        per_map = [self._energy(maps, mask) for maps, mask in zip(current.maps, target.maps, strict=True)]  # [b k] each
        energy = torch.stack(per_map).mean(dim=0)
        return Energy.of(mean_present(*over_groups(energy, current.present & target.present, current.group)))

    def _energy(self, maps: Maps, mask: Tensor) -> Tensor:
        raw = self.scale * maps
        normalised = raw / (raw.amax(dim=(-2, -1), keepdim=True) + SMALLEST_PEAK)
        parts = _entropy(raw, mask, self.ignore) + _entropy(normalised, mask, self.ignore_normalised)  # [b n k h w]
        return parts.mean(dim=(1, 3, 4))


def _entropy(maps: Maps, mask: Tensor, ignore: float) -> Tensor:
    """Cross-entropy of every cell beyond the mask's own."""
    maps = torch.where((maps > ignore) | (mask > ignore), maps, torch.zeros_like(maps))
    share, true = maps.clamp(EDGE, 1 - EDGE), mask.clamp(EDGE, 1 - EDGE)
    return true * (true / share).log() + (1 - true) * ((1 - true) / (1 - share)).log()
