"""Annotated pictures as layouts: COCO instances, YOLO labels, and prompts for categories that come without one.

Annotations name categories, prompts have phrases. A file without a caption gets the prompt `a dog and a cat`, and a category that
stands in it more than once is numbered: `dog#1` and `dog#2` (see `framework/tokens.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from .errors import ConfigError, LayoutError, PhraseError
from .items import Item, Reading, Size, Writing, entries_of, fields, four, parse_json, read_text, size_of, text_of
from .layout import Box, Layout, Region
from .matching import occurrences
from .tokens import TokenTable

CLASSES = "classes.txt"
NEIGHBOURS = (CLASSES, "data.yaml", "data.yml")
XYWH = "left, top, width, height"
Annotations: TypeAlias = Sequence[tuple[str, dict[str, Any]]]
"""Of an image: each with where it stands in its file."""
Select: TypeAlias = Callable[[Mapping[str, Any], Annotations], Annotations | None]
PLURALS = ((r"y$", "ies"), (r"fe?$", "ves"), (r"$", "s"), (r"$", "es"), (r"person$", "people"), (r"man$", "men"))


def compose(names: Sequence[str]) -> tuple[str, list[str]]:
    """A prompt of things, and the phrase of each of them, numbered where it occurs more than once.

    `["dog", "cat", "dog"]` gives `a dog, a cat and a dog`, with the phrases `dog#1`, `cat` and `dog#2`.
    """
    prompt, starts = "", list[int]()
    for i, name in enumerate(names):
        prompt += ("" if i == 0 else " and " if i == len(names) - 1 else ", ") + ("an " if name[:1] in "aeiouAEIOU" else "a ")
        starts.append(len(prompt))
        prompt += name
    return prompt, [_numbered(prompt, name, start) for name, start in zip(names, starts, strict=True)]


def _numbered(prompt: str, name: str, start: int) -> str:
    """How to call the occurrence of a name that begins at a character: `dog` also stands in `hot dog`, and is counted there."""
    table = TokenTable(prompt, ())
    for phrase in (name, *(f"{name}#{i}" for i in range(1, len(prompt)))):
        try:
            if table.locate(phrase)[0] == start:
                return phrase
        except PhraseError:
            if phrase != name:
                break
    raise PhraseError(f"category {name!r} cannot be told from other words of the prompt {prompt!r}; rename it, or give a caption")


def spoken(name: str, prompt: str) -> str:
    """The name as the prompt has it: itself, else its plural (`two dogs`), else itself all the same."""
    plurals = (re.sub(end, plural, name) for end, plural in PLURALS if re.search(end, name))
    return next((phrase for phrase in (name, *plurals) if occurrences(phrase, prompt)), name)


def told(names: Sequence[str], caption: str) -> list[str | None]:
    """What a caption calls each of the things; None where it does not say: no such words, or several and not one for each.

    Words that stand there as often as there are things of that name are numbered, in the order of the things: `dog#1` and `dog#2`
    in `a dog and a dog`. Words that stand there once may be several things: `two dogs`. An empty caption leaves the names.
    """
    found = [spoken(name, caption) for name in names]
    keys = [phrase.casefold() for phrase in found]
    result: list[str | None] = []
    for i, (phrase, key) in enumerate(zip(found, keys, strict=True)):
        times = len(occurrences(phrase, caption)) if caption else 1
        numbered = f"{phrase}#{keys[:i].count(key) + 1}" if times == keys.count(key) else None
        result.append(phrase if times == 1 else numbered)
    return result


@dataclass(frozen=True)
class Annotated:
    """An image of COCO's as an item, with the id that it has there and the category of each region of its layout."""

    id: int | str
    item: Item
    categories: tuple[str, ...]


def read_coco(reading: Reading, text: str) -> Iterator[Item]:
    """COCO instances, one item per image. As `read_annotated`."""
    return (image.item for image in read_annotated(reading, text))


