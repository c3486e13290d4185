"""NSR-1K as items: what `framework/formats.py` reads, with the relations and counts that the entries state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from ....framework.errors import LayoutError, nearest
from ....framework.formats import read_layouts
from ....framework.items import Item, parse_json, read_text, text_of
from ..expects import Expects, Relation
from .face import Asked, Entry, Source, finished, whole

NAME = "nsr1k"
RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below", "next to": "next to"}
"""NSR-1K's words, by which `obj1` stands to `obj2`."""


def read(asked: Asked) -> Source:
    """One item for each entry. Boxes of zeros, NSR-1K's for those it has no reference of, are bad boxes here.

    Raises:
        LayoutError: not NSR-1K, or a box cannot be used.
    """
    found = read_layouts(asked.file, NAME, on_bad_box=asked.on_bad_box)
    data = cast("list[dict[str, Any]]", parse_json(read_text(asked.file), str(asked.file)))
    dropped = list(found.dropped)
    entries: list[tuple[Entry, int]] = []
    for i, (item, entry) in enumerate(zip(found.items, data, strict=True), 1):
        where = f"{asked.file}, entry {i}"
        made = Entry(f"{NAME}-{item.name or i}", item, _expects(item, entry, where))
        entries.append((made, len(item.layout.regions)))
    return finished(NAME, asked, whole(asked, entries, dropped), dropped=dropped, files=[asked.file])


def _expects(item: Item, entry: Mapping[str, Any], where: str) -> Expects:
    names = [str(entry[key][0]) for key in ("obj1", "obj2") if key in entry] or [str(pair[0]) for pair in entry["object_list"]]
    classes = {region.phrase: name for region, name in zip(item.layout.regions, names, strict=True)}
    if "object_list" in entry:
        return Expects(counts=dict(Counter(names)), classes=classes)
    if "relation" not in entry:
        return Expects(classes=classes)
    relation = text_of(entry, "relation", where)
    if relation not in RELATIONS or len(names) != 2:
        near = nearest(relation, RELATIONS)
        raise LayoutError(f"{where}: relation {relation!r}: expected one of {', '.join(RELATIONS)}, of obj1 to obj2{near}")
    return Expects((Relation(names[0], RELATIONS[relation], names[1]),), classes=classes)
