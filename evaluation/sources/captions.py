"""Captions of images, by the ids of the images: read from JSON lines or from COCO's captions.

A line is a mapping with the `id` of an image, as its annotation file has it, and the `caption`; `question` may say what the
caption was an answer to. The package lsregen-captions writes such lines.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ...framework.errors import LayoutError
from ...framework.layout_files.item import entries_of, fields, parse_json, read_text, text_of

KEYS = ("id", "caption", "question")


def read_captions(path: Path) -> dict[int | str, str]:
    """The caption of each image, the first one if COCO has several.

    Raises:
        LayoutError: not such a file, an empty caption, or, in JSON lines, two of one image.
    """
    text = read_text(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return parse_lines(path, text)
    data = fields(parse_json(text, str(path)), str(path), None, ("annotations",))
    found: dict[int | str, str] = {}
    annotations = entries_of(data["annotations"], f"{path}, annotations")
    keys = {key for each in annotations if isinstance(each, dict) for key in cast("dict[str, object]", each)}
    if "bbox" in keys and "caption" not in keys:
        raise LayoutError(
            f"{path}: a file of instances, without any caption; expected COCO's captions (captions_*.json) or JSON lines, and "
            "instances as the FILE of lsregen evaluate plan coco FILE"
        )
    for i, entry in enumerate(annotations, 1):
        where = f"{path}, annotation {i}"
        annotation = fields(entry, where, None, ("image_id", "caption"))
        found.setdefault(_id(annotation["image_id"], where), _caption(text_of(annotation, "caption", where), where))
    return found


def parse_lines(path: Path, text: str) -> dict[int | str, str]:
    """The caption of each image in JSON lines; raises as `read_captions`."""
    found: dict[int | str, str] = {}
    for i, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {i}"
        entry = fields(parse_json(line, where), where, KEYS, KEYS[:2])
        image = _id(entry["id"], where)
        if image in found:
            raise LayoutError(f"{where}: image {image!r} has a caption already; expected one for each image")
        found[image] = _caption(text_of(entry, "caption", where), where)
    return found


def _id(value: object, where: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise LayoutError(f"{where}: id {value!r}: expected a whole number or a text, as in the annotations")
    return value


def _caption(text: str, where: str) -> str:
    if not text.strip():
        raise LayoutError(f"{where}: an empty caption; expected what the image shows")
    return " ".join(text.split())
