"""NSR-1K as items: what `framework/layout_files/formats.py` reads, with the relations and counts that the entries state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from ...framework.errors import LayoutError, nearest
from ...framework.layout_files.formats import open_layouts
from ...framework.layout_files.item import Item, entries_of, parse_json, read_text, text_of
from ...framework.layout_files.item import whole as whole_number
from ..runs.expects import Expects, Relation
from .base import Asked, Entry, Source, finished, whole

NAME = "nsr1k"
RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below", "next to": "next to"}
"""NSR-1K's words, by which `obj1` stands to `obj2`."""


def read(asked: Asked) -> Source:
    """One item for each entry. Boxes of zeros, NSR-1K's for those it has no reference of, are bad boxes here.

    Raises:
        LayoutError: not NSR-1K, or a box cannot be used.
    """
    reading = asked.reading()
    items, _ = open_layouts(reading, NAME)
    data = entries_of(parse_json(read_text(asked.file), str(asked.file)), str(asked.file))
    entries: list[tuple[Entry, bool]] = []
    for i, ((item, complete), entry) in enumerate(islice(zip(reading.noting(items), data, strict=True), asked.limit), 1):
        made = Entry(f"{NAME}-{item.name or i}", item, _expects(item, entry, f"{asked.file}, entry {i}"))
        entries.append((made, complete))
    return finished(NAME, asked, whole(asked, entries, reading.dropped), dropped=reading.dropped, files=[asked.file])


def _expects(item: Item, entry: Mapping[str, Any], where: str) -> Expects:
    pairs = [entry[key] for key in ("obj1", "obj2") if entry.get(key)]
    names = [str(pair[0]) for pair in pairs or entry["object_list"]]
    classes = {region.phrase: name for region, name in zip(item.layout.regions, names, strict=True)}
    if not pairs:
        return Expects(counts=_counts(entry, where) or dict(Counter(names)), classes=classes)
    if entry.get("relation") is None:
        return Expects(classes=classes)
    relation = text_of(entry, "relation", where)
    if relation not in RELATIONS or len(names) != 2:
        near = nearest(relation, RELATIONS)
        raise LayoutError(f"{where}: relation {relation!r}: expected one of {', '.join(RELATIONS)}, of obj1 to obj2{near}")
    return Expects((Relation(names[0], RELATIONS[relation], names[1]),), classes=classes)


def _counts(entry: Mapping[str, Any], where: str) -> dict[str, int]:
    """What an entry says that there shall be, `num_object`; there may be fewer boxes or more."""
    counts: dict[str, int] = {}
    for pair in entries_of(entry.get("num_object") or [], f"{where}, num_object"):
        name, count = (*cast("list[object]", pair), None, None)[:2] if isinstance(pair, list) else (None, None)
        if not isinstance(name, str):
            raise LayoutError(f"{where}, num_object: {pair!r}: expected a name and a number")
        counts[name] = whole_number(count, f"{where}, num_object", name)
        if counts[name] < 0:
            raise LayoutError(f"{where}, num_object: {counts[name]} of {name!r}; expected 0 or more")
    return counts
