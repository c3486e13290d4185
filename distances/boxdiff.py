"""Whether a phrase's map fills its box, leaves the rest alone and ends at its edges (Xie et al. 2023, BoxDiff, eq. 2 to 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..framework.config.constraints import Range
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import Raster
from ..framework.reductions import max_present, over_groups
from ..framework.types import Energy, Features

HAIR = 1e-5  # a cell that is half covered is inside, whichever way its share was rounded


@dataclass(frozen=True)
class BoxDiff:
    """The sum over phrases of the inner, outer and corner constraints, for maps `[b n k h w]` in [0, 1] and masks `[b 1 k h w]`.

    Inner: one minus the mean of the strongest cells inside the box, not below 0. Outer: the mean of the strongest cells outside
    of it. Corner: for rows and for columns, the difference between the largest values along the other axis, of map and mask, near
    the box's edges. The strongest cells are `top` of those there are, at least one; without any cell outside, outer is 0; with
    none inside, inner is 1. Averaged over views, maps and a phrase's word pieces; stop rules and refinements look at the largest
    inner constraint alone.

    Raises:
        ConfigError: `top` is not in (0, 1], or `reach` is negative.
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "probability")
    needs_target: ClassVar[bool] = True

    top: Annotated[float, Range(above=0, high=1)] = option(
        0.2, "share of the cells inside, and of those outside, that count: the strongest"
    )
    reach: Annotated[int, Range(0)] = option(1, "cells on each side of a box's edge that the corner constraint looks at")
    raster: Raster = option("area", "how boxes become masks on a map's grid; the published rule is round")

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, current: Features, target: Features | None) -> Energy:
        if target is None:
            raise ConfigError("boxdiff needs a target: the mask of every thing")
        parts = [self._parts(maps, mask) for maps, mask in zip(current.maps, target.maps, strict=True)]
        inner, others = (torch.stack(part).mean(dim=0) for part in zip(*parts, strict=True))  # [b k] each
        present = current.present & target.present
        lack, phrases = over_groups(inner, present, current.group)  # [b p]
        rest, _ = over_groups(others, present, current.group)
        worst = max_present(lack, phrases)
        return Energy((lack + rest).sum(dim=1), worst.detach(), worst)

    def _parts(self, maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Inner, and outer with corner, of every thing `[b k]`, averaged over views."""
        # A box within one cell covers a part of it at most: that cell is then its place, or the constraints could never be met.
        mask = mask / mask.amax(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(mask.dtype).tiny)
        inner = (1 - self._strongest(maps, mask)).clamp(min=0)
        outer = self._strongest(maps, 1 - mask)
        corner = sum((self._corner(maps.amax(dim=axis), mask.amax(dim=axis)) for axis in (-2, -1)), torch.zeros_like(inner))
        return inner.mean(dim=1), (outer + corner).mean(dim=1)

    def _strongest(self, maps: Tensor, mask: Tensor) -> Tensor:
        """The mean `[b n k]` of the strongest cells under a mask."""
        # Single precision cannot count by an exact share: 0.2 of 5 cells is one.
        count = (self.top * mask.sum(dim=(-2, -1)) + 1e-4).floor().clamp(min=1)  # [b 1 k]
        cells = rearrange(maps * mask, "b n k h w -> b n k (h w)").sort(dim=-1, descending=True).values
        taken = torch.arange(cells.shape[-1], device=cells.device) < count[..., None]
        return torch.where(taken, cells, torch.zeros_like(cells)).sum(dim=-1) / count

    def _corner(self, maps: Tensor, mask: Tensor) -> Tensor:
        """`|map - mask|` along one axis `[b n k cells]`, near the edges, as a mean over all of the axis `[b n k]`."""
        inside = F.pad((mask >= 0.5 - HAIR).to(maps.dtype), (1, 1))
        edges = (inside[..., 1:] - inside[..., :-1]).abs()  # edge e lies before cell e
        width = 2 * self.reach + 1
        near = F.max_pool1d(edges.flatten(0, 2)[:, None], width, stride=1, padding=self.reach)[:, 0, :-1].reshape(mask.shape)
        return ((maps - mask).abs() * near).mean(dim=-1)
