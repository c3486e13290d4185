"""Annotated images as layouts: COCO instances, and prompts for categories that come without one.

Annotations name categories, prompts have phrases. A file without a caption gets the prompt `a dog and a cat`, and a category that
stands in it more than once is numbered: `dog#1` and `dog#2` (see `framework/layout/tokens.py`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import LayoutError, PhraseError, shown, told_of
from ..layout.matching import occurrences
from ..layout.regions import Box, Layout, Region
from .item import Item, Reading, Size, entries_of, fields, four, size_of, text_of

if TYPE_CHECKING:
    from torch import Tensor

ANNOTATED = ("coco", "yolo")
"""Formats that describe images rather than ask for some."""
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
    found = {name: [place for place, _ in occurrences(name, prompt)] for name in set(names)}
    return prompt, [_numbered(prompt, name, start, found[name]) for name, start in zip(names, starts, strict=True)]


def _numbered(prompt: str, name: str, start: int, found: Sequence[int]) -> str:
    """How to call the occurrence of a name that begins at a character, one of those `found`: `dog` stands in `hot dog` too."""
    place = bisect_left(found, start)
    phrase = name if len(found) == 1 else f"{name}#{place + 1}"
    stands_there = place < len(found) and found[place] < start + len(name)  # not in the same words of the next thing
    if stands_there and (phrase == name or not occurrences(phrase, prompt)):
        return phrase
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


def mentioned(names: Sequence[str], caption: str) -> list[str]:
    """As `told`; of several words that may be meant the first, which names the thing: `a pizza on a pizza plate`."""
    spoken_of = [spoken(name, caption) for name in names]
    return [
        said or (f"{phrase}#1" if occurrences(phrase, caption) else phrase)
        for said, phrase in zip(told(names, caption), spoken_of, strict=True)
    ]


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

    `bbox` is left, top, width, height in pixels; where `reading.masks` says so, an object's place is the mask of its
    `segmentation` instead. Crowds are dropped at once, and reported; the objects of an image when it is asked for. A caption
    stands among the annotations or in the image; `phrase` in an annotation goes before the category's name. Without it, a
    category that the caption does not name, or not as often as there are boxes, is an error; `drop` leaves the annotation out,
    and reports it.

    Args:
        captions: of images, by their ids, instead of the file's own.
        select: which of an image's annotations are kept, each with where it stands, once crowds are out; all by default. The
            function returns None to leave the image out.
    """
    where = str(reading.path)
    data = fields(reading.parsed(text), where, None, ("images", "annotations"))
    names = _categories(data.get("categories", []), where)
    images, found, said = dict[Any, dict[str, Any]](), dict[Any, list[tuple[str, dict[str, Any]]]](), dict[Any, str](captions)
    for i, entry in enumerate(entries_of(data["images"], f"{where}, images"), 1):
        image = fields(entry, f"{where}, image {i}", None, ("id",))
        key = image["id"] = _key(image["id"], f"{where}, image {i}")
        if key in images:
            raise LayoutError(f"{where}, image {i}: id {key!r} stands twice; expected a different one for each image")
        images[key], found[key] = image, []
        if "caption" in image:
            said.setdefault(key, text_of(image, "caption", f"{where}, image {i}"))
    for i, entry in enumerate(entries_of(data["annotations"], f"{where}, annotations"), 1):
        at = f"{where}, annotation {i}"
        annotation = fields(entry, at, None)
        key = _key(annotation.get("image_id", ""), at)
        if key not in images:
            reading.refuse(
                at, "annotation", f"image_id {key!r} is none of the {len(images)} images of the file{_twin(key, images)}"
            )
        elif "caption" in annotation:
            said.setdefault(key, text_of(annotation, "caption", at))
        elif _crowd(annotation.get("iscrowd", 0), at):
            reading.drop(at, "annotation", "a crowd; expected one object")
        else:
            found[key].append((at, annotation))
    chosen = {key: select(image, found[key]) if select else found[key] for key, image in images.items()}
    return (_annotated(reading, images[key], each, names, said.get(key)) for key, each in chosen.items() if each is not None)


def _key(value: object, where: str) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise LayoutError(f"{where}: id {shown(value)}: expected a whole number or a text")
    return int(value)


def _twin(key: int | str, known: Collection[int | str]) -> str:
    """What is said of an id that is there in the other type, the text '1' for the number 1."""
    other = str(key) if isinstance(key, int) else next((each for each in known if str(each) == key), None)
    return f"; there it is {other!r}, another type: write both the same way" if other in known else ""


def _crowd(value: object, where: str) -> bool:
    """What `iscrowd` says: 0 or 1, in whatever spelling."""
    written = str(value).casefold()
    if written not in ("0", "1", "0.0", "1.0", "false", "true"):
        raise LayoutError(f"{where}: iscrowd {shown(value)}: expected 0 or 1")
    return written in ("1", "1.0", "true")


def _categories(data: object, where: str) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for i, entry in enumerate(entries_of(data, f"{where}, categories"), 1):
        at = f"{where}, category {i}"
        category = fields(entry, at, None, ("id", "name"))
        key = _key(category["id"], at)
        if key in names:
            raise LayoutError(f"{at}: id {key!r} stands twice; expected a different one for each category")
        names[key] = " ".join(text_of(category, "name", at).split())
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
    annotations, names = _named(reading, annotations, categories)
    with told_of(where):
        prompt, phrases = compose(names) if caption is None else (caption, told(names, caption))
    regions, kept = list[Region](), list[str]()
    for (at, annotation), name, phrase in zip(annotations, names, phrases, strict=True):
        place = partial(_mask, annotation, size) if reading.masks else partial(xywh_box, annotation.get("bbox"), size or (1, 1))
        if phrase is None and "phrase" not in annotation:
            _untold(reading, f"{at} ({name!r})", name, prompt, image["id"])
        else:
            regions.append(reading.region(at, text_of(annotation, "phrase", at, phrase or ""), place))
            kept.append(name)
    item = Item(prompt, Layout(tuple(regions)), size=size, name=text_of(image, "file_name", where) or None)
    return Annotated(image["id"], item, tuple(kept))


def _named(
    reading: Reading, annotations: Annotations, categories: Mapping[int | str, str]
) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """The annotations whose category is one of the file's, and its name; the others are refused, or left out."""
    kept, names = list[tuple[str, dict[str, Any]]](), list[str]()
    for at, annotation in annotations:
        key = _key(annotation.get("category_id", ""), at)
        if key in categories:
            kept.append((at, annotation))
            names.append(categories[key])
        else:
            said = f"category_id {key!r} is none of the file's categories{_twin(key, categories)}"
            reading.refuse(at, "annotation", said)
    return kept, names


def xywh_box(value: object, size: Size) -> Box:
    """A box from left, top, width and height in units of `size`. Raises LayoutError."""
    return Box.from_xywh(four(value, XYWH), size)


def _mask(annotation: Mapping[str, Any], size: Size | None) -> Tensor:
    from .segmentations import segmentation_mask

    return segmentation_mask(annotation.get("segmentation"), size or (1, 1))


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


def category_of(phrase: str) -> str:
    """A phrase without its number: `dog#2` is a dog."""
    return re.sub(r"(?<=\S)\s*#\s*\d+$", "", phrase)
