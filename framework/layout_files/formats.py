"""Layouts in files: what is read, what is written, and which format it is.

| format    | what it is                                                                              | read | written |
|-----------|-----------------------------------------------------------------------------------------|------|---------|
| `lsregen` | JSON: an item, or a list of them                                                        | yes  | yes     |
| `jsonl`   | one item a line: a file of prompts                                                      | yes  | yes     |
| `pixels`  | as `lsregen`, with boxes in pixels of `size`, and `"unit": "pixels"`                    | yes  | yes     |
| `coco`    | COCO instances, one image an item (`coco_instances.py`)                                 | yes  | no      |
| `yolo`    | a file of YOLO labels, or a folder of them (`yolo.py`)                                  | yes  | no      |
| `nsr1k`   | NSR-1K (LayoutGPT, Feng et al. 2023), spatial or counting                               | yes  | no      |
| `gligen`  | GLIGEN's `phrases` and `locations`; layout-guidance's `phrases` (`a; b`) and `bboxes`   | yes  | no      |

An item is a mapping:

    {"prompt": "a red circle and a dog", "boxes": {"red circle": [0.05, 0.1, 0.45, 0.6]}, "seed": 7}

- `prompt`, `negative`: texts. `seed`: a whole number. `size`: [width, height] in pixels. `name`: a text.
- Where things stand, in one of three ways: `boxes`, a mapping from phrases to a box or a list of boxes; `regions`, a list of
  `{"phrase": ..., "box": [left, top, right, bottom]}`, or with `"mask"` instead of the box: rows of numbers, or the name of a PNG
  file beside this one; `layout`, a mapping with `regions` (what `Layout.to_json` gives). A region may have an `"image"` too, the
  name of a picture beside this one that shows what shall be there.
- `unit`: `fractions` of the image, from the top left corner (what is meant if nothing is said), or `pixels`.

All but `prompt` may be missing. Boxes survive every conversion to 1e-9 of the image's side: files hold all digits.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ..config.arguments import checked
from ..errors import ConfigError, LayoutError, nearest, shown, told_of
from ..files import is_folder, write_whole
from ..layout.image_files import DATA, encode_picture
from ..layout.masks import encode_mask, mask_of_rows, mask_of_text, read_mask
from ..layout.region_images import picture_of_text, read_picture
from ..layout.regions import CORNERS, Box, Layout, Region
from .coco_instances import ANNOTATED, mentioned, read_coco, xywh_box
from .format_signs import LISTS, PLACES, recognise
from .item import (
    Item,
    Items,
    Reading,
    Size,
    check_format,
    entries_of,
    fields,
    four,
    parse_json,
    read_text,
    size_of,
    text_of,
    whole,
)
from .yolo import read_yolo

MASK_FORM = "PHRASE=FILE.png"
SETTINGS = ("name", "prompt", "negative", "seed", "size")
ITEM_KEYS = (*SETTINGS, "unit", *PLACES)
UNITS = ("fractions", "pixels")
NSR1K_KEYS = ("id", "image_id", "prompt", "type", "sub-type", "obj1", "obj2", "relation", "num_object", "object_list")
XYXY = ", ".join(CORNERS)
NO_REFERENCE = "a box of zeros: no reference layout"


@checked
def read_layouts(
    path: str | Path,
    format: str | None = None,
    *,
    size: Size | None = None,
    classes: str | Path | None = None,
    on_bad_box: str = "error",
    empty: bool = True,
    masks: bool = False,
) -> Items:
    """Read a file of layouts, or a folder of YOLO labels.

    Args:
        format: one of `FORMATS`; None to tell it from the content.
        size: (width, height) in pixels of the images of which the file does not say it.
        classes: the file that names YOLO's classes; by default `classes.txt` or `data.yaml` beside the labels.
        on_bad_box: what to do with a box that is empty, swapped or outside of the image: `error`, or `drop` the box, keep its
            phrase without a place, and report it in `dropped`. A box of COCO's whose category the caption does not name, or not
            as often as there are boxes, is dropped with its phrase. NSR-1K's boxes of zeros are always dropped and reported: they
            say that there is no reference.
        empty: whether images of COCO and YOLO without a caption and without objects are kept; else they are left out, and
            reported in `dropped`.
        masks: of COCO: read each object's segmentation as its mask, in place of its box; needs the extra `[eval]`.

    Raises:
        LayoutError: a file, key, value or box that cannot be used; names the file, the entry (or line) and the value.
        ConfigError: no such format or policy, a size below 1, or masks of a format other than COCO's or without their extra.
    """
    reading = Reading(Path(path), size, Path(classes) if classes is not None else None, on_bad_box, masks)
    items, format = open_layouts(reading, format, empty=empty)
    return Items(tuple(items), format, tuple(reading.dropped))


def open_layouts(reading: Reading, format: str | None = None, *, empty: bool = True) -> tuple[Iterable[Item], str]:
    """The items of a file, each read when it is asked for, and the format. As `read_layouts`; raises then or now."""
    check_format(format, READERS)
    folder = is_folder(reading.path)
    if folder and format not in (None, "yolo"):
        raise LayoutError(f"{reading.path}: a folder; {format} is a file")
    text = "" if folder else read_text(reading.path)
    format = "yolo" if folder else format or recognise(reading, text, READERS)
    if reading.masks and format != "coco":
        raise ConfigError(f"{reading.path}: masks: only coco has segmentations, and this file is {format}; read it without masks")
    items = READERS[format](reading, text)
    return items if empty or format not in ANNOTATED else reading.asking(items), format


def encode_layouts(path: str | Path, items: Sequence[Item], format: str) -> dict[Path, bytes]:
    """The files that hold the items, as bytes; nothing is written.

    `path` is the first file. Masks become PNG files beside it where 8 or 16 bits keep all of their values.

    Raises:
        ConfigError: no such format to write, or an item needs a size.
        LayoutError: there are no items.
    """
    check_format(format, WRITERS)
    if not items:
        raise LayoutError(f"{path}: there are no items to write")
    files: dict[Path, bytes] = {Path(path): b""}
    files[Path(path)] = WRITERS[format](files, Path(path), items)
    return files


@checked
def write_layouts(path: str | Path, items: Sequence[Item], format: str) -> tuple[Path, ...]:
    """Write the items over what was there; returns the files. Raises as `encode_layouts`, and OSError."""
    written = encode_layouts(path, items, format)
    for file, data in written.items():
        write_whole(file, [data])
    return tuple(written)


def _read_json(reading: Reading, text: str, unit: str = "fractions") -> Iterator[Item]:
    data = reading.parsed(text)
    many = isinstance(data, list)
    for i, entry in enumerate(cast("list[object]", data) if many else [data], 1):
        yield _item(reading, entry, f"{reading.path}, item {i}" if many else str(reading.path), unit)


def _read_lines(reading: Reading, text: str) -> Iterator[Item]:
    lines = [(f"{reading.path}, line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise LayoutError(f'{reading.path}: no lines; expected one item a line, such as {{"prompt": "a dog"}}')
    for where, line in lines:
        yield _item(reading, parse_json(line, where), where, "fractions")


def _item(reading: Reading, data: object, where: str, unit: str) -> Item:
    """An item of our own JSON; see the beginning of this file."""
    entry = fields(data, where, ITEM_KEYS)
    places = [key for key in PLACES if key in entry]
    if len(places) > 1:
        raise LayoutError(f"{where}: both {places[0]!r} and {places[1]!r}; give one of them")
    unit = text_of(entry, "unit", where, unit)
    if unit not in UNITS:
        raise LayoutError(f"{where}: unit {unit!r}: expected one of {', '.join(UNITS)}{nearest(unit, UNITS)}")
    size = _size(reading, entry, where)
    if unit == "pixels" and places and size is None:
        raise LayoutError(f'{where}: boxes in pixels without a size; expected "size": [width, height] there (or --size)')
    scale = size if unit == "pixels" else None
    return _made(entry, where, size, [_region(reading, place, at, scale) for at, place in _places(entry, where)])


def _size(reading: Reading, entry: Mapping[str, Any], where: str) -> Size | None:
    return size_of(entry["size"], where) if "size" in entry else reading.size


def _made(entry: Mapping[str, Any], where: str, size: Size | None, regions: Iterable[Region]) -> Item:
    """An item of the settings of an entry, and of the regions that were read of it."""
    seed = whole(entry["seed"], where, "seed") if "seed" in entry else None
    texts = [text_of(entry, key, where) for key in ("prompt", "negative", "name")]
    try:
        return Item(texts[0], Layout(tuple(regions)), texts[1], seed, size, texts[2] or None)
    except LayoutError as error:
        raise LayoutError(f"{where}: {error}") from None


def _places(entry: Mapping[str, Any], where: str) -> list[tuple[str, object]]:
    """What `boxes`, `regions` or `layout` say, as regions, each with its position."""
    if "boxes" in entry:
        if not isinstance(entry["boxes"], dict):
            raise LayoutError(f"{where}, boxes: expected a mapping from phrases to boxes, got {type(entry['boxes']).__name__}")
        boxes = cast("dict[str, object]", entry["boxes"])
        pairs = [(phrase, box) for phrase, value in boxes.items() for box in _one_or_many(value)]
        return [(f"{where}, box {i}", {"phrase": phrase, "box": box}) for i, (phrase, box) in enumerate(pairs, 1)]
    if "layout" in entry:
        entry = fields(entry["layout"], f"{where}, layout", ("regions",), ("regions",))
    return [(f"{where}, region {i}", place) for i, place in enumerate(entries_of(entry.get("regions", []), where), 1)]


def _one_or_many(value: object) -> list[object]:
    many = cast("list[object]", value) if isinstance(value, list) else []
    return many if many and all(isinstance(box, list) for box in many) else [value]


def _region(reading: Reading, place: object, where: str, scale: Size | None) -> Region:
    entry = fields(place, where, ("phrase", "box", "mask", "image"), ("phrase",))
    phrase = text_of(entry, "phrase", where)
    if "image" in entry:
        return _shown(reading, entry, where, scale)
    if "mask" in entry and "box" in entry:
        raise LayoutError(f"{where} ({phrase!r}): both a box and a mask; give one of them")
    if "mask" in entry:
        return _masked(reading, phrase, entry["mask"], where)
    if "box" not in entry:
        return reading.region(where, phrase)
    with told_of(f"{where} ({phrase!r})"):  # no box at all is an error of the file, whatever the policy
        corners = four(entry["box"], XYXY)
    return reading.region(where, phrase, partial(Box.from_pixels, corners, scale) if scale else partial(Box, *corners))


def _shown(reading: Reading, entry: Mapping[str, Any], where: str, scale: Size | None) -> Region:
    """A region with an image; the image goes where its box goes, if that cannot be used."""
    region = _region(reading, {key: value for key, value in entry.items() if key != "image"}, where, scale)
    given = entry["image"]
    try:
        if not isinstance(given, str):
            raise LayoutError(f"image {shown(given)}: expected the name of a picture's file")
        image = picture_of_text(given) if given.startswith(DATA) else read_picture(reading.path.parent / given)
        placed = region.box is not None or region.mask is not None
        return region if not placed and "box" in entry else replace(region, image=image)
    except LayoutError as error:
        raise LayoutError(f"{where} ({region.phrase!r}): {error}") from None


def _masked(reading: Reading, phrase: str, mask: object, where: str) -> Region:
    where = f"{where} ({phrase!r})"
    try:
        if isinstance(mask, str):
            values = mask_of_text(mask) if mask.startswith(DATA) else read_mask(reading.path.parent / mask)
        else:
            values = mask_of_rows(mask)
        return Region(phrase, mask=values)
    except LayoutError as error:
        raise type(error)(f"{where}: {error}") from None


def _read_nsr1k(reading: Reading, text: str) -> Iterator[Item]:
    """NSR-1K: boxes are left, top, width, height in fractions; phrases are objects' names, as `mentioned`."""
    for i, data in enumerate(entries_of(reading.parsed(text), str(reading.path)), 1):
        where = f"{reading.path}, entry {i}"
        entry = fields(data, where, NSR1K_KEYS, ("prompt",))
        prompt = text_of(entry, "prompt", where)
        pairs = [entry[key] for key in ("obj1", "obj2") if key in entry]
        pairs = pairs or entries_of(entry.get("object_list"), f"{where}, object_list")
        named: list[tuple[str, object]] = []
        for j, pair in enumerate(pairs, 1):
            name, box = (*cast("list[object]", pair), None, None)[:2] if isinstance(pair, list) else (None, None)
            if not isinstance(name, str):
                raise LayoutError(f"{where}, object {j}: {shown(cast('object', pair))}: expected a name and a box")
            named.append((name, box))
        regions: list[Region] = []
        phrases = mentioned([name for name, _ in named], prompt)
        for j, ((name, box), phrase) in enumerate(zip(named, phrases, strict=True), 1):
            at = f"{where}, object {j}"
            if unknown := box == [0, 0, 0, 0]:
                reading.drop(f"{at} ({name!r})", "box", NO_REFERENCE)
            regions.append(reading.region(at, phrase, None if unknown else partial(xywh_box, box, (1, 1))))
        yield Item(prompt, Layout(tuple(regions)), size=reading.size, name=str(entry["id"]) if "id" in entry else None)


