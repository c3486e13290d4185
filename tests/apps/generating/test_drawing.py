"""Layout and attention pictures: the right pixels, nothing clipped, nothing on top of each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lsregen.apps.generating.drawing import (
    CELL_SIDES,
    COLOURS,
    PAPER,
    SHORT_SIDE,
    Labels,
    colours_of,
    draw_attention,
    draw_layout,
    pixels_of,
    shortened,
    wrapped,
)
from lsregen.apps.generating.fonts import Lettering, font
from lsregen.framework.layout.regions import Box, Layout, Region, parse_box

TWO = Layout((parse_box("red circle=0.05,0.1,0.45,0.6"), parse_box("blue square=0.55,0.45,0.95,0.95")))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize(
    ("size", "drawn"), [((64, 64), (512, 512)), ((96, 64), (768, 512)), ((600, 512), (600, 512)), ((10, 7), (740, 518))]
)
def test_enlarged_pixel_by_pixel(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    picture = draw_layout(image, Layout())
    factor = drawn[0] // size[0]
    assert picture.size == drawn
    assert min(drawn) >= SHORT_SIDE
    assert (pixels(picture) == pixels(image).repeat(factor, 0).repeat(factor, 1)).all()


def test_boxes_stand_where_they_should() -> None:
    picture = pixels(draw_layout(Image.new("RGB", (64, 64)), Layout((Region("a", Box(0.25, 0.5, 0.75, 1)),))))
    rows, columns = np.nonzero((picture == COLOURS[0]).all(-1))
    below = rows > 256 + 40  # of the label
    assert (columns.min(), columns[below].max(), rows.max()) == (128, 383, 511)
    assert (picture[400, 128] == COLOURS[0]).all()
    assert (picture[400, 127] == 0).all()


def test_a_phrase_has_one_colour_and_phrases_have_different_ones() -> None:
    layout = Layout(tuple(Region(phrase) for phrase in ("Ball", "cat", "ball", "dog")))
    colours = colours_of(layout)
    assert list(colours) == ["ball", "cat", "dog"]
    assert len(set(colours.values())) == 3
    assert len(set(COLOURS)) == len(COLOURS)


BOXES = [
    (0, 0, 511, 511),
    (0, 0, 200, 200),
    (10, 5, 300, 40),
    (480, 0, 511, 20),
    (500, 500, 511, 511),
    (0, 490, 3, 511),
    (0, 0, 511, 511),
]


@pytest.mark.parametrize(
    "text", ["tiny", "gjpqy", "a phrase of very many words that no picture is wide enough for, at all, ever"]
)
def test_labels_stay_inside_and_apart(text: str) -> None:
    picture = Image.new("RGB", (512, 512))
    labels = Labels(picture.size)
    for corners in BOXES:
        labels.add(ImageDraw.Draw(picture), Lettering(text, font(19)), corners, COLOURS[0])
    for left, top, right, bottom in labels.taken:
        assert 0 <= left < right <= 511
        assert 0 <= top < bottom <= 511
    for a, b in combinations(labels.taken, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


@pytest.mark.parametrize("text", ["Ágjpqy|", "red circle", "W" * 40])
def test_text_fits_its_plate(text: str) -> None:
    ground, colour = Image.new("RGB", (300, 200)), (250, 0, 0)
    labels = Labels(ground.size)
    labels.add(ImageDraw.Draw(ground), Lettering(text, font(19)), (20, 100, 60, 150), colour)
    ((left, top, right, bottom),) = labels.taken
    edge = pixels(ground.crop((left + 1, top + 1, right, bottom)))  # inside the frame of the plate
    for side in (edge[0], edge[-1], edge[:, 0], edge[:, -1]):
        assert (side == colour).all()  # no letter touches it
    assert (edge != colour).any()


def test_many_labels_in_no_room_are_still_drawn() -> None:
    picture = Image.new("RGB", (60, 40))
    labels = Labels(picture.size)
    for _ in range(5):
        labels.add(ImageDraw.Draw(picture), Lettering("word", font(19)), (0, 0, 59, 39), COLOURS[0])
    assert len(labels.taken) == 5


def test_shortened_and_wrapped() -> None:
    letters = font(18)
    assert shortened("short", letters, 400) == "short"
    cut = shortened("a long phrase indeed", letters, 90)
    assert cut.endswith("…")
    assert letters.getlength(cut) <= 90
    assert shortened("W", letters, 1) == "…"
    lines = wrapped("one two three four five six seven", letters, 80, 2)
    assert len(lines) == 2
    assert lines[0] == "one two"
    assert lines[1].endswith("…")
    assert wrapped("", letters, 80, 2) == []


def cells(maps: dict[int, np.ndarray], layout: Layout, size: tuple[int, int] = (64, 64)) -> list[list[np.ndarray]]:
    """The drawn cells `[row][column]`, found by the white gaps between them."""
    picture = pixels(draw_attention(maps, layout, size, 50))
    inked = (picture != PAPER).any(-1)
    columns, rows = np.nonzero(inked[40])[0], None
    runs = [run for run in np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1) if len(run) >= CELL_SIDES[0]]
    found: list[list[np.ndarray]] = []
    column = inked[:, runs[0][0]]
    rows = np.nonzero(column)[0]
    bands = [run for run in np.split(rows, np.nonzero(np.diff(rows) > 1)[0] + 1) if len(run) >= CELL_SIDES[0]]
    for band in bands:
        found.append([picture[band[0] : band[-1] + 1, run[0] : run[-1] + 1] for run in runs])
    return found


def test_maps_are_upright_and_rows_have_their_own_scale() -> None:
    """A map that is wider than high, brightest in the upper right corner; the second phrase a thousand times weaker."""
    values = np.zeros((2, 2, 4))
    values[0, 0, 3], values[1, 1, 0] = 1.0, 0.001
    drawn = cells({0: values / 2, 10: values}, Layout((Region("a"), Region("b"))), (128, 64))
    assert [len(row) for row in drawn] == [2, 2]
    for row, (y, x) in enumerate([(0, 3), (1, 0)]):
        for column in (0, 1):
            cell = drawn[row][column]
            height, width = cell.shape[:2]
            assert width == 2 * height
            light = cell.sum(-1)[height // 4 :: height // 2, width // 8 :: width // 4]
            assert light.shape == (2, 4)
            assert np.unravel_index(light.argmax(), light.shape) == (y, x)
        assert drawn[row][0].max() < drawn[row][1].max()  # half as strong at the first step
    assert (drawn[0][1].max((0, 1)) == drawn[1][1].max((0, 1))).all()


def test_values_that_are_no_numbers_are_drawn_as_nothing() -> None:
    values = np.full((1, 2, 2), np.nan)
    (row,) = cells({0: values, 3: np.zeros((1, 2, 2))}, Layout((Region("a"),)))
    assert max(cell.max() for cell in row) < 20


def test_the_box_of_a_phrase_is_outlined_in_its_row_only() -> None:
    rows = cells({0: np.zeros((2, 8, 8))}, TWO)
    for row, region in enumerate(TWO.regions):
        cell = rows[row][0]
        assert region.box is not None
        left, top, right, bottom = pixels_of(region.box, (cell.shape[1], cell.shape[0]))
        painted = (cell == COLOURS[row]).all(-1)
        ys, xs = np.nonzero(painted)
        assert (xs.min(), ys.min(), xs.max(), ys.max()) == (left, top, right, bottom)
        assert not (cell == COLOURS[1 - row]).all(-1).any()


@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize("size", [(64, 64), (512, 64), (64, 2048)])
def test_nothing_reaches_the_edge(steps: int, size: tuple[int, int]) -> None:
    names = Layout((Region("x"), Region("a phrase of very many words that goes on and on and on and on", Box(0, 0, 1, 1))))
    rng = np.random.default_rng(0)
    picture = pixels(draw_attention({i: rng.random((2, 4, 4)) for i in range(steps)}, names, size, 1000))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == PAPER).all()


def test_a_text_of_any_length_is_cut_to_its_width() -> None:
    cut = shortened("x" * 100_000, font(18), 100)
    assert cut.endswith("…")
    assert font(18).getlength(cut) <= 100 < font(18).getlength("x" + cut)
