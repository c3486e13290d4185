"""Boxes, regions and layouts: what is refused, what formats become, and what masks they make."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.errors import ConfigError, LayoutError, PhraseError
from lsregen.framework.layout.rasters import RASTERS, rasterise
from lsregen.framework.layout.regions import MIN_SIDE, Box, Layout, Region, parse_box


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    low = st.floats(0, 1 - 2 * MIN_SIDE)
    left, top = draw(low), draw(low)
    right = draw(st.floats(left + 2 * MIN_SIDE, 1))
    return Box(left, top, right, draw(st.floats(top + 2 * MIN_SIDE, 1)))


grids = st.tuples(st.integers(1, 40), st.integers(1, 40))


# Boxes


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((-0.1, 0, 0.5, 0.5), "left=-0.1 is out of range"),
        ((0.1, 0.1, 0.5, 1.2), "bottom=1.2 is out of range.*pixels"),
        ((40, 40, 300, 500), "left=40, top=40, right=300, bottom=500 is out of range.*Box.from_pixels.*--box"),
        ((0.6, 0.1, 0.2, 0.5), "left=0.6 > right=0.2.*swapped"),
        ((0.1, 0.5, 0.2, 0.4), "top=0.5 > bottom=0.4.*swapped"),
        ((0.3, 0.1, 0.3, 0.5), "zero area: left=0.3"),
        ((0.1, 0.5, 0.3, 0.5 + MIN_SIDE / 2), "zero area: top=0.5"),
        ((math.nan, 0.1, 0.3, 0.5), "left=nan is not finite"),
        ((0.1, 0.1, math.inf, 0.5), "right=inf is not finite"),
        (("a", 0.1, 0.3, 0.5), "expected four numbers"),
        ((None, 0.1, 0.3, 0.5), "expected four numbers"),
        (("0.1", 0.1, 0.3, 0.5), "expected four numbers"),
    ],
)
def test_a_bad_box_is_refused_with_its_value_and_the_cure(values: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(LayoutError, match=problem):
        Box(*values)


def test_a_negative_box_is_not_taken_for_pixels() -> None:
    with pytest.raises(LayoutError) as caught:
        Box(-0.1, 0, 0.5, 0.5)
    assert "pixels" not in str(caught.value)


def test_corners_become_plain_floats() -> None:
    box = Box(cast(float, np.float32(0.25)), 0, 1, 1)
    assert [type(value) for value in box.xyxy] == [float] * 4
    assert box == Box(0.25, 0.0, 1.0, 1.0)
    assert box.area == 0.75


def test_converters_agree_on_one_box() -> None:
    size = (640, 480)  # width, height: not square, so that an exchange shows
    expected = Box(0.25, 0.5, 0.75, 1)
    assert Box.from_pixels((160, 240, 480, 480), size) == expected
    assert Box.from_xywh((160, 240, 320, 240), size) == expected
    assert Box.from_yolo((0.5, 0.75, 0.5, 0.5)) == expected


@given(boxes(), st.integers(16, 2048), st.integers(16, 2048))
def test_converters_round_trip(box: Box, width: int, height: int) -> None:
    left, top, right, bottom = box.xyxy
    pixels = (left * width, top * height, right * width, bottom * height)
    coco = (pixels[0], pixels[1], pixels[2] - pixels[0], pixels[3] - pixels[1])
    yolo = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    for back in (Box.from_pixels(pixels, (width, height)), Box.from_xywh(coco, (width, height)), Box.from_yolo(yolo)):
        assert back.xyxy == pytest.approx(box.xyxy, abs=1e-9)


def test_converters_cut_rounding_errors_at_the_border_but_nothing_more() -> None:
    assert Box.from_yolo((0.5, 0.5, 1.00001, 1)).xyxy == (0, 0, 1, 1)
    assert Box.from_xywh((573.07, 0, 66.9300001, 480), (640, 480)).right == 1
    with pytest.raises(
        LayoutError,
        match=r"^box \[600, 0, 66, 480\] \(left, top, width, height\): right=666 is out of range; expected pixels .*640x480$",
    ):
        Box.from_xywh((600, 0, 66, 480), (640, 480))


@pytest.mark.parametrize(
    ("box", "size", "problem"),
    [
        ((0, 0, 0, 0), (64, 64), "zero area"),
        ((10, 0, 5, 64), (64, 64), "swapped"),
        ((0, 0, 5), (64, 64), "four numbers"),
        ((0, 0, 5, 5), (0, 64), "image size"),
        ((0, math.nan, 5, 5), (64, 64), "not finite"),
    ],
)
def test_bad_pixel_boxes_are_refused(box: Sequence[float], size: tuple[int, int], problem: str) -> None:
    with pytest.raises(LayoutError, match=problem):
        Box.from_pixels(box, size)


# Regions and layouts


def test_a_region_cleans_its_phrase_and_refuses_an_empty_one() -> None:
    assert Region("  red \n circle ").phrase == "red circle"
    with pytest.raises(PhraseError, match="empty"):
        Region("  ")


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.ones((4, 4)), r"^mask of region 'circle': a ndarray; expected a tensor \[H W\]: torch.from_numpy\(array\)"),
        ("circle.png", r"a str; .* or read_mask\('mask.png'\)"),
        (torch.zeros(4), r"\[H W\], got shape \[4\]"),
        (torch.zeros(0, 4), r"got shape \[0, 4\]"),
        (torch.zeros(4, 4), "zero everywhere"),
        (torch.full((4, 4), 255, dtype=torch.uint8), "divide an 8-bit mask by 255"),
        (torch.full((4, 4), -0.5), "values from -0.5"),
        (torch.full((4, 4), math.nan), "nan"),
    ],
)
def test_a_bad_mask_is_refused(mask: Any, problem: str) -> None:
    with pytest.raises(LayoutError, match=problem):
        Region("circle", mask=mask)


def test_a_region_has_one_place() -> None:
    with pytest.raises(LayoutError, match="both a box and a mask"):
        Region("circle", Box(0, 0, 1, 1), torch.ones(2, 2))


def test_boxes_that_are_of_another_kind_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"^box of region 'circle': a tuple; expected a Box: Box\(left, top, right, bottom\)$"):
        Region("circle", cast("Box", (0, 0, 1, 1)))
    with pytest.raises(LayoutError, match=r"^boxes: a list; expected a mapping, such as .* are Layout\(\(Region\(phrase, box\)"):
        Layout.from_boxes(cast("Any", [("red circle", (0, 0, 1, 1))]))


def test_regions_compare_by_value_and_keep_their_own_mask() -> None:
    mask = torch.eye(3)
    region = Region("circle", mask=mask)
    assert region == Region("circle", mask=torch.eye(3, dtype=torch.bool))
    assert hash(region) == hash(Region("circle", mask=torch.eye(3)))
    mask[0, 1] = 1
    assert region == Region("circle", mask=torch.eye(3))
    assert region != Region("circle", mask=mask)
    assert region != Region("circle", mask=torch.eye(4))
    assert region != Region("circle")
    assert Region("circle", Box(0, 0, 1, 1)) == Region("circle", Box(0, 0, 1, 1)) != Region("square", Box(0, 0, 1, 1))
    assert Layout((region,)) == Layout((Region("circle", mask=torch.eye(3)),))
    assert region != "circle"


def test_a_layout_knows_its_phrases_and_places() -> None:
    one, two, bare = Region("red circle", Box(0, 0, 0.5, 1)), Region("Red circle", Box(0.5, 0, 1, 1)), Region("blue square")
    masked = Region("star", mask=torch.eye(2))
    layout = Layout((one, bare, two, masked))
    assert layout.phrases == ("red circle", "blue square", "star")
    assert layout.boxed == (one, two, masked)
    assert layout.of("RED  circle") == (one, two)
    assert layout.of("dog") == ()
    assert Layout().phrases == Layout().boxed == ()


def test_from_boxes_names_the_phrase_at_fault() -> None:
    layout = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.6), "blue square": Box(0.5, 0.5, 1, 1)})
    assert layout.regions == (Region("red circle", Box(0.05, 0.1, 0.45, 0.6)), Region("blue square", Box(0.5, 0.5, 1, 1)))
    with pytest.raises(LayoutError, match=r"box of 'dog'.*swapped"):
        Layout.from_boxes({"dog": (0.5, 0, 0.1, 1)})
    with pytest.raises(LayoutError, match=r"box of 'dog'.*four numbers"):
        Layout.from_boxes({"dog": (0.5, 0, 0.1)})


def test_json_round_trip_through_text() -> None:
    layout = Layout((Region("a", Box(0.1, 0.2, 0.3, 0.4)), Region("b"), Region("c", mask=torch.rand(3, 5))))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert Layout.from_boxes({"a": (0, 0, 1, 1)}).to_json() == {"regions": [{"phrase": "a", "box": [0, 0, 1, 1]}]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "layout: expected regions in a mapping, got list"),
        ({"region": []}, r"unknown key 'region' \(did you mean 'regions'\?\)"),
        ({"regions": {}}, "list under 'regions', got dict"),
        ({}, "list under 'regions', got NoneType"),
        ({"regions": ["dog"]}, "layout region 1: expected phrase, box, mask, image in a mapping, got str"),
        ({"regions": [{"phrase": "a"}, {"phrase": "b", "bbox": [0, 0, 1, 1]}]}, "layout region 2: unknown key 'bbox'.*'box'"),
        ({"regions": [{"box": [0, 0, 1, 1]}]}, "phrase None: expected a text"),
        ({"regions": [{"phrase": " "}]}, "layout region 1.*empty"),
        ({"regions": [{"phrase": "a", "box": [0, 0, 64, 64]}]}, r"layout region 1 \('a'\): box \[0, 0, 64, 64\].*pixels"),
        ({"regions": [{"phrase": "a", "box": "0,0,1,1"}]}, "four numbers"),
        ({"regions": [{"phrase": "a", "box": 3}]}, "four numbers"),
        ({"regions": [{"phrase": "a", "mask": [[0, 1], [1]]}]}, r"layout region 1 \('a'\).*one length"),
        ({"regions": [{"phrase": "a", "mask": [[0, 2]]}]}, "values from 0 to 2"),
    ],
)
def test_bad_json_is_refused(data: object, problem: str) -> None:
    with pytest.raises(LayoutError, match=problem):
        Layout.from_json(data)


# The command line's form


def test_parse_box() -> None:
    assert parse_box("red circle=0.05,0.1,0.45,0.6") == Region("red circle", Box(0.05, 0.1, 0.45, 0.6))
    assert parse_box(" circle#2 = 0, 0, 1, 1 ") == Region("circle#2", Box(0, 0, 1, 1))
    assert parse_box("x=y=0,0,1,1").phrase == "x=y"


@pytest.mark.parametrize(
    "text", ["", "circle", "circle=", "=0,0,1,1", "circle=0,0,1", "circle=0,0,1,1,1", "circle=0;0;1;1", "c=a,b,c,d"]
)
def test_malformed_text_is_quoted_with_the_expected_form(text: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(repr(text)) + ".*PHRASE=LEFT,TOP,RIGHT,BOTTOM"):
        parse_box(text)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [("10,20,300,400", "pixels"), ("0.5,0,0.1,1", "swapped"), ("nan,0,1,1", "not finite"), ("0,0,0,1", "zero area")],
)
def test_a_bad_box_on_the_command_line_keeps_its_text(numbers: str, problem: str) -> None:
    with pytest.raises(LayoutError, match=f"'dog={numbers}'.*{problem}"):
        parse_box(f"dog={numbers}")


# Rasterising


@settings(max_examples=60)
@given(boxes(), grids)
def test_area_keeps_the_area_and_is_never_empty(box: Box, grid: tuple[int, int]) -> None:
    mask = rasterise(box, grid)
    assert mask.shape == grid
    assert mask.dtype == torch.float32
    assert mask.min() >= 0
    assert 0 < mask.max() <= 1
    assert mask.double().sum().item() == pytest.approx(box.area * grid[0] * grid[1], rel=1e-4)


@settings(max_examples=60)
@given(boxes(), grids)
def test_cover_is_where_area_is(box: Box, grid: tuple[int, int]) -> None:
    area, cover = rasterise(box, grid), rasterise(box, grid, "cover")
    assert cover.sum() >= 1
    assert set(cover.unique().tolist()) <= {0.0, 1.0}
    assert bool((cover[area > 1e-6] == 1).all())
    for published in ("truncate", "round"):
        assert set(rasterise(box, grid, published).unique().tolist()) <= {0.0, 1.0}


@settings(max_examples=30)
@given(boxes(), grids)
def test_rows_are_rows(box: Box, grid: tuple[int, int]) -> None:
    turned = Box(box.top, box.left, box.bottom, box.right)
    for raster in RASTERS:
        assert torch.equal(rasterise(box, grid, raster), rasterise(turned, (grid[1], grid[0]), raster).T)


def test_orientation_on_a_grid_that_is_not_square() -> None:
    mask = rasterise(Box(0.5, 0, 1, 0.5), (2, 6))
    assert mask.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]]


def columns(raster: str, left: float, right: float, cells: int) -> list[float]:
    return rasterise(Box(left, 0, right, 1), (1, cells), raster)[0].tolist()


def test_area_by_hand() -> None:
    assert columns("area", 0.125, 0.625, 4) == [0.5, 1, 0.5, 0]


@settings(max_examples=60)
@given(boxes(), grids)
def test_truncate_is_the_published_rule(box: Box, grid: tuple[int, int]) -> None:
    h, w = grid
    expected = torch.zeros(grid)
    expected[int(box.top * h) : int(box.bottom * h), int(box.left * w) : int(box.right * w)] = 1
    assert torch.equal(rasterise(box, grid, "truncate"), expected)


def test_published_rules_by_hand() -> None:
    assert columns("truncate", 0.3, 0.8, 4) == [0, 1, 1, 0]
    assert sum(columns("truncate", 0.3, 0.4, 4)) == 0  # what layout-guidance does to thin boxes
    # BoxDiff: pixels of 512 on 16 cells; 48 px is 1.5 cells and 80 px is 2.5, both go to 2
    assert columns("round", 48 / 512, 80 / 512, 16) == [0] * 16
    assert columns("round", 40 / 512, 112 / 512, 16) == [0, 1, 1, 1] + [0] * 12
    assert columns("cover", 0.3, 0.4, 4) == [0, 1, 0, 0]
    assert columns("cover", 0.7, 0.9, 10) == [0] * 7 + [1, 1, 0]  # 0.7 * 10 is not 7 in floats
    assert columns("cover", 1 - 2e-6, 1, 4) == [0, 0, 0, 1]


def test_a_full_box_is_all_ones_by_every_rule() -> None:
    for raster in RASTERS:
        assert torch.equal(rasterise(Box(0, 0, 1, 1), (5, 7), raster), torch.ones(5, 7))


def test_masks_are_averaged_over_cells() -> None:
    mask = torch.rand(12, 18)
    expected = torch.nn.functional.adaptive_avg_pool2d(mask[None], (4, 6))[0]
    torch.testing.assert_close(rasterise(Region("a", mask=mask), (4, 6)), expected)
    for raster in ("truncate", "round", "cover"):
        assert torch.equal(rasterise(Region("a", mask=mask), (4, 6), raster), (expected >= 0.5).float())


@settings(max_examples=40)
@given(grids, grids, st.integers(0, 100))
def test_masks_keep_their_area_on_any_grid(size: tuple[int, int], grid: tuple[int, int], seed: int) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    averaged = rasterise(Region("a", mask=mask), grid)
    assert averaged.shape == grid
    assert averaged.mean().item() == pytest.approx(mask.mean().item(), rel=1e-3)


def test_a_mask_of_a_box_is_that_box() -> None:
    mask = torch.zeros(10, 20)
    mask[2:7, 3:11] = 1
    torch.testing.assert_close(rasterise(Region("a", mask=mask), (3, 7)), rasterise(Box(3 / 20, 0.2, 11 / 20, 0.7), (3, 7)))


def test_several_regions_are_stacked() -> None:
    layout = Layout.from_boxes({"a": (0, 0, 0.5, 1), "b": (0.5, 0, 1, 1)})
    masks = rasterise(layout, (2, 4))
    assert masks.shape == (2, 2, 4)
    assert torch.equal(masks[1], rasterise(layout.regions[1], (2, 4)))
    assert torch.equal(rasterise(layout.boxed, (2, 4)), masks)
    assert torch.equal(masks.amax(0), torch.ones(2, 4))
    assert rasterise(Layout(), (2, 4)).shape == (0, 2, 4)


def test_what_cannot_be_rasterised() -> None:
    with pytest.raises(LayoutError, match="'dog' has neither box nor mask"):
        rasterise(Region("dog"), (4, 4))
    with pytest.raises(ConfigError, match=r"raster: 'aera'.*did you mean 'area'"):
        rasterise(Box(0, 0, 1, 1), (4, 4), "aera")


def test_parsing_does_not_import_torch() -> None:
    # The files by their paths: what the package's own __init__ imports is not this module's affair.
    code = (
        "import sys, types, pathlib, importlib; folder = pathlib.Path(sys.argv[1]);"
        "package = types.ModuleType('bare'); package.__path__ = [str(folder)]; sys.modules['bare'] = package;"
        "layout = importlib.import_module('bare.layout.regions'); importlib.import_module('bare.layout.tokens');"
        "layout.parse_box('a=0,0,1,1'); assert 'torch' not in sys.modules"
    )
    folder = str(Path(str(sys.modules[Box.__module__].__file__)).parents[1])
    subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=60)
