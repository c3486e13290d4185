"""Which format a layout file has, told by its content."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from ..errors import LayoutError
from .item import Reading

PLACES = ("boxes", "regions", "layout")
LISTS = ("phrases", "locations", "bboxes")


def recognise(reading: Reading, text: str, known: Iterable[str]) -> str:
    """The format of a file by its content, one of those `known`; only lines of prompts are told by the ending `.jsonl`.

    Raises:
        LayoutError: none fits or several do.
    """
    path = reading.path
    if path.suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and all(re.fullmatch(r"\s*[\d.]+(\s+[-+.\deE]+){4,}\s*", line) for line in lines):
        return "yolo"
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        return "jsonl"
    if not lines or lines[0].lstrip()[0] not in "{[":
        raise LayoutError(f"{path}: cannot tell its format; {_name_it(known)}")
    data = reading.parsed(text, again=True)
    first = (*cast("list[object]", data), None)[0] if isinstance(data, list) else cast("object", data)
    keys = set(cast("dict[str, object]", first)) if isinstance(first, dict) else set[str]()
    in_pixels = bool(keys) and cast("dict[str, object]", first).get("unit") == "pixels"
    signs = {
        "coco": isinstance(data, dict) and {"images", "annotations"} <= keys,
        "nsr1k": bool(keys & {"obj1", "object_list"}),
        "gligen": bool(keys & set(LISTS)),
        "pixels": in_pixels,
        "lsregen": not in_pixels and bool(keys & set(PLACES)),
    }
    found = [name for name, fits in signs.items() if fits] or ["lsregen"] * ("prompt" in keys)
    if len(found) != 1:
        problem = f"could be {' or '.join(found)}" if found else "cannot tell its format"
        raise LayoutError(f"{path}: {problem}; {_name_it(known)}")
    return found[0]


def _name_it(known: Iterable[str]) -> str:
    return (
        'lsregen\'s own is {"prompt": "a red circle", "boxes": {"red circle": [0.1, 0.1, 0.6, 0.6]}}; if it is another, name it '
        f"(format=, or lsregen layout convert --from): {', '.join(known)}"
    )
