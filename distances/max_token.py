"""How far the most neglected phrase is from having one strongly attended cell (Chefer et al. 2023, eq. 1; Li 2024, 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..framework.config.options import check_options, option
from ..framework.layout.rasters import Raster
from ..framework.reductions import max_present, over_groups
from ..framework.types import Energy, Features


@dataclass(frozen=True)
class MaxToken:
    """`max over phrases of (1 - the largest cell of the phrase's map)`, not below 0.

    Only the phrase that is attended least is pulled at a time. A phrase of several word pieces counts with the mean of their
    energies; several views or maps of a piece count with their mean. Maps are expected in [0, 1].
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "probability")
    needs_target: ClassVar[bool] = False

    raster: Raster = option("area", "how boxes become masks (this distance looks at none)")

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, current: Features, target: Features | None = None) -> Energy:
        peaks = [maps.amax(dim=(-2, -1)) for maps in current.maps]  # [b n k] each
        lack = torch.stack([(1 - peak).clamp(min=0).mean(dim=1) for peak in peaks]).mean(dim=0)
        return Energy.of(max_present(*over_groups(lack, current.present, current.group)))