def _read_gligen(reading: Reading, text: str) -> Iterator[Item]:
    """Phrases beside their boxes (or each one's list of boxes), left, top, right, bottom in fractions."""
    data = reading.parsed(text)
    many = isinstance(data, list)
    for i, each in enumerate(cast("list[object]", data) if many else [data], 1):
        where = f"{reading.path}, item {i}" if many else str(reading.path)
        entry = fields(each, where, (*SETTINGS, *LISTS), ("phrases",))
        phrases = entry["phrases"].split(";") if isinstance(entry["phrases"], str) else entries_of(entry["phrases"], where)
        if ("locations" in entry) == ("bboxes" in entry):
            raise LayoutError(f"{where}: expected one of 'locations' and 'bboxes' beside 'phrases'")
        boxes = entries_of(entry.get("locations", entry.get("bboxes")), where)
        if len(boxes) != len(phrases):
            raise LayoutError(f"{where}: {len(phrases)} phrases and {len(boxes)} places; expected as many")
        pairs = [(phrase, box) for phrase, value in zip(phrases, boxes, strict=True) for box in _one_or_many(value)]
        places = [(f"{where}, box {j}", {"phrase": phrase, "box": box}) for j, (phrase, box) in enumerate(pairs, 1)]
        yield _made(entry, where, _size(reading, entry, where), [_region(reading, place, at, None) for at, place in places])


