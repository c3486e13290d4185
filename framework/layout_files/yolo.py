"""YOLO labels as layouts: a file of boxes for each image, and the names of the classes beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from ..errors import LayoutError, told_of
from ..files import is_file, is_folder
from ..layout.regions import Box, Layout
from .coco_instances import compose
from .item import Item, Reading, read_text

CLASSES = "classes.txt"
NEIGHBOURS = (CLASSES, "data.yaml", "data.yml")
EXPECTED = "expected a class and four numbers (centre x, centre y, width, height)"
SHOWN = 80  # characters of a line, in an error


def read_yolo(reading: Reading, text: str) -> Iterator[Item]:
    """YOLO labels: `class centre-x centre-y width height` in fractions, one object a line; an item a file, or a folder of them.

    A file without objects is a background. The names of the classes come from the file that was given, else from `classes.txt`
    or `data.yaml` beside the labels or in the folder above.
    """
    if not is_folder(reading.path):
        yield _yolo_item(reading, reading.path, text, _classes(reading, reading.path.parent))
        return
    names = _classes(reading, reading.path)
    given = reading.classes.resolve() if reading.classes is not None else None
    found = [path for path in sorted(reading.path.glob("*.txt")) if path.name != CLASSES and path.resolve() != given]
    if not found:
        raise LayoutError(f"{reading.path}: no .txt files in this folder; expected YOLO labels, one file for each image")
    for path in found:
        yield _yolo_item(reading, path, read_text(path), names)


def _yolo_item(reading: Reading, path: Path, text: str, classes: Mapping[int, str]) -> Item:
    rows = [(f"{path}, line {i}", line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    names = [_name(parts[0], where, classes) for where, parts in rows]
    with told_of(str(path)):
        prompt, phrases = compose(names)
    regions = [
        reading.region(where, phrase, partial(_box, reading, where, parts[1:]))
        for (where, parts), phrase in zip(rows, phrases, strict=True)
    ]
    return Item(prompt, Layout(tuple(regions)), size=reading.size, name=path.stem)


def _name(written: str, where: str, classes: Mapping[int, str]) -> str:
    number = _number(written)
    if number is None or number != number // 1:
        raise LayoutError(f"{where}: class {written[:SHOWN]!r}: expected its number, counted from 0")
    if number not in classes:
        raise LayoutError(f"{where}: class {written[:SHOWN]}: expected one of the {len(classes)} named classes, counted from 0")
    return classes[int(number)]


def _box(reading: Reading, where: str, written: Sequence[str]) -> Box:
    """The box of a line: four numbers; a fifth is a detector's confidence, and more are a polygon.

    Raises:
        LayoutError: anything but four numbers; a confidence is left out where the policy allows it.
    """
    numbers = [number for each in written if (number := _number(each)) is not None]
    if len(numbers) != len(written) or len(numbers) < 4:
        raise LayoutError(f"{' '.join(written)[:SHOWN]!r}: {EXPECTED}")
    if len(numbers) == 5:
        reading.refuse(where, "confidence", f"a detector's confidence {numbers[4]:g} behind the box: {EXPECTED}")
    elif len(numbers) > 5:
        raise LayoutError(f"a polygon of {len(numbers) // 2} points: lsregen reads YOLO's boxes; {EXPECTED}")
    return Box.from_yolo(numbers[:4])


def _number(written: str) -> float | None:
    try:
        number = float(written)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _classes(reading: Reading, folder: Path) -> dict[int, str]:
    """The names of the classes by number, from the file that was given or the only one near."""
    if reading.classes is not None:
        return class_names(reading.classes)
    for place in (folder, folder.absolute().parent):
        found = [place / name for name in NEIGHBOURS if is_file(place / name)]
        if len(found) > 1:
            raise LayoutError(f"{place}: {found[0].name} and {found[1].name} both name classes; say which one holds (--classes)")
        if found:
            return class_names(found[0])
    raise LayoutError(f"{reading.path}: no {' or '.join(NEIGHBOURS[:2])} beside it; say which file names the classes (--classes)")


def class_names(path: Path) -> dict[int, str]:
    """The names in a file of classes: one a line, or `names` in YAML, as a list or by number.

    Raises:
        LayoutError: unreadable, or not names; ConfigError: not YAML.
    """
    if path.suffix in (".yaml", ".yml"):
        from ..config.yaml_text import load_yaml

        names = cast("object", load_yaml(path).get("names"))
        pairs: list[tuple[object, object]] = list(enumerate(cast("list[object]", names))) if isinstance(names, list) else []
        pairs = list(cast("dict[object, object]", names).items()) if isinstance(names, dict) else pairs
    else:
        pairs = list(enumerate(cast("list[object]", read_text(path).rstrip().split("\n"))))
    if not pairs:
        raise LayoutError(f"{path}: no names of classes; expected a list under 'names'")
    found: dict[int, str] = {}
    for key, name in pairs:
        number = int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,6}", key) else key
        if type(number) is not int:
            raise LayoutError(f"{path}: class {key!r} ({name!r}): expected its number, such as 0")
        if not isinstance(name, str) or not name.strip():
            said = "; YAML reads yes, no, on and off as true and false: put the name in quotes" if isinstance(name, bool) else ""
            raise LayoutError(f"{path}: class {number}: {name!r}: expected a name{said}")
        if number in found:
            raise LayoutError(f"{path}: class {number} stands twice; expected one name for each number")
        found[number] = " ".join(name.split())
    return found
