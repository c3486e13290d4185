"""A contact sheet: one row per scene, one column per method, the requested boxes drawn, so that a person can look."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from .benchmark import Row, image_path
from .render import render
from .scene import COLOURS, Scene

Colour: TypeAlias = tuple[int, int, int]

CELL_SIDE = 128  # the least shorter side of a picture on the sheet
TEXT_WIDTH, HEAD, GAP = 150, 24, 6
INK, PAPER = (20, 20, 20), (255, 255, 255)
MOST_ROWS = 24
TRUE = "as asked"


def contact_sheet(rows: Sequence[Row], folder: Path, most: int = MOST_ROWS) -> Image.Image:
    """The first scenes that all rows share, `most` of them at most, beside the true image of each.

    Args:
        rows: at least one, made with `images=True` in the `folder`.

    Raises:
        FileNotFoundError: an image is missing.
    """
    first = rows[0]
    shared = set(first.scenes.seeds).intersection(*(row.scenes.shared(first.scenes) for row in rows))
    lines: list[tuple[Scene, Mapping[str, Image.Image]]] = []
    for seed in sorted(shared)[:most]:
        scene = first.scenes.scene(seed)
        pictures = {TRUE: Image.fromarray(render(scene))}
        for row in rows:
            with Image.open(image_path(folder / "images" / row.name, seed)) as picture:
                pictures[row.contender.guidance] = picture.convert("RGB")
        lines.append((scene, pictures))
    return draw_sheet(lines)


def draw_sheet(lines: Sequence[tuple[Scene, Mapping[str, Image.Image]]]) -> Image.Image:
    """Scenes with their pictures by the name of the column; every scene has the same columns."""
    columns = list(lines[0][1]) if lines else []
    cell = _cell(lines[0][0]) if lines else (CELL_SIDE, CELL_SIDE)
    size = TEXT_WIDTH + len(columns) * (cell[0] + GAP), HEAD + len(lines) * (cell[1] + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, name in enumerate(columns):
        draw.text((TEXT_WIDTH + column * (cell[0] + GAP), GAP), _shortened(name, font, cell[0]), fill=INK, font=font)
    for number, (scene, pictures) in enumerate(lines):
        top = HEAD + number * (cell[1] + GAP)
        draw.multiline_text((GAP, top), "\n".join([f"seed {scene.seed}", *_words(scene)]), fill=INK, font=font)
        for column, name in enumerate(columns):
            left = TEXT_WIDTH + column * (cell[0] + GAP)
            sheet.paste(pictures[name].resize(cell, Image.Resampling.NEAREST), (left, top))
            _draw_boxes(draw, scene, (left, top), cell)
    return sheet


def _cell(scene: Scene) -> tuple[int, int]:
    """Width and height of a picture: enlarged pixel by pixel, never reduced."""
    factor = ceil(CELL_SIDE / min(scene.width, scene.height))
    return scene.width * factor, scene.height * factor


def _words(scene: Scene) -> list[str]:
    return [item.caption for item in scene.objects]


def _draw_boxes(draw: ImageDraw.ImageDraw, scene: Scene, corner: tuple[int, int], cell: tuple[int, int]) -> None:
    """Each object's box in the colour it should have, with a dark line around it: visible on any ground."""
    for item, (left, top, right, bottom) in zip(scene.objects, scene.boxes, strict=True):
        x0, y0 = corner[0] + round(left * cell[0]), corner[1] + round(top * cell[1])
        x1, y1 = corner[0] + round(right * cell[0]) - 1, corner[1] + round(bottom * cell[1]) - 1
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=INK)
        draw.rectangle((x0, y0, x1, y1), outline=_rgb(item.colour), width=2)


def _rgb(colour: str) -> Colour:
    hue, saturation, value = COLOURS[colour]
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
    return text
