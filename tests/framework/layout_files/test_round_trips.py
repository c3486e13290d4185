"""Written and read again: what every format keeps of an item, and what comes through two formats."""

from __future__ import annotations

import itertools
import string
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.layout.regions import MIN_SIDE, Box, Layout, Region
from lsregen.framework.layout.tokens import TokenTable
from lsregen.framework.layout_files.coco_instances import category_of
from lsregen.framework.layout_files.formats import WRITERS, read_layouts, write_layouts
from lsregen.framework.layout_files.item import Item

pytestmark = pytest.mark.slow

JSON_FORMATS = ("lsregen", "jsonl", "pixels")
PRECISION = 1e-9  # of a side: what the formats promise
NAMES = {"lsregen": "a.json", "jsonl": "a.jsonl", "pixels": "b.json", "coco": "c.json", "yolo": "labels"}


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    low = st.floats(0, 1 - 4 * MIN_SIDE)
    left, top = draw(low), draw(low)
    return Box(left, top, draw(st.floats(left + 3 * MIN_SIDE, 1)), draw(st.floats(top + 3 * MIN_SIDE, 1)))


words = st.text(string.ascii_letters + "äß漢'-", min_size=1, max_size=8).filter(lambda word: any(map(str.isalpha, word)))
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)
numbered = st.builds(lambda phrase, end: phrase + end, phrases, st.sampled_from(["", "", "#2", " #1"]))
sizes = st.tuples(st.integers(16, 2048), st.integers(16, 2048))
boxed_layouts = st.lists(st.builds(Region, numbered, boxes()), max_size=5).map(lambda regions: Layout(tuple(regions)))


def items(layouts: st.SearchStrategy[Layout]) -> st.SearchStrategy[list[Item]]:
    optional = st.none() | st.integers(0, 2**63 - 1)
    text = st.text(string.printable + "é漢\u2028", max_size=30)
    one = st.builds(Item, text, layouts, text, optional, sizes, st.none() | words)
    return st.lists(one, min_size=1, max_size=3)


def close(found: Layout, expected: Layout, *, phrases: bool = True) -> bool:
    """Equal regions, but for a rounding of the boxes (and of phrases, where a format holds categories)."""

    def same(one: Region, two: Region) -> bool:
        if one.box is None or two.box is None:
            return one == two
        near = all(abs(a - b) <= PRECISION for a, b in zip(one.box.xyxy, two.box.xyxy, strict=True))
        return near and (one.phrase == two.phrase if phrases else category_of(one.phrase) == category_of(two.phrase))

    return len(found.regions) == len(expected.regions) and all(map(same, found.regions, expected.regions))


def through(format: str, given: list[Item], folder: Path) -> list[Item]:
    """Written and read again; each format in its own folder, since labels look for classes around them."""
    path = folder / format / NAMES[format]
    written = write_layouts(path, given, format)
    found = read_layouts(path, format, size=given[0].size)
    assert not found.dropped
    assert all(file.is_file() for file in written.files)
    return list(found.items)


@settings(max_examples=60, deadline=None)
@given(items(st.lists(st.builds(Region, numbered, boxes() | st.none()), max_size=4).map(lambda r: Layout(tuple(r)))))
def test_our_own_formats_keep_everything(given: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for format in JSON_FORMATS:
            found = through(format, given, Path(folder))
            assert [replace(item, layout=Layout()) for item in found] == [replace(item, layout=Layout()) for item in given]
            exact = format != "pixels"
            assert all((a.layout == b.layout) if exact else close(a.layout, b.layout) for a, b in zip(found, given, strict=True))


@settings(max_examples=60, deadline=None)
@given(items(boxed_layouts))
def test_coco_keeps_prompts_and_layouts(given: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = through("coco", given, Path(folder))
    assert [(item.prompt, item.size) for item in found] == [(item.prompt, item.size) for item in given]
    assert all(close(a.layout, b.layout) for a, b in zip(found, given, strict=True))


distinct = st.lists(st.builds(Region, words, boxes()), max_size=4, unique_by=lambda region: region.phrase.casefold())
bare = st.builds(lambda regions, size: Item(layout=Layout(tuple(regions)), size=size), distinct, sizes)


@settings(max_examples=60, deadline=None)
@given(st.lists(bare, min_size=1, max_size=3))
def test_yolo_keeps_classes_and_boxes(given: list[Item]) -> None:
    kept = [item for item in given if item.layout.regions] or [Item(layout=Layout.from_boxes({"dog": (0, 0, 1, 1)}))]
    with tempfile.TemporaryDirectory() as folder:
        found = through("yolo", kept, Path(folder))
    for item, original in zip(found, kept, strict=True):
        assert close(item.layout, original.layout, phrases=False)
        assert all(TokenTable(item.prompt, ()).locate(region.phrase) for region in item.layout.regions)


pairs = st.sampled_from([*itertools.permutations(WRITERS, 2)])


@settings(max_examples=60, deadline=None)
@given(items(boxed_layouts.filter(lambda layout: bool(layout.regions))), pairs)
def test_any_format_to_any_other_keeps_boxes(given: list[Item], way: tuple[str, str]) -> None:
    given = [replace(item, name=f"{i}") for i, item in enumerate(given)]  # labels come in the order of their names
    with tempfile.TemporaryDirectory() as folder:
        between = through(way[0], given, Path(folder))
        between = [replace(item, size=original.size) for item, original in zip(between, given, strict=True)]
        found = through(way[1], between, Path(folder))
    assert [item.name for item in found] == [item.name for item in given]
    for item, original in zip(found, given, strict=True):
        assert close(item.layout, original.layout, phrases="yolo" not in way)