def read_annotated(
    reading: Reading, text: str, captions: Mapping[int | str, str] = MappingProxyType({}), select: Select | None = None
) -> Iterator[Annotated]:
    """COCO instances, one item per image, with its first caption as the prompt where the file has captions.

    `bbox` is left, top, width, height in pixels; everything else that COCO says of an object is passed over, its segmentation
    too. Crowds are dropped at once, and reported; the objects of an image when it is asked for. A caption stands among
    the annotations or in the image; `phrase` in an annotation (lsregen writes it) goes before the category's name. Without it, a
    category that the caption does not name, or not as often as there are boxes, is an error; `drop` leaves the annotation out,
    and reports it.

    Args:
        captions: of images, by their ids, instead of the file's own.
        select: which of an image's annotations are kept, each with where it stands, once crowds are out; all by default. The
            function returns None to leave the image out.
    """
    where = str(reading.path)
    data = fields(parse_json(text, where), where, None, ("images", "annotations"))
    names = _categories(data.get("categories", []), where)
    images, found, said = dict[Any, dict[str, Any]](), dict[Any, list[tuple[str, dict[str, Any]]]](), dict[Any, str](captions)
    for i, entry in enumerate(entries_of(data["images"], f"{where}, images"), 1):
        image = fields(entry, f"{where}, image {i}", None, ("id",))
        if _key(image["id"], f"{where}, image {i}") in images:
            raise LayoutError(f"{where}, image {i}: id {image['id']!r} stands twice; expected a different one for each image")
        images[image["id"]], found[image["id"]] = image, []
        if "caption" in image:
            said.setdefault(image["id"], text_of(image, "caption", f"{where}, image {i}"))
    for i, entry in enumerate(entries_of(data["annotations"], f"{where}, annotations"), 1):
        at = f"{where}, annotation {i}"
        annotation = fields(entry, at, None, ("image_id",))
        if _key(annotation["image_id"], at) not in images:
            raise LayoutError(f"{at}: image_id {annotation['image_id']!r} is none of the {len(images)} images of the file")
        if "caption" in annotation:
            said.setdefault(annotation["image_id"], text_of(annotation, "caption", at))
        elif annotation.get("iscrowd"):
            reading.drop(at, "annotation", "a crowd; expected one object")
        else:
            found[annotation["image_id"]].append((at, annotation))
    chosen = {key: select(image, found[key]) if select else found[key] for key, image in images.items()}
    return (_annotated(reading, images[key], each, names, said.get(key)) for key, each in chosen.items() if each is not None)


