"""Pictures about pictures: the boxes drawn over an image, and the attention of every phrase over the steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from ...framework.layout.regions import Box, Layout, Region
from .fonts import Font, Lettering, font, lettering

Floats: TypeAlias = NDArray[np.floating[Any]]
Rectangle: TypeAlias = tuple[int, int, int, int]
Colour: TypeAlias = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (0, 200, 255),
    (80, 230, 80),
    (255, 220, 0),
    (255, 140, 50),
    (190, 140, 255),
    (255, 110, 210),
    (255, 255, 255),
    (0, 220, 180),
)
"""The colours of phrases, in the order of a layout; bright, so that black text is legible on all of them."""

INK, PAPER = (20, 20, 20), (255, 255, 255)
COLD, WARM, HOT = (0, 0, 8), (190, 50, 115), (255, 250, 190)
SHORT_SIDE = 512  # of a layout picture, at least
CELLS_WIDTH = 1024  # that the maps of one phrase share, if their number allows it
CELL_SIDES = (64, 128)  # the shorter side of a map in the attention picture: at least, at most
GAP = 8
NAME_SIZE = 18  # of the letters beside a row of maps
ELLIPSIS = "…"


def colours_of(layout: Layout) -> dict[str, Colour]:
    """The colour of every phrase, by its case-folded text; one colour for all its boxes."""
    return {phrase.casefold(): COLOURS[i % len(COLOURS)] for i, phrase in enumerate(layout.phrases)}


def draw_layout(image: Image.Image, layout: Layout) -> Image.Image:
    """The image, enlarged pixel by pixel, with the boxes and masks of its layout and their phrases."""
    factor = ceil(SHORT_SIDE / min(image.size))
    picture = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    colours, scale = colours_of(layout), min(picture.size)
    frames: list[tuple[Region, Rectangle]] = []
    for region in layout.boxed:
        corners = draw_region(picture, region, colours[region.phrase.casefold()], max(2, scale // 170))
        frames.append((region, corners))
    draw, labels = ImageDraw.Draw(picture), Labels(picture.size)
    numbers = {key: number for number, key in enumerate(colours, 1)}
    for region, corners in frames:  # after all outlines, so that none crosses a label
        key = region.phrase.casefold()
        labels.add(draw, lettering(region.phrase, numbers[key], max(16, scale // 26)), corners, colours[key])
    return picture


def draw_region(
    picture: Image.Image,
    region: Region,
    colour: Colour,
    width: int,
    size: tuple[int, int] | None = None,
    at: tuple[int, int] = (0, 0),
) -> Rectangle:
    """Outline a box, or the edge of a mask, on the part of a picture of `size` (width, height) at `at`; returns the corners."""
    size = size or picture.size
    if region.box is not None:
        corners = pixels_of(region.box, size, at)
        outline(ImageDraw.Draw(picture), corners, colour, width)
        return corners
    levels = np.asarray(cast("Any", region.mask) >= 0.5).astype(np.uint8) * 255
    inside = Image.fromarray(levels).resize(size, Image.Resampling.NEAREST)
    for reach, ink in ((2 * width + 1, colour), (2 * (width // 3) + 1, INK)):  # the dark line is the outer half of the edge
        edge = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(reach)))
        picture.paste(ink, at, edge)
    left, top, right, bottom = inside.getbbox() or (0, 0, *size)
    return left + at[0], top + at[1], right - 1 + at[0], bottom - 1 + at[1]


def pixels_of(box: Box, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> Rectangle:
    """The first and last pixel of a box, in both directions, on a picture of `size` (width, height) placed at `offset`."""
    width, height = size
    left, top = round(box.left * width), round(box.top * height)
    right, bottom = max(left + 1, round(box.right * width)) - 1, max(top + 1, round(box.bottom * height)) - 1
    return left + offset[0], top + offset[1], right + offset[0], bottom + offset[1]


def outline(draw: ImageDraw.ImageDraw, corners: Rectangle, colour: Colour, width: int) -> None:
    """A coloured frame just inside `corners`, with a dark line within it: visible on any ground, and never cut by the edge."""
    left, top, right, bottom = corners
    draw.rectangle(corners, outline=colour, width=width)
    inner = (left + width, top + width, right - width, bottom - width)
    if inner[2] > inner[0] and inner[3] > inner[1]:
        draw.rectangle(inner, outline=INK, width=max(1, width // 3))


@dataclass
class Labels:
    """Labels on one canvas, of `size` (width, height): inside it, and clear of each other as long as there is room."""

    size: tuple[int, int]
    taken: list[Rectangle] = field(default_factory=list[Rectangle])

    def add(self, draw: ImageDraw.ImageDraw, written: Lettering, corners: Rectangle, colour: Colour) -> None:
        """Write a text on a plate of the given colour, at the corners it belongs to."""
        pad = max(3, round(written.font.size / 4))
        text = shortened(written.text, written.font, self.size[0] - 2 * pad)
        ascent, descent = written.font.getmetrics()
        width, height = ceil(written.font.getlength(text)) + 2 * pad, ascent + descent + pad
        left, top = self._place(corners, width, height)
        plate = (left, top, left + width - 1, top + height - 1)
        self.taken.append(plate)
        draw.rectangle(plate, fill=colour, outline=INK)
        draw.text((left + pad, top + pad // 2), text, fill=INK, font=written.font)

    def _place(self, corners: Rectangle, width: int, height: int) -> tuple[int, int]:
        """Above the box, else at its upper or lower edge inside, else below it, else the free row nearest to its top."""
        left, top, _, bottom = corners
        x = max(0, min(left, self.size[0] - width))
        lowest = max(0, self.size[1] - height)
        wanted = [top - height, top, bottom + 1 - height, bottom + 1]
        rows = sorted(range(0, lowest + 1, 4), key=lambda y: abs(y - top))
        for y in (*wanted, *rows):
            if 0 <= y <= lowest and not any(_meet((x, y, x + width - 1, y + height - 1), other) for other in self.taken):
                return x, y
        return x, max(0, min(top, lowest))


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def shortened(text: str, with_font: Font, width: int) -> str:
    """The text, cut with an ellipsis where it is longer than `width` pixels."""
    return _cut(text, lambda part: with_font.getlength(part) <= width)


def _cut(text: str, fits: Callable[[str], bool]) -> str:
    if fits(text):
        return text

    def part(length: int) -> str:
        return text[:length].rstrip() + ELLIPSIS

    return part(bisect_left(range(1, len(text)), True, key=lambda length: not fits(part(length))))


def wrapped(text: str, with_font: Font, width: int, most: int) -> list[str]:
    """The text in at most `most` lines of at most `width` pixels; words that are longer are cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and with_font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [shortened(line, with_font, width) for line in lines]


