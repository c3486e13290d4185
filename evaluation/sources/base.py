"""What every source gives, whatever it reads, and what may be asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ...framework.config.values import MOST_ITEMS
from ...framework.errors import ConfigError, LayoutError
from ...framework.hashes import file_hash
from ...framework.layout_files.item import LEAVE_OUT, POLICIES, Dropped, Item, Reading
from ..runs.expects import Expects
from ..runs.plan import Origin

__all__ = ["POLICIES", "SPLITS", "Asked", "Entry", "Reader", "Source", "finished", "hashes_of", "whole"]

SPLITS = ("single", "multi", "all")


@dataclass(frozen=True)
class Asked:
    """What is asked of a source.

    `path`: its file. `on_bad_box`: whether a box that cannot be used is an `error`, or its item is left out (`drop`) and counted.
    `limit`: only the first so many items are looked at; what is left out of them is not made up for. Of COCO alone: `split`,
    images with exactly one object (`single`), with two or more, of which the two largest are kept (`multi`), or with any number
    (`all`); `captions`, a file of them. Of shapeworld alone: how many `objects` each of `count` scenes has, from the scene with
    the seed `first` on; the scenes' `size`, of which only the ratio matters, and the `place` of the first object, as `Scenes` has
    them.
    """

    path: Path | None = None
    on_bad_box: str = "error"
    limit: int | None = None
    split: str = "all"
    captions: Path | None = None
    objects: int = 2
    count: int = 300
    first: int = 0
    size: tuple[int, int] = (64, 64)
    place: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("on_bad_box", self.on_bad_box, POLICIES), ("split", self.split, SPLITS)):
            if value not in known:
                raise ConfigError(f"{name} {value!r}: expected one of {', '.join(known)}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit {self.limit}: expected at least 1 item")
        if not 1 <= self.count <= MOST_ITEMS:
            raise ConfigError(f"count {self.count}: expected 1 to {MOST_ITEMS:,} scenes")

    @property
    def file(self) -> Path:
        """The file, where there must be one."""
        if self.path is None:
            raise ConfigError("it reads a file: name it")
        return self.path

    def reading(self, whole_items: bool = True) -> Reading:
        """The file, to be read for a source, which leaves an item out that loses a box."""
        return Reading(self.file, on_bad_box=self.on_bad_box, whole_items=whole_items)


@dataclass(frozen=True)
class Entry:
    """An item with the name that it is known by in plans and records, and what its prompt says of the image."""

    id: str
    item: Item
    expects: Expects = field(default_factory=Expects)


@dataclass(frozen=True)
class Source:
    """Everything that a reader found. `size`: the policy by which sizes are chosen if nobody says another."""

    origin: Origin
    entries: tuple[Entry, ...]
    dropped: tuple[Dropped, ...] = ()
    size: str = "model"


Reader = Callable[[Asked], Source]


def finished(
    name: str,
    asked: Asked,
    entries: Sequence[Entry],
    *,
    dropped: Iterable[Dropped] = (),
    files: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
    size: str = "model",
) -> Source:
    """A source of these entries, the first `limit` of them.

    Raises:
        LayoutError: there are none, or two have one name.
    """
    where = str(asked.path or name)
    twice = next((each for each, times in Counter(entry.id for entry in entries).items() if times > 1), None)
    if twice is not None:
        raise LayoutError(f"{where}: the item {twice!r} stands twice; expected a different name for each item")
    found, left_out = tuple(entries[: asked.limit]), tuple(dropped)
    counts = Counter(_kind(each) for each in left_out)
    if not found:
        listed = ", ".join(f"{times} x {kind}" for kind, times in counts.items())
        why = f"; left out: {listed}; the first is {left_out[0]}" if left_out else ""
        asked_for = ", ".join(f"{key} {value}" for key, value in (options or {}).items())
        raise LayoutError(f"{where}: no items{f' ({asked_for})' if asked_for else ''}{why}")
    origin = Origin(
        name,
        hashes_of(files),
        {"on_bad_box": asked.on_bad_box, "limit": asked.limit, **(options or {})},
        len(found),
        dict(counts),
    )
    return Source(origin, found, left_out, size)


def whole(asked: Asked, entries: Sequence[tuple[Entry, bool]], dropped: list[Dropped]) -> list[Entry]:
    """The entries that are complete: none of their boxes was dropped. The others are left out, and noted.

    Raises:
        LayoutError: `on_bad_box` is `error`, and there is one that lost a box.
    """
    kept, before = list[Entry](), tuple(dropped)
    for entry, complete in entries:
        if complete:
            kept.append(entry)
        elif asked.on_bad_box == "error":
            raise LayoutError(
                f"{entry.id} lost a box; {len(before)} boxes cannot be used, the first is {before[0]}; correct it, or {LEAVE_OUT}"
            )
        else:
            dropped.append(Dropped(entry.id, "item", "without all of its boxes"))
    return kept


def hashes_of(paths: Sequence[Path]) -> dict[str, str]:
    """The sha256 of files by their names, with as many of the folders above as it takes to tell them apart.

    Raises:
        LayoutError: one cannot be read.
    """
    different = list(dict.fromkeys(paths))
    ends = (["/".join(path.parts[-depth:]) for path in different] for depth in count(1))
    names = next(names for names in ends if len(set(names)) == len(names))
    return {name: file_hash(path, LayoutError) for name, path in zip(names, different, strict=True)}


def _kind(dropped: Dropped) -> str:
    """What was dropped without what is peculiar to it, to be counted by."""
    if dropped.what == "annotation":
        return "crowd" if "crowd" in dropped.why else "object that the caption does not name"
    if dropped.what == "box":
        return "box of zeros" if "zeros" in dropped.why else "box that cannot be used"
    return f"{dropped.what} {dropped.why}"