def _key(value: object, where: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise LayoutError(f"{where}: id {value!r}: expected a whole number or a text")
    return value


def _categories(data: object, where: str) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for i, entry in enumerate(entries_of(data, f"{where}, categories"), 1):
        at = f"{where}, category {i}"
        category = fields(entry, at, None, ("id", "name"))
        if _key(category["id"], at) in names:
            raise LayoutError(f"{at}: id {category['id']!r} stands twice; expected a different one for each category")
        names[category["id"]] = " ".join(text_of(category, "name", at).split())
    return names


def _annotated(
    reading: Reading,
    image: Mapping[str, Any],
    annotations: Annotations,
    categories: Mapping[int | str, str],
    caption: str | None,
) -> Annotated:
    where = f"{reading.path}, image {image['id']!r}"
    known = "width" in image and "height" in image
    size = size_of([image["width"], image["height"]], where) if known else reading.size
    if size is None and annotations:
        raise LayoutError(f"{where}: no width and height; expected them beside its id, or a size for all (--size)")
    names: list[str] = []
    for at, annotation in annotations:
        if _key(annotation.get("category_id", ""), at) not in categories:
            raise LayoutError(f"{at}: category_id {annotation.get('category_id')!r} is none of the file's categories")
        names.append(categories[annotation["category_id"]])
    prompt, phrases = compose(names) if caption is None else (caption, told(names, caption))
    regions, kept = list[Region](), list[str]()
    for (at, annotation), name, phrase in zip(annotations, names, phrases, strict=True):
        box = partial(Box.from_xywh, four(annotation.get("bbox"), at, XYWH), size or (1, 1))
        if phrase is None and "phrase" not in annotation:
            _untold(reading, f"{at} ({name!r})", name, prompt, image["id"])
        else:
            regions.append(reading.region(at, text_of(annotation, "phrase", at, phrase or ""), box))
            kept.append(name)
    item = Item(prompt, Layout(tuple(regions)), size=size, name=text_of(image, "file_name", where) or None)
    return Annotated(image["id"], item, tuple(kept))


def _untold(reading: Reading, where: str, name: str, prompt: str, image: object) -> None:
    """An annotation of which the caption does not say what to call it: an error, or left out, as the policy says."""
    times = len(occurrences(spoken(name, prompt), prompt))
    why = f"the caption {prompt!r} of image {image!r} has " + (
        f"{spoken(name, prompt)!r} {times} times, and there is not one box for each" if times else "no such words"
    )
    if reading.on_bad_box == "error":
        cure = reading.dropping("leave it out")
        raise LayoutError(f"{where}: {why}; say which words are meant ('phrase' in the annotation), or {cure}")
    reading.drop(where, "annotation", why)


def write_coco(writing: Writing, items: Sequence[Item]) -> None:
    """COCO instances, with each prompt as its image's `caption`, and `phrase` where the category alone would not tell it."""
    images, annotations, categories = list[dict[str, Any]](), list[dict[str, Any]](), dict[str, int]()
    for i, item in enumerate(items, 1):
        width, height = sized(item, i, "coco")
        images.append({"id": i, "width": width, "height": height, "file_name": item.name or f"{i:06}", "caption": item.prompt})
        leave_out_settings(writing, item, i, "coco")
        for region, box in boxed(writing, item, i, "coco"):
            x, y, w, h = box.left * width, box.top * height, (box.right - box.left) * width, (box.bottom - box.top) * height
            name = category_of(region.phrase)
            number = categories.setdefault(name, len(categories) + 1)
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": number, "bbox": [x, y, w, h], "area": w * h}
            spoken_as = {} if told([name], item.prompt) == [region.phrase] else {"phrase": region.phrase}
            annotations.append(entry | {"iscrowd": 0} | spoken_as)
    known = [{"id": number, "name": name} for name, number in categories.items()]
    data = {"images": images, "annotations": annotations, "categories": known}
    writing.files[writing.path] = (json.dumps(data, ensure_ascii=False) + "\n").encode()


def read_yolo(reading: Reading, text: str) -> Iterator[Item]:
    """YOLO labels: `class centre-x centre-y width height` in fractions, one object a line; an item a file, or a folder of them.

    The names of the classes come from the file that was given, else from `classes.txt` or `data.yaml` beside the labels or in the
    folder above.
    """
    if not reading.path.is_dir():
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
    rows: list[tuple[str, str, list[float]]] = []
    for i, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where, parts = f"{path}, line {i}", line.split()
        try:
            number, numbers = int(parts[0]), [float(part) for part in parts[1:]]
        except ValueError:
            number, numbers = 0, []
        if len(numbers) != 4:
            raise LayoutError(
                f"{where}: {line.strip()[:80]!r}: expected a class and four numbers (centre x, centre y, width, height)"
            )
        if number not in classes:
            raise LayoutError(f"{where}: class {number}: expected one of the {len(classes)} named classes, counted from 0")
        rows.append((where, classes[number], numbers))
    prompt, phrases = compose([name for _, name, _ in rows])
    places = [(where, phrase, numbers) for (where, _, numbers), phrase in zip(rows, phrases, strict=True)]
    regions = [reading.region(where, phrase, partial(Box.from_yolo, numbers)) for where, phrase, numbers in places]
    return Item(prompt, Layout(tuple(regions)), size=reading.size, name=path.stem)


def _classes(reading: Reading, folder: Path) -> dict[int, str]:
    """The names of the classes by number, from the file that was given or the only one near."""
    if reading.classes is not None:
        return class_names(reading.classes)
    for place in (folder, folder.absolute().parent):
        found = [place / name for name in NEIGHBOURS if (place / name).is_file()]
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
        from .config import load_yaml

        names = cast("object", load_yaml(path).get("names"))
        pairs = list(enumerate(cast("list[object]", names))) if isinstance(names, list) else []
        pairs = list(cast("dict[int, object]", names).items()) if isinstance(names, dict) else pairs
    else:
        pairs = list(enumerate(cast("list[object]", read_text(path).rstrip().split("\n"))))
    for number, name in pairs:
        if type(number) is not int or not isinstance(name, str) or not name.strip():
            raise LayoutError(f"{path}: class {number}: {name!r}: expected a name")
    if not pairs:
        raise LayoutError(f"{path}: no names of classes; expected a list under 'names'")
    return {number: " ".join(cast(str, name).split()) for number, name in pairs}


def write_yolo(writing: Writing, items: Sequence[Item]) -> None:
    """YOLO labels: one item into one `.txt` file, several into a folder; with `classes.txt`, unless the classes are given.

    YOLO has no place for a prompt, so that a reader composes one; the numbers of phrases are the reader's as well.

    Raises:
        LayoutError: several items for one file, labels called `classes.txt`, or a class that is not among those given.
    """
    one = writing.path.suffix == ".txt"
    if writing.path.name.casefold() == CLASSES:
        raise LayoutError(
            f"{writing.path}: {CLASSES} holds the names of the classes; call the labels otherwise, or name a folder"
        )
    if one and len(items) != 1:
        raise LayoutError(f"{writing.path}: a YOLO file is one image, and there are {len(items)} items; name a folder")
    given = writing.classes is not None
    classes = {name: number for number, name in class_names(writing.classes).items()} if writing.classes is not None else {}
    for i, item in enumerate(items, 1):
        lines: list[str] = []
        if item.prompt:
            writing.leave_out(f"item {i}", f"prompt {item.prompt!r}", "yolo has no place for it")
        leave_out_settings(writing, item, i, "yolo")
        for region, box in boxed(writing, item, i, "yolo"):
            name = category_of(region.phrase)
            if given and name not in classes:
                raise LayoutError(f"item {i}: {name!r} is none of the {len(classes)} classes in {writing.classes}; add it there")
            centre = (box.left + box.right) / 2, (box.top + box.bottom) / 2
            numbers = (*centre, box.right - box.left, box.bottom - box.top)
            lines.append(" ".join(map(str, (classes.setdefault(name, len(classes)), *numbers))))
        path = writing.path if one else writing.path / f"{_free_stem(writing, item, i)}.txt"
        writing.files[path] = "".join(f"{line}\n" for line in lines).encode()
    if not given and classes:
        folder = writing.path.parent if one else writing.path
        writing.files[folder / CLASSES] = "".join(f"{name}\n" for name in classes).encode()


def _free_stem(writing: Writing, item: Item, number: int) -> str:
    """A file's name without folders, which no file before has."""
    stem = re.sub(r"[^\w.-]+", "-", Path(item.name or "").stem).strip(".-")[:100] or f"{number:06}"
    taken = {path.stem.casefold() for path in writing.files} | {"classes"}
    names = chain([stem], (f"{stem}-{i}" for i in count(number)))
    return next(name for name in names if name.casefold() not in taken)


def category_of(phrase: str) -> str:
    """A phrase without its number: `dog#2` is a dog."""
    return re.sub(r"(?<=\S)\s*#\s*\d+$", "", phrase)


def boxed(writing: Writing, item: Item, number: int, format: str) -> list[tuple[Region, Box]]:
    """The regions with a box; what has no place at all is left out.

    Raises:
        LayoutError: a region with a mask.
    """
    for region in item.layout.regions:
        if region.mask is not None:
            what = f"item {number} ({region.phrase!r}) has a mask, and {format} holds boxes only"
            raise LayoutError(f"{what}; write lsregen, jsonl or pixels")
        if region.box is None:
            writing.leave_out(f"item {number}", f"phrase {region.phrase!r}", f"it has no box, and {format} holds boxes only")
        if region.image is not None:
            writing.leave_out(f"item {number}", f"image of {region.phrase!r}", f"{format} holds boxes only")
    return [(region, region.box) for region in item.layout.regions if region.box is not None]


def leave_out_settings(writing: Writing, item: Item, number: int, format: str) -> None:
    settings = {"negative prompt": item.negative or None, "seed": item.seed}
    for name, value in settings.items():
        if value is not None:
            writing.leave_out(f"item {number}", f"{name} {value!r}", f"{format} has no place for it")


def sized(item: Item, number: int, format: str) -> Size:
    """The size of an item's image, which formats in pixels cannot do without.

    Raises:
        ConfigError: it has none.
    """
    if item.size is None:
        raise ConfigError(f"item {number} has no size, and {format} is in pixels; give one (--size WxH, or size=(width, height))")
    return item.size