@dataclass(frozen=True)
class _Grid:
    """Where things stand in an attention picture: names on the left, step numbers on top, a note at the foot."""

    columns: int
    rows: int
    cell: tuple[int, int]
    names: int  # width of the names
    note: int  # width of the note
    head: int = 30
    foot: int = 30

    @property
    def size(self) -> tuple[int, int]:
        left, _ = self.at(0, 0)
        width = left + self.columns * (self.cell[0] + GAP)
        return max(width, self.note + 2 * GAP), self.head + self.rows * (self.cell[1] + GAP) + self.foot

    def at(self, row: int, column: int) -> tuple[int, int]:
        """The upper left corner of a map."""
        return 2 * GAP + self.names + column * (self.cell[0] + GAP), self.head + row * (self.cell[1] + GAP)


def draw_attention(maps: Mapping[int, Floats], layout: Layout, size: tuple[int, int], steps: int) -> Image.Image:
    """One row per phrase, one column per traced step, every row on its own scale, with the phrase's boxes.

    Args:
        maps: `[k h w]` by step index, one map per phrase of the layout, in order.
        size: width and height of the image: maps are drawn in its proportions.
        steps: of the whole run, for the note at the foot.
    """
    phrases, indices = layout.phrases, sorted(maps)
    small, note = font(15), f"attention over {steps} steps; each row from 0 to its own maximum"
    widths = _names_width(phrases), ceil(small.getlength(note))
    grid = _Grid(len(indices), len(phrases), _cell(size, len(indices)), *widths)
    picture = Image.new("RGB", grid.size, PAPER)
    draw = ImageDraw.Draw(picture)
    for column, index in enumerate(indices):
        x, y = grid.at(0, column)
        draw.text((x + grid.cell[0] // 2, y - GAP), str(index + 1), fill=INK, font=small, anchor="ms")
    draw.text((GAP, grid.head - GAP), "step", fill=INK, font=small, anchor="ls")
    colours = colours_of(layout)
    for row, phrase in enumerate(phrases):
        colour = colours[phrase.casefold()]
        _draw_name(draw, grid, row, phrase, colour)
        regions = Layout(layout.of(phrase)).boxed
        _draw_row(picture, grid, row, [maps[index][row] for index in indices], regions, colour)
    draw.text((GAP, grid.size[1] - GAP - 2), note, fill=(90, 90, 90), font=small, anchor="ls")
    return picture


def _cell(size: tuple[int, int], columns: int) -> tuple[int, int]:
    """Width and height of one map: its shorter side between `CELL_SIDES`, in the proportions of the image (4:1 at most)."""
    low, high = CELL_SIDES
    short = max(low, min(high, CELLS_WIDTH // max(1, columns)))
    width, height = (short * side / min(size) for side in size)
    return round(min(width, 4 * short)), round(min(height, 4 * short))


def _names_width(phrases: Iterable[str]) -> int:
    every = (lettering(phrase, number, NAME_SIZE) for number, phrase in enumerate(phrases, 1))
    longest = max((written.font.getlength(written.text) for written in every), default=0)
    return max(48, min(170, ceil(longest) + 14))


def _draw_name(draw: ImageDraw.ImageDraw, grid: _Grid, row: int, phrase: str, colour: Colour) -> None:
    """The phrase beside its row, in as many lines as fit, with a strip in its colour."""
    _, top = grid.at(row, 0)
    written, line = lettering(phrase, row + 1, NAME_SIZE), 22
    lines = wrapped(written.text, written.font, grid.names - 12, max(1, grid.cell[1] // line))
    draw.rectangle((GAP, top, GAP + 5, top + grid.cell[1] - 1), fill=colour, outline=INK)
    y = top + (grid.cell[1] - line * len(lines)) // 2
    for i, text in enumerate(lines):
        draw.text((GAP + 12, y + i * line), text, fill=INK, font=written.font)


def heat(values: Floats, top: float, size: tuple[int, int]) -> Image.Image:
    """A map `[h w]` from dark at 0 to bright at `top`, cell by cell, as a picture of `size` (width, height)."""
    levels = (np.clip(values / top, 0, 1) * 255 if top > 0 else np.zeros_like(values)).round().astype(np.uint8)
    return ImageOps.colorize(Image.fromarray(levels), COLD, HOT, WARM).resize(size, Image.Resampling.NEAREST)


def _draw_row(
    picture: Image.Image, grid: _Grid, row: int, maps: Sequence[Floats], regions: Sequence[Region], colour: Colour
) -> None:
    finite = [np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0) for values in maps]
    top = max((float(values.max()) for values in finite), default=0.0)
    for column, values in enumerate(finite):
        corner = grid.at(row, column)
        picture.paste(heat(values, top, grid.cell), corner)
        for region in regions:
            draw_region(picture, region, colour, 2, grid.cell, corner)
