"""How much of a phrase's attention lies outside its box (Chen, Laina & Vedaldi 2024, eq. 4; Li 2024, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import Raster
from ..framework.reductions import mean_present, over_groups
from ..framework.types import Energy, Features, PerSample


@dataclass(frozen=True)
class BoxEnergy:
    """`(1 - inside / all)^2` of each map: 0 with all of a phrase's mass inside its box, 1 with none of it.

    Averaged over views and maps, over a phrase's word pieces, then over the phrases that have a place; so the value is in
    [0, 1] whatever the number of phrases, and does not change when a map is scaled.
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "probability")
    needs_target: ClassVar[bool] = True

    raster: Raster = option("area", "how boxes become masks on a map's grid")

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, current: Features, target: Features | None) -> Energy:
        if target is None:
            raise ConfigError("box_energy needs a target: the mask of every thing")
        present = current.present & target.present
        per_map = [_outside(maps, mask) for maps, mask in zip(current.maps, target.maps, strict=True)]  # [b k] each
        energy = torch.stack(per_map).mean(dim=0)
        return Energy.of(mean_present(*over_groups(energy, present, current.group)))


def _outside(maps: torch.Tensor, mask: torch.Tensor) -> PerSample:
    """`(1 - inside / all)^2` `[b k]`, averaged over views, of maps `[b n k h w]` and masks `[b 1 k h w]`."""
    inside = (maps * mask).sum(dim=(-2, -1))  # [b n k]
    everything = maps.sum(dim=(-2, -1))
    share = inside / everything.masked_fill(everything == 0, 1)  # a map without mass has none inside
    return (1 - share).square().mean(dim=1)
