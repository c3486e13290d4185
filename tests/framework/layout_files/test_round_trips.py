"""Written and read again: what every format keeps of an item, and what comes through two formats."""

from __future__ import annotations

import string
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.layout.regions import MIN_SIDE, Box, Layout, Region
from lsregen.framework.layout_files.formats import WRITERS, read_layouts, write_layouts
from lsregen.framework.layout_files.item import Item

pytestmark = pytest.mark.slow

PRECISION = 1e-9  # of a side: what the formats promise
NAMES = {"lsregen": "a.json", "jsonl": "a.jsonl", "pixels": "b.json"}


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    low = st.floats(0, 1 - 4 * MIN_SIDE)
    left, top = draw(low), draw(low)
    return Box(left, top, draw(st.floats(left + 3 * MIN_SIDE, 1)), draw(st.floats(top + 3 * MIN_SIDE, 1)))


words = st.text(string.ascii_letters + "äß漢'-", min_size=1, max_size=8).filter(lambda word: any(map(str.isalpha, word)))
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)
numbered = st.builds(lambda phrase, end: phrase + end, phrases, st.sampled_from(["", "", "#2", " #1"]))
sizes = st.tuples(st.integers(16, 2048), st.integers(16, 2048))


def items(layouts: st.SearchStrategy[Layout]) -> st.SearchStrategy[list[Item]]:
    optional = st.none() | st.integers(0, 2**63 - 1)
    text = st.text(string.printable + "é漢\u2028", max_size=30)
    one = st.builds(Item, text, layouts, text, optional, sizes, st.none() | words)
    return st.lists(one, min_size=1, max_size=3)


def close(found: Layout, expected: Layout) -> bool:
    """Equal regions, but for a rounding of the boxes."""

    def same(one: Region, two: Region) -> bool:
        if one.box is None or two.box is None:
            return one == two
        near = all(abs(a - b) <= PRECISION for a, b in zip(one.box.xyxy, two.box.xyxy, strict=True))
        return near and one.phrase == two.phrase

    return len(found.regions) == len(expected.regions) and all(map(same, found.regions, expected.regions))


def through(format: str, given: list[Item], folder: Path) -> list[Item]:
    """Written and read again."""
    path = folder / NAMES[format]
    written = write_layouts(path, given, format)
    found = read_layouts(path, format)
    assert not found.dropped
    assert all(file.is_file() for file in written)
    return list(found.items)


@settings(max_examples=60, deadline=None)
@given(items(st.lists(st.builds(Region, numbered, boxes() | st.none()), max_size=4).map(lambda r: Layout(tuple(r)))))
def test_our_own_formats_keep_everything(given: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for format in WRITERS:
            found = through(format, given, Path(folder))
            assert [replace(item, layout=Layout()) for item in found] == [replace(item, layout=Layout()) for item in given]
            exact = format != "pixels"
            assert all((a.layout == b.layout) if exact else close(a.layout, b.layout) for a, b in zip(found, given, strict=True))
