"""How a place becomes a mask on a grid (h, w)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

from ..config.arguments import checked, checked_device
from ..config.constraints import OneOf
from ..errors import ConfigError, LayoutError, nearest
from ..plugins.functions import Functions
from .regions import Box, Layout, Region

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RasterRule: TypeAlias = Callable[[float, float, int], list[float]]
HAIR = 1e-5  # a cell that is half covered is taken, whichever way its sum was rounded


def _area(low: float, high: float, cells: int) -> list[float]:
    return [max(0.0, min(high * cells, i + 1) - max(low * cells, i)) for i in range(cells)]


def _between(first: int, last: int, cells: int) -> list[float]:
    return [float(first <= i < last) for i in range(cells)]


def _truncate(low: float, high: float, cells: int) -> list[float]:
    return _between(int(low * cells), int(high * cells), cells)


def _round(low: float, high: float, cells: int) -> list[float]:
    # Python's round takes halves to the even neighbour, as BoxDiff does; its clamp at 0 is implied by a valid box.
    return _between(round(low * cells), round(high * cells), cells)


def _cover(low: float, high: float, cells: int) -> list[float]:
    touch = 1e-9  # of a cell: 0.7 * 10 is a hair above 7 and must not touch cell 7
    first = min(math.floor(low * cells + touch), cells - 1)
    return _between(first, max(math.ceil(high * cells - touch), first + 1), cells)


RASTERS: Mapping[str, RasterRule] = Functions("raster", {"area": _area, "truncate": _truncate, "round": _round, "cover": _cover})
"""How a side of a box, from `low` to `high`, covers the cells of one axis, each in [0, 1]; a mask is the product of two axes.

- `area`: the covered fraction of each cell, so that no box is ever empty (lsregen's default; ZestGuide, Couairon et al. 2023,
  scales its masks so).
- `truncate`: both ends cut to whole cells by `int()`, as in layout-guidance (Chen et al. 2024) and in GLIGEN's inpainting (Li et
  al. 2023): a box inside one cell is empty.
- `round`: both ends to the nearest edge between cells, halves to the even one, as in BoxDiff (Xie et al. 2023) and Bounded
  Attention (Dahary et al. 2024): may be empty too.
- `cover`: every cell that the box touches, at least one (floor and ceil).
"""


Raster: TypeAlias = Annotated[str, OneOf(RASTERS)]


def check_raster(raster: str) -> None:
    """Raises a ConfigError unless there is a raster rule of this name."""
    if raster not in RASTERS:
        raise ConfigError(f"raster: {raster!r} is not one of {', '.join(RASTERS)}{nearest(raster, RASTERS)}")


@checked
def rasterise(
    place: Box | Region | Layout | Sequence[Region],
    grid: tuple[int, int],
    raster: str = "area",
    device: torch.device | str | None = None,
) -> Tensor:
    """The mask of a place on a grid (h, w), fp32 in [0, 1].

    A box or region gives `[h w]`; a layout or several regions give `[r h w]`, one mask a region in their order (their union is
    `.amax(0)`). A region's mask is averaged over each cell, by exact area; every rule but `area` then keeps what is at least 0.5.

    Raises:
        ConfigError: no such raster rule.
        LayoutError: a region has no place.
    """
    import torch

    check_raster(raster)
    device = None if device is None else checked_device(device)
    if not isinstance(place, Box | Region):
        regions = place.regions if isinstance(place, Layout) else place
        masks = [rasterise(region, grid, raster, device) for region in regions]
        return torch.stack(masks) if masks else torch.zeros((0, *grid), device=device)
    box = place if isinstance(place, Box) else place.box
    if box is not None:
        rule = RASTERS[raster]
        rows, columns = rule(box.top, box.bottom, grid[0]), rule(box.left, box.right, grid[1])
        return torch.outer(torch.tensor(rows), torch.tensor(columns)).to(device)
    mask = cast("Region", place).mask
    if mask is None:
        raise LayoutError(f"region {cast('Region', place).phrase!r} has neither box nor mask, so it has no place on a grid")
    # Each pixel row or column is a thin box; its `area` on the axis is what it adds to the cells: `[pixels, cells]`.
    by_row, by_column = (
        torch.tensor([_area(i / pixels, (i + 1) / pixels, cells) for i in range(pixels)])
        for pixels, cells in zip(mask.shape, grid, strict=True)
    )
    covered = (by_row.T @ mask.cpu() @ by_column).clamp(0, 1)
    return (covered if raster == "area" else (covered >= 0.5 - HAIR).float()).to(device)
