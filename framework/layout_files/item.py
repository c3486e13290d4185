"""What a layout file holds, as values: one item per image; and the strict reading of values that somebody else wrote."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import files
from ..config.options import check_options
from ..config.values import MOST_SIDE
from ..errors import ConfigError, LayoutError, PhraseError, nearest, shown
from ..layout.regions import Box, Layout, Region

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 2**63  # torch generators take seeds below this
DRAWN_SEEDS = 2**32  # below this are those that lsregen draws: every tool takes them
STRENGTH = 0.8  # of image-to-image, where nothing is said
POLICIES = ("error", "drop")
LARGEST = 1e9  # a number of a box, whatever its unit; whole numbers in JSON may have more digits than a float can hold
DROP = "--on-bad-box drop (on_bad_box='drop')"
LEAVE_OUT = "leave such items out: --on-bad-box drop"

Size = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """What one image is to be: one line of a prompts file.

    `prompt` is empty where a file holds layouts only. `seed`, and `size` (width, height) in pixels: None if the file states none.
    `name`: what the file calls it (COCO's `file_name`, the name of a YOLO file, NSR-1K's id).

    Raises:
        ConfigError: a value of another type.
        LayoutError: the seed is out of range, or a side of the size below 1.
    """

    prompt: str = ""
    layout: Layout = field(default_factory=Layout)
    negative: str = ""
    seed: int | None = None
    size: Size | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise LayoutError(f"seed {self.seed}: expected a whole number from 0 to 2^63 - 1")
        if self.size is not None and min(self.size) < 1:
            raise LayoutError(f"size {self.size}: expected (width, height) in pixels, both at least 1")


@dataclass(frozen=True)
class Dropped:
    """Something that was left out: where it stood, what it was, and why."""

    where: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.why}"


@dataclass(frozen=True)
class Items:
    """The items of a file in their order, the format it was read as, and everything that was left out of them."""

    items: tuple[Item, ...]
    format: str
    dropped: tuple[Dropped, ...] = ()


@dataclass
class Reading:
    """A file being read: where it is, what was said about it, and what was left out so far.

    `masks`: whether COCO's objects are read as the masks of their segmentations. `whole_items`: whether whoever reads it leaves
    an item out that loses a box or an annotation; it is said in errors. `skipped`: how many of those `dropped` are images that
    ask for nothing.
    """

    path: Path
    size: Size | None = None
    classes: Path | None = None
    on_bad_box: str = "error"
    masks: bool = False
    whole_items: bool = False
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    skipped: int = 0
    _kept: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.on_bad_box not in POLICIES:
            raise ConfigError(f"on_bad_box {self.on_bad_box!r}: expected one of {', '.join(POLICIES)}")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"size {self.size}: expected (width, height) in pixels, both at least 1")

    def parsed(self, text: str, again: bool = False) -> Any:
        """The file's text as JSON; `again`: it is asked for once more, and so kept until then. Raises as `parse_json`."""
        data, self._kept = parse_json(text, str(self.path)) if self._kept is None else self._kept, None
        if again:
            self._kept = data
        return data

    def dropping(self, instead: str) -> str:
        """How to go on without what cannot be used, for errors. `instead`: what becomes of an item that is not left out."""
        return LEAVE_OUT if self.whole_items else f"{instead}: {DROP}"

    def drop(self, where: str, what: str, why: str) -> None:
        self.dropped.append(Dropped(where, what, why))

    def refuse(self, where: str, what: str, why: str) -> None:
        """Something that cannot be used and that nothing stands in for: left out, if the policy allows it.

        Raises:
            LayoutError: it does not.
        """
        if self.on_bad_box == "error":
            raise LayoutError(f"{where}: {why}; correct it, or {self.dropping('leave it out')}")
        self.drop(where, what, why)

    def _skip(self, where: str, why: str) -> None:
        """Leave out an image that asks for nothing, such as a background without objects: no other item lost anything."""
        self.skipped += 1
        self.drop(where, "image", why)

    def asking(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items that ask for something: an image without a caption and without objects is left out, and reported.

        Raises:
            LayoutError: none is left.
        """
        kept = False
        for i, item in enumerate(items, 1):
            if item.prompt or item.layout.regions:
                kept = True
                yield item
            else:
                self._skip(f"{self.path}, {item.name or f'item {i}'}", "no caption and no objects")
        if not kept:
            raise LayoutError(f"{self.path}: no image has a caption or an object; expected one at least")

    def noting(self, items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
        """Items that are read while they are asked for, each with whether nothing was dropped of it."""
        before = len(self.dropped) - self.skipped
        for item in items:
            yield item, len(self.dropped) - self.skipped == before
            before = len(self.dropped) - self.skipped

    def region(self, where: str, phrase: str, place: Callable[[], Box | Tensor] | None = None) -> Region:
        """A region; one whose box (or mask) cannot be used is an error, or loses its place, as the policy says."""
        where = f"{where} ({phrase!r})"
        try:
            found = place() if place is not None else None
            return Region(phrase, found) if found is None or isinstance(found, Box) else Region(phrase, mask=found)
        except PhraseError as error:
            raise PhraseError(f"{where}: {error}") from None
        except LayoutError as error:
            if self.on_bad_box == "error":
                cure = self.dropping("keep the phrase without a place")
                raise LayoutError(f"{where}: {error}; correct it, or {cure}") from None
            self.drop(where, "mask" if self.masks else "box", str(error))
            return Region(phrase)


def read_text(path: Path) -> str:
    """A layout file's text. Raises LayoutError as `files.read_text`."""
    return files.read_text(path, "a layout file", LayoutError)


def parse_json(text: str, where: str) -> Any:
    """JSON of a layout file. Raises LayoutError as `files.parse_json`."""
    return files.parse_json(text, where, LayoutError)


def fields(data: object, where: str, known: Collection[str] | None, needed: Collection[str] = ()) -> dict[str, Any]:
    """A mapping without keys that are null; `known` None: any further key is another program's affair.

    Raises:
        LayoutError: no mapping, an unknown key or a missing one.
    """
    if not isinstance(data, dict):
        keys = ", ".join(known if known is not None else needed)
        raise LayoutError(f"{where}: expected a mapping with {keys}, got {type(data).__name__}")
    entries = cast("dict[str, Any]", data)
    if known is not None and (unknown := [key for key in entries if key not in known]):
        raise LayoutError(f"{where}: unknown key {unknown[0]!r}{nearest(unknown[0], known)}; expected {', '.join(known)}")
    if missing := [key for key in needed if entries.get(key) is None]:
        raise LayoutError(f"{where}: {missing[0]!r} is missing; expected {', '.join(needed)}")
    return {key: value for key, value in entries.items() if value is not None}


def entries_of(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise LayoutError(f"{where}: expected a list, got {type(data).__name__}")
    return cast("list[Any]", data)


def text_of(entry: Mapping[str, Any], key: str, where: str, default: str = "") -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise LayoutError(f"{where}: {key} {shown(value)}: expected a text")
    return value


def whole(value: object, where: str, key: str) -> int:
    """A whole number; 7.0 is one, as JSON has one kind of number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise LayoutError(f"{where}: {key} {shown(value)}: expected a whole number")
    return value


def four(value: object, expected: str) -> list[float]:
    """Four numbers; what they mean is the caller's to check, and where they stand the caller's to say."""
    found = cast("list[object]", value) if isinstance(value, list) else []
    numbers = [each for each in found if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(found) != 4 or len(numbers) != 4 or any(abs(number) > LARGEST for number in numbers):
        raise LayoutError(f"box {shown(cast('object', value))}: expected four numbers ({expected})")
    return [float(number) for number in numbers]


def size_of(value: object, where: str) -> Size:
    """Width and height from `[w, h]`."""
    sides = cast("list[object]", value) if isinstance(value, list) else []
    expected = f"expected [width, height] in pixels, from 1 to {MOST_SIDE} each"
    if len(sides) != 2:
        raise LayoutError(f"{where}: size {shown(cast('object', value))}: {expected}")
    width, height = (whole(side, f"{where}, size {shown(cast('object', value))}", "side") for side in sides)
    if not (1 <= width <= MOST_SIDE and 1 <= height <= MOST_SIDE):
        raise LayoutError(f"{where}: size {shown(cast('object', value))}: {expected}")
    return width, height


def check_format(format: str | None, known: Iterable[str]) -> None:
    if format is not None and format not in known:
        raise ConfigError(f"format {format!r}: expected one of {', '.join(known)}{nearest(format, known)}")
