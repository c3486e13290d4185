"""Lists of our own: JSON lines or CSV, or any file of layouts that lsregen reads.

JSON lines are those of `framework/layout_files/formats.py`, one item a line; they may also say what is expected of the image
(`expects`):

    {"name": "two-dogs", "prompt": "a dog left of a cat", "boxes": {"dog": [0.1, 0.2, 0.5, 0.9], "cat": [0.5, 0.4, 0.9, 0.9]},
     "seed": 7, "size": [512, 512], "expects": {"relations": [{"subject": "dog", "relation": "left of", "object": "cat"}]}}

CSV has a row for each box, in columns of these names, in any order; `name` and `prompt` must be there. Rows of one name are one
item, and stand together; what they say besides the box is said in the first of them, or in all alike. A row without a `phrase`
is an item without a layout. Boxes are fractions of the image, from its top left corner.

    name,prompt,negative,seed,width,height,phrase,left,top,right,bottom,category
    two-dogs,a dog left of a cat,,7,512,512,dog,0.1,0.2,0.5,0.9,dog
    two-dogs,,,,,,cat,0.5,0.4,0.9,0.9,cat
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ...framework.config.options import build
from ...framework.errors import ConfigError, LayoutError, nearest
from ...framework.files import is_file
from ...framework.layout_files.formats import ITEM_KEYS, READERS, open_layouts
from ...framework.layout_files.item import Reading, fields, parse_json, read_text
from ..runs.expects import Expects
from .base import Asked, Entry, Source, finished, whole

NAME = "list"
SIZES, CORNERS = ("width", "height"), ("left", "top", "right", "bottom")
COLUMNS = ("name", "prompt", "negative", "seed", *SIZES, "phrase", *CORNERS, "category")


def read(asked: Asked) -> Source:
    """The items of a list. An item without a name is called after its place; one with a bad box is an error or left out.

    Raises:
        LayoutError: a line, row or value that cannot be used; names the file and the line.
    """
    reading = asked.reading()
    if asked.file.suffix == ".csv":
        found = _entries(reading, _csv_lines(asked.file), asked.limit)
    elif asked.file.suffix in (".jsonl", ".ndjson"):
        found = _entries(reading, list(enumerate(read_text(asked.file).split("\n"), 1)), asked.limit)
    else:
        items = enumerate(reading.noting(open_layouts(reading, empty=False)[0]), 1)
        found = ((Entry(item.name or f"item-{i}", item), complete) for i, (item, complete) in items)
    entries = whole(asked, list(islice(found, asked.limit)), reading.dropped)
    files = [asked.file] if is_file(asked.file) else []
    return finished(NAME, asked, entries, dropped=reading.dropped, files=files, size="own")


def _entries(reading: Reading, lines: list[tuple[int, str]], limit: int | None) -> Iterator[tuple[Entry, bool]]:
    """The reader of JSON lines reads each in its place, less what is expected; none behind the limit is looked at."""
    left, expected = [""] * lines[-1][0], list[tuple[int, Expects]]()
    for number, line in islice(((number, line) for number, line in lines if line.strip()), limit):
        where = f"{reading.path}, line {number}"
        data: object = parse_json(line, where)
        is_item = isinstance(data, dict)
        entry = fields(cast("object", data), where, (*ITEM_KEYS, "expects")) if is_item else {}
        expected.append((number, _expects(entry.pop("expects"), where) if "expects" in entry else Expects()))
        left[number - 1] = json.dumps(entry) if is_item else line
    items = reading.noting(READERS["jsonl"](reading, "\n".join(left)))
    for (item, complete), (number, expects) in zip(items, expected, strict=True):
        yield Entry(item.name or f"line-{number}", item, expects), complete


def _expects(given: object, where: str) -> Expects:
    try:
        if not isinstance(given, Mapping):
            raise ConfigError(f"expects: {given!r} is not a mapping")
        return build(Expects, cast("Mapping[str, Any]", given), "expects", "what is expected")
    except ConfigError as error:
        raise LayoutError("\n".join(f"{where}, {fault}" for fault in str(error).split("\n"))) from None


def _csv_lines(path: Path) -> list[tuple[int, str]]:
    """The items of a CSV file as JSON lines, each with the number of its first row's line."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), restkey="", strict=True)
    try:
        return _csv_items(path, rows)
    except csv.Error as error:
        raise LayoutError(f"{path}, line {rows.line_num + 1}: not a row of CSV ({error}); is a quote never closed?") from None


def _csv_items(path: Path, rows: csv.DictReader[str]) -> list[tuple[int, str]]:
    header = list(rows.fieldnames or ())
    if unknown := [name for name in header if name not in COLUMNS]:
        raise LayoutError(f"{path}: column {unknown[0]!r}: expected {', '.join(COLUMNS)}{nearest(unknown[0], COLUMNS)}")
    if missing := [name for name in COLUMNS[:2] if name not in header]:
        raise LayoutError(f"{path}: no column {missing[0]!r}; expected at least {' and '.join(COLUMNS[:2])}")
    if twice := [name for i, name in enumerate(header) if name in header[:i]]:
        raise LayoutError(f"{path}: the column {twice[0]!r} stands twice; expected each once")
    items: dict[str, tuple[int, dict[str, Any]]] = {}
    last = ""
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if "" in row:
            raise LayoutError(f"{where}: more values than the {len(header)} columns of the first line; quote commas in texts")
        values = {key: value.strip() for key, value in row.items() if value and value.strip()}
        name = values.get("name", "")
        if not name or (name in items and name != last):
            raise LayoutError(f"{where}: name {name!r}: expected one in each row, and rows of one name together")
        _, item = items.setdefault(name, (rows.line_num, {"name": name, "regions": [], "expects": {"classes": {}}}))
        last = name
        _add(item, values, where)
    if not items:
        raise LayoutError(f"{path}: no rows; expected an item or a box a row, below the names of the columns")
    return [(number, json.dumps(item)) for number, item in items.values()]


def _add(item: dict[str, Any], values: Mapping[str, str], where: str) -> None:
    """A row's share of its item."""
    said: dict[str, Any] = {key: values[key] for key in ("prompt", "negative") if key in values}
    if "seed" in values:
        said["seed"] = _number(values["seed"], int, where, "seed")
    if any(key in values for key in SIZES):
        said["size"] = [_number(values.get(key, ""), int, where, key) for key in SIZES]
    for key, value in said.items():
        if item.setdefault(key, value) != value:
            raise LayoutError(f"{where}: {key} {value!r}, and {item[key]!r} in a row above; expected one for each name")
    if "phrase" not in values:
        if odd := [key for key in (*CORNERS, "category") if key in values]:
            raise LayoutError(f"{where}: {odd[0]} without a phrase")
        return
    region: dict[str, Any] = {"phrase": values["phrase"]}
    if any(key in values for key in CORNERS):
        region["box"] = [_number(values.get(key, ""), float, where, key) for key in CORNERS]
    item["regions"].append(region)
    if "category" in values:
        item["expects"]["classes"][values["phrase"]] = values["category"]


def _number(text: str, kind: type[int] | type[float], where: str, key: str) -> int | float:
    try:
        number = float(text)
        if kind is float or not number.is_integer():
            return kind(text)
        return int(text) if text.lstrip("+-").isdigit() else int(number)  # 7.0 is a whole number
    except (ValueError, OverflowError):
        raise LayoutError(f"{where}: {key} {text!r}: expected a {'whole ' if kind is int else ''}number") from None
