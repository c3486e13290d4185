"""How images and numbers are shown in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image, ImageDraw

from ..layout.image_files import encode_picture, packed
from ..layout.regions import Layout, Region

COLOURS = ("#e6194b", "#4363d8", "#3cb44b", "#f58231", "#911eb4", "#008080")
GAP, TITLE = 4, 16  # pixels


def sheet_of(lines: Sequence[Sequence[Image.Image]], titles: Sequence[str] = ()) -> Image.Image:
    """Images side by side, line by line, each line under its title."""
    above = TITLE if titles else 0
    heights = [max(image.height for image in line) + above + GAP for line in lines]
    widths = [sum(image.width + GAP for image in line) for line in lines]
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths += [int(probe.textlength(title)) + GAP for title in titles]
    sheet = Image.new("RGB", (max(widths) - GAP, sum(heights) - GAP), "white")
    top = 0
    for number, line in enumerate(lines):
        if titles:
            ImageDraw.Draw(sheet).text((0, top), titles[number], fill="black")
        left = 0
        for image in line:
            sheet.paste(image, (left, top + above))
            left += image.width + GAP
        top += heights[number]
    return sheet


def html_image(image: Image.Image, layout: Layout, caption: str) -> str:
    """An image with its boxes over it, as HTML that needs no other file."""
    width, height = image.size
    places = [_rectangle(region, COLOURS[number % len(COLOURS)], image.size) for number, region in enumerate(layout.boxed)]
    shown = max(width, 256)
    return (
        f'<figure style="display:inline-block;margin:4px"><svg viewBox="0 0 {width} {height}" width="{shown}" '
        f'style="image-rendering:auto"><image width="{width}" height="{height}" '
        f'href="{packed(encode_picture(image))}"/>{"".join(places)}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _rectangle(region: Region, colour: str, size: tuple[int, int]) -> str:
    box = region.box
    if box is None:
        return ""
    left, top, right, bottom = box.left * size[0], box.top * size[1], box.right * size[0], box.bottom * size[1]
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"><title>{escape(region.phrase)}</title></rect>'
    )


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; columns in the order of their first mention."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{escape(_shown(row.get(column)))}</td>" for column in columns) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