def _entry(files: dict[Path, bytes], path: Path, item: Item, number: int, unit: str) -> dict[str, Any]:
    """An item as our own JSON; masks that a PNG file keeps exactly are put beside it, into `files`."""
    if unit == "pixels" and item.size is None:
        raise ConfigError(f"item {number} has no size, and pixels needs one; give it (--size WxH, or size=(width, height))")
    entry: dict[str, Any] = {key: getattr(item, key) for key in SETTINGS if getattr(item, key) not in (None, "")}
    if unit == "pixels":
        entry["unit"] = unit
    entry |= item.layout.to_json()
    for i, (region, place) in enumerate(zip(item.layout.regions, entry["regions"], strict=True), 1):
        if region.box is not None and unit == "pixels" and item.size is not None:
            place["box"] = [value * side for value, side in zip(region.box.xyxy, item.size * 2, strict=True)]
        data = encode_mask(region.mask) if region.mask is not None else None
        if data is not None:
            place["mask"] = f"{path.stem}-{number}-{i}.png"
            files[path.with_name(place["mask"])] = data
        if region.image is not None:
            place["image"] = f"{path.stem}-{number}-{i}-image.png"
            files[path.with_name(place["image"])] = encode_picture(region.image)
    return entry


def _write_json(files: dict[Path, bytes], path: Path, items: Sequence[Item], unit: str = "fractions") -> bytes:
    entries = [_entry(files, path, item, i, unit) for i, item in enumerate(items, 1)]
    if len(entries) > 1:
        return ("[\n" + ",\n".join(map(_dumped, entries)) + "\n]\n").encode()
    regions = entries[0].pop("regions")  # for people: a line for each region
    lines = [f"{_dumped(key)}: {_dumped(value)}" for key, value in entries[0].items()]
    inner = ",\n".join(f"    {_dumped(region)}" for region in regions)
    return ("{\n" + "".join(f"  {line},\n" for line in lines) + f'  "regions": [\n{inner}\n  ]\n}}\n').encode()


