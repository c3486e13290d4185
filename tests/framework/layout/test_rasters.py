"""Boxes on grids, against formulas written once more: area on any grid, and every published rounding by its name."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.layout.rasters import RASTERS, rasterise
from lsregen.framework.layout.regions import MIN_SIDE, Box, Region

grids = st.tuples(st.integers(1, 96), st.integers(1, 96))


@st.composite
def boxes(draw: st.DrawFn, thin: bool = False) -> Box:
    def side() -> tuple[float, float]:
        width = draw(st.floats(2 * MIN_SIDE, 0.02 if thin else 1))
        low = draw(st.floats(0, 1 - width))
        return low, min(low + width, 1)

    (left, right), (top, bottom) = side(), side()
    return Box(left, top, right, bottom)


@settings(max_examples=80)
@given(boxes() | boxes(thin=True), grids)
def test_area_sums_to_the_box_on_any_grid(box: Box, grid: tuple[int, int]) -> None:
    mask = rasterise(box, grid).double()
    assert mask.sum().item() == pytest.approx(box.area * grid[0] * grid[1], rel=1e-3)
    assert mask.sum() > 0
    assert mask.max() <= 1
    assert rasterise(box, grid, "cover").sum() >= 1


@settings(max_examples=40)
@given(boxes(thin=True), grids)
def test_area_puts_a_thin_box_where_it_is(box: Box, grid: tuple[int, int]) -> None:
    mask = rasterise(box, grid).double()
    rows, columns = torch.nonzero(mask.sum(1))[:, 0], torch.nonzero(mask.sum(0))[:, 0]
    assert rows.min() >= math.floor(box.top * grid[0] - 1e-6)
    assert rows.max() < math.ceil(box.bottom * grid[0] + 1e-6)
    assert columns.min() >= math.floor(box.left * grid[1] - 1e-6)
    assert columns.max() < math.ceil(box.right * grid[1] + 1e-6)


@settings(max_examples=40)
@given(boxes(), st.integers(1, 12), st.integers(1, 12), st.integers(2, 5))
def test_area_on_a_coarse_grid_is_the_mean_of_a_fine_one(box: Box, height: int, width: int, times: int) -> None:
    fine = rasterise(box, (height * times, width * times))
    mean = torch.nn.functional.avg_pool2d(fine[None], times)[0]
    torch.testing.assert_close(rasterise(box, (height, width)), mean, atol=1e-5, rtol=1e-4)


def filled(grid: tuple[int, int], top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(grid)
    mask[top:bottom, left:right] = 1
    return mask


@settings(max_examples=80)
@given(boxes() | boxes(thin=True), grids)
def test_layout_guidance_cuts_both_ends(box: Box, grid: tuple[int, int]) -> None:
    h, w = grid
    expected = filled(grid, int(box.top * h), int(box.bottom * h), int(box.left * w), int(box.right * w))
    assert torch.equal(rasterise(box, grid, "truncate"), expected)


pixels = st.tuples(st.integers(0, 511), st.integers(1, 512)).filter(lambda pair: pair[0] < pair[1])


@settings(max_examples=80)
@given(pixels, pixels, st.sampled_from([8, 16, 32, 64]))
def test_boxdiff_rounds_pixels_of_512(across: tuple[int, int], down: tuple[int, int], cells: int) -> None:
    scale = 512 / cells
    (x1, x2), (y1, y2) = [[max(round(value / scale), 0) for value in pair] for pair in (across, down)]
    box = Box.from_pixels((across[0], down[0], across[1], down[1]), (512, 512))
    assert torch.equal(rasterise(box, (cells, cells), "round"), filled((cells, cells), y1, y2, x1, x2))


@settings(max_examples=80)
@given(boxes() | boxes(thin=True), grids)
def test_bounded_attention_rounds_fractions(box: Box, grid: tuple[int, int]) -> None:
    h, w = grid
    expected = filled(grid, round(box.top * h), round(box.bottom * h), round(box.left * w), round(box.right * w))
    assert torch.equal(rasterise(box, grid, "round"), expected)


def test_every_rule_is_known_by_its_name() -> None:
    assert set(RASTERS) == {"area", "truncate", "round", "cover"}
    box = Box(0.3, 0, 0.8, 1)
    found = {name: rasterise(box, (1, 4), name)[0].tolist() for name in RASTERS}
    assert found["area"] == pytest.approx([0, 0.8, 1, 0.2], abs=1e-6)
    assert found["truncate"] == [0, 1, 1, 0]
    assert found["round"] == [0, 1, 1, 0]
    assert found["cover"] == [0, 1, 1, 1]


@pytest.mark.parametrize("raster", ["truncate", "round", "cover"])
def test_a_cell_that_a_mask_half_covers_is_taken_however_its_sum_is_rounded(raster: str) -> None:
    for pixels, cells in product(range(2, 31), range(1, 9)):
        for filled in range(1, pixels + 1):
            mask = torch.zeros(pixels, pixels)
            mask[:, :filled] = 1
            expected = [2 * (filled * cells - cell * pixels) >= pixels for cell in range(cells)]  # in whole numbers
            assert rasterise(Region("a", mask=mask), (1, cells), raster)[0].tolist() == expected, (pixels, cells, filled)