def _write_lines(files: dict[Path, bytes], path: Path, items: Sequence[Item]) -> bytes:
    return "".join(_dumped(_entry(files, path, item, i, "fractions")) + "\n" for i, item in enumerate(items, 1)).encode()


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


READERS: Mapping[str, Callable[[Reading, str], Iterable[Item]]] = MappingProxyType(
    {
        "lsregen": _read_json,
        "jsonl": _read_lines,
        "pixels": partial(_read_json, unit="pixels"),
        "coco": read_coco,
        "yolo": read_yolo,
        "nsr1k": _read_nsr1k,
        "gligen": _read_gligen,
    }
)
WRITERS: Mapping[str, Callable[[dict[Path, bytes], Path, Sequence[Item]], bytes]] = MappingProxyType(
    {
        "lsregen": _write_json,
        "jsonl": _write_lines,
        "pixels": partial(_write_json, unit="pixels"),
    }
)


@checked
def mask_region(text: str) -> Region:
    """A region from the command line's `red circle=circle.png`.

    Phrases and paths may hold `=` too: the last one that a file follows parts them, and without such a file the last of all.

    Raises:
        LayoutError: the text is malformed, or the mask cannot be used; quotes the text and the expected form.
    """
    signs = [match.start() for match in re.finditer("=", text)] or [0]
    at = next((i for i in reversed(signs) if os.path.isfile(text[i + 1 :])), signs[-1])
    phrase, file = text[:at], text[at + 1 :]
    if not phrase.strip() or not file.strip():
        raise LayoutError(f"mask {text!r}: expected {MASK_FORM}, such as 'red circle=circle.png'")
    try:
        return Region(phrase, mask=read_mask(file))
    except LayoutError as error:
        raise type(error)(f"mask {text!r}, of the form {MASK_FORM}: {error}") from None
