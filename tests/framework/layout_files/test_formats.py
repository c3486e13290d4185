"""Layouts in files: what an item may say, how formats are told apart, and what is refused."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsregen.framework.errors import ConfigError, LayoutError, LsregenError, PhraseError
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.layout_files.formats import (
    ITEM_KEYS,
    LISTS,
    NSR1K_KEYS,
    READERS,
    encode_layouts,
    mask_region,
    read_layouts,
    write_layouts,
)
from lsregen.framework.layout_files.item import Item

FILES = {"lsregen": "a.json", "jsonl": "a.jsonl", "pixels": "b.json"}


# Writing


def test_masks_go_beside_the_file_where_a_picture_keeps_them(tmp_path: Path) -> None:
    hard, soft = torch.eye(5)[:, :3], torch.tensor([[0.1, 0.2, 1 / 3]])
    layout = Layout((Region("dog", mask=hard), Region("cat", mask=soft), Region("grey", mask=torch.tensor([[51 / 255, 1.0]]))))
    for format, name in FILES.items():
        path = tmp_path / format / name
        written = write_layouts(path, [Item("a dog", layout, size=(30, 50))], format)
        beside = [file.name for file in written if file != path]
        assert beside == [f"{path.stem}-1-1.png", f"{path.stem}-1-3.png"]
        assert read_layouts(path).items[0].layout == layout
        assert read_layouts(path).format == format


def test_pixels_need_a_size_to_be_written() -> None:
    with pytest.raises(ConfigError, match=r"item 1 has no size, and pixels needs one.*--size WxH"):
        encode_layouts("x.json", [Item(layout=Layout.from_boxes({"a": (0, 0, 1, 1)}))], "pixels")


# What an item may say


def read(tmp_path: Path, data: object, name: str = "boxes.json", **options: Any) -> tuple[Item, ...]:
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return read_layouts(path, **options).items


def test_a_line_of_prompts(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a dog and a cat", "boxes": {"dog": [0, 0, 0.5, 1], "cat": [[0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]]}, "seed": 7},
        {"prompt": "a bird", "negative": "blurry", "layout": {"regions": [{"phrase": "bird", "box": None}]}, "size": [64, 48]},
        {"prompt": "a bus", "boxes": {"bus": [0, 12, 32, 48]}, "unit": "pixels", "size": [64, 48], "name": "bus"},
        {"prompt": "nothing", "seed": None},
    ]
    found = read(tmp_path, "\n\n".join(map(json.dumps, lines)) + "\n", "prompts.jsonl")
    dog, first, second = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 0.5), Box(0.5, 0.5, 1, 1)
    assert found == (
        Item("a dog and a cat", Layout((Region("dog", dog), Region("cat", first), Region("cat", second))), seed=7),
        Item("a bird", Layout((Region("bird"),)), "blurry", size=(64, 48)),
        Item("a bus", Layout((Region("bus", Box(0, 0.25, 0.5, 1)),)), size=(64, 48), name="bus"),
        Item("nothing"),
    )


def test_a_phrase_may_stand_without_a_box(tmp_path: Path) -> None:
    assert read(tmp_path, {"boxes": {"dog": None}})[0].layout == Layout((Region("dog"),))


def test_pixels_are_meant_when_the_format_says_so(tmp_path: Path) -> None:
    data = {"regions": [{"phrase": "dog", "box": [0, 0, 320, 240]}]}
    expected = Layout.from_boxes({"dog": (0, 0, 0.5, 0.5)})
    assert read(tmp_path, data, format="pixels", size=(640, 480))[0] == Item(layout=expected, size=(640, 480))
    with pytest.raises(LayoutError, match=r'boxes.json, region 1 \(.dog.\): box.*pixels.*"unit": "pixels"'):
        read(tmp_path, data)
    with pytest.raises(LayoutError, match="boxes in pixels without a size"):
        read(tmp_path, data, format="pixels")
    stated = data | {"size": [640, 480], "unit": "pixels"}
    assert read(tmp_path, stated, size=(10, 10))[0] == Item(layout=expected, size=(640, 480))  # what the file says holds


def test_a_size_is_filled_in_where_none_is_stated(tmp_path: Path) -> None:
    found = read(tmp_path, [{"prompt": "a"}, {"prompt": "b", "size": [8, 16]}], size=(32, 24))
    assert [item.size for item in found] == [(32, 24), (8, 16)]


BAD: dict[str, tuple[object, str]] = {
    "unknown key": ({"prompt": "a", "box": {}}, r"boxes.json: unknown key 'box' \(did you mean 'boxes'\?\)"),
    "two places": ({"boxes": {}, "regions": []}, "both 'boxes' and 'regions'"),
    "no mapping": ([{"prompt": "a"}, 3], "boxes.json, item 2: expected a mapping with name, prompt.*got int"),
    "boxes no mapping": ({"boxes": []}, "boxes.json, boxes: expected a mapping from phrases to boxes, got list"),
    "regions no list": ({"regions": {}}, "expected a list, got dict"),
    "no phrase": ({"regions": [{"box": [0, 0, 1, 1]}]}, "region 1: 'phrase' is missing"),
    "empty phrase": ({"boxes": {" ": [0, 0, 1, 1]}}, "box 1 .* is empty"),
    "phrase no text": ({"regions": [{"phrase": 3}]}, "region 1: phrase 3: expected a text"),
    "swapped": ({"boxes": {"dog": [0.5, 0, 0.2, 1]}}, r"box 1 \('dog'\): .*swapped.*--on-bad-box drop"),
    "out of range": ([{"prompt": "a"}, {"boxes": {"dog": [-0.1, 0, 0.2, 1]}}], "item 2, box 1.*left=-0.1 is out of range"),
    "not finite": ('{"boxes": {"dog": [NaN, 0, 1, 1]}}', "left=nan is not finite"),
    "three numbers": ({"boxes": {"dog": [0, 0, 1]}}, r"box \[0, 0, 1\]: expected four numbers \(left, top, right, bottom\)"),
    "a truth for a number": ({"boxes": {"dog": [0, 0, 1, True]}}, "expected four numbers"),
    "a text for a number": ({"boxes": {"dog": [0, 0, 1, "1"]}}, "expected four numbers"),
    "a box of text": ({"boxes": {"dog": "0,0,1,1"}}, "expected four numbers"),
    "seed": ({"prompt": "a", "seed": 1.5}, "seed 1.5: expected a whole number"),
    "large seed": ({"prompt": "a", "seed": 2**63}, "boxes.json: seed 9223372036854775808: .*from 0 to"),
    "size": ({"prompt": "a", "size": [64]}, r"size \[64\]: expected \[width, height\]"),
    "size of zero": ({"prompt": "a", "size": [64, 0]}, r"size \[64, 0\]"),
    "prompt": ({"prompt": ["a"]}, r"prompt \['a'\]: expected a text"),
    "unit": ({"prompt": "a", "unit": "pixel"}, r"unit 'pixel'.*did you mean 'pixels'\?"),
    "key twice": ('{"boxes": {"dog": [0, 0, 1, 1], "dog": [0, 0, 1, 0.5]}}', "the key 'dog' stands twice"),
    "not JSON": ('{"prompt": "a",}', r"not JSON: .*line 1, column"),
    "too deep": ("[" * 100_000, "nested deeper"),
    "mask and box": ({"regions": [{"phrase": "dog", "box": [0, 0, 1, 1], "mask": [[1]]}]}, "both a box and a mask"),
    "ragged mask": ({"regions": [{"phrase": "dog", "mask": [[1], [1, 0]]}]}, r"region 1 \('dog'\): mask: expected rows"),
    "empty mask": ({"regions": [{"phrase": "dog", "mask": [[0]]}]}, "zero everywhere"),
    "huge number": ('{"boxes": {"dog": [0, 0, 1, 1' + "0" * 400 + "]}}", "expected four numbers"),
    "huge size": ('{"prompt": "a", "size": [64, 1' + "0" * 400 + "]}", "from 1 to 16384 each"),
    "half a character": ('{"prompt": "\\ud800"}', "half of a character in a text"),
    "no such mask": ({"regions": [{"phrase": "dog", "mask": "dog.png"}]}, r"region 1 \('dog'\): mask .*dog.png: no such file"),
    "layout without regions": ({"layout": {}}, "layout: 'regions' is missing"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD.keys())
def test_bad_items_are_refused(tmp_path: Path, data: object, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        read(tmp_path, data)


def test_lines_are_named(tmp_path: Path) -> None:
    lines = '{"prompt": "a"}\n\n{"prompt": "b", "boxes": {"b": [0, 0, 0, 1]}}\n'
    with pytest.raises(LayoutError, match=r"p.jsonl, line 3, box 1 \('b'\).*zero area"):
        read(tmp_path, lines, "p.jsonl")
    with pytest.raises(LayoutError, match=r"p.jsonl, line 2: not JSON"):
        read(tmp_path, '{"prompt": "a"}\nprompt\n', "p.jsonl")
    with pytest.raises(LayoutError, match="no lines"):
        read(tmp_path, "\n", "p.jsonl")


def test_a_bad_box_can_be_dropped_and_its_phrase_stays(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"boxes": {"dog": [0, 0, 0, 1], "cat": [0, 0, 1, 1], "bird": [0.5, 0, 0.1, 1]}}))
    found = read_layouts(path, on_bad_box="drop")
    assert found.items[0].layout == Layout((Region("dog"), Region("cat", Box(0, 0, 1, 1)), Region("bird")))
    assert [(each.where, each.what) for each in found.dropped] == [
        (f"{path}, box 1 ('dog')", "box"),
        (f"{path}, box 3 ('bird')", "box"),
    ]
    assert "swapped" in found.dropped[1].why
    path.write_text(json.dumps({"boxes": {"dog": [0, 0, 1]}}))
    with pytest.raises(LayoutError, match="four numbers"):  # no box at all is an error of the file
        read_layouts(path, on_bad_box="drop")


# NSR-1K and GLIGEN


def test_nsr1k_spatial_with_its_empty_boxes(tmp_path: Path) -> None:
    entry = {"id": 7, "image_id": 1, "relation": "left", "type": "natural", "prompt": "Two bottles on a bench"}
    objects = {"obj1": ["bottle", [0.1, 0.2, 0.3, 0.4]], "obj2": ["bench", [0.0, 0.0, 0.0, 0.0]]}
    path = tmp_path / "spatial.json"
    path.write_text(json.dumps([entry | objects]))
    found = read_layouts(path)
    layout = found.items[0].layout
    assert found.format == "nsr1k"
    assert (found.items[0].prompt, found.items[0].name) == ("Two bottles on a bench", "7")
    assert layout.phrases == ("bottles", "bench")
    assert layout.boxed[0].box is not None
    assert layout.boxed[0].box.xyxy == pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert len(layout.boxed) == 1
    assert [str(each) for each in found.dropped] == [
        f"{path}, entry 1, object 2 ('bench'): box: a box of zeros: no reference layout"
    ]


def test_nsr1k_counting(tmp_path: Path) -> None:
    objects = [["clock", [0, 0, 0.5, 1]], ["clock", [0.5, 0, 0.5, 1]]]
    entry = {"id": 1, "image_id": 2, "num_object": [["clock", 2]], "object_list": objects, "prompt": "two clocks"}
    found = read(tmp_path, [entry | {"sub-type": "single-category", "type": "template"}])
    assert found[0].layout == Layout((Region("clocks", Box(0, 0, 0.5, 1)), Region("clocks", Box(0.5, 0, 1, 1))))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"obj1": ["dog", [0, 0, 1, 1]]}, "entry 1: 'prompt' is missing"),
        ({"obj1": ["dog"], "prompt": "a dog"}, "object 1.*: box None: expected four numbers"),
        ({"obj1": [3, [0, 0, 1, 1]], "prompt": "a dog"}, "object 1: .*expected a name and a box"),
        ({"obj1": ["dog", [0.5, 0, 0.6, 1]], "prompt": "a dog"}, "object 1 .*right=1.1 is out of range"),
        ({"object_list": 3, "prompt": "a dog"}, "expected a list, got int"),
        ({"obj1": ["dog", [0, 0, 1, 1]], "prompt": "a dog", "relatoin": "x"}, "did you mean 'relation'"),
    ],
)
def test_bad_nsr1k(tmp_path: Path, entry: object, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        read(tmp_path, [entry])


def test_gligen_and_layout_guidance_lists(tmp_path: Path) -> None:
    expected = Layout((Region("a cat", Box(0, 0, 0.5, 1)), Region("a dog", Box(0.5, 0, 1, 1))))
    one = {"prompt": "a cat and a dog", "phrases": ["a cat", "a dog"], "locations": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}
    other = {"prompt": "a cat and a dog", "phrases": "a cat; a dog", "bboxes": [[[0, 0, 0.5, 1]], [[0.5, 0, 1, 1]]]}
    assert [item.layout for item in read(tmp_path, one)] == [expected]
    assert [item.layout for item in read(tmp_path, [one, other])] == [expected, expected]
    for wrong, said in (
        ({"locations": [[0, 0, 1, 1]]}, "2 phrases and 1 places"),
        ({"bboxes": other["bboxes"]}, "one of 'locations' and 'bboxes'"),
        ({"regions": []}, "could be gligen or lsregen; .*name it"),
    ):
        with pytest.raises(LayoutError, match=said):
            read(tmp_path, one | wrong)


# Which format


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a", '{"regions": []}', "lsregen"),
        ("a", '[{"prompt": "x"}]', "lsregen"),
        ("a", '{"prompt": "x"}\n{"prompt": "y"}\n', "jsonl"),
        ("a.jsonl", '{"prompt": "x"}', "jsonl"),
        ("a", '{"unit": "pixels", "size": [4, 4], "regions": []}', "pixels"),
        ("a", '{"images": [], "annotations": [], "categories": []}', "coco"),
        ("a", '[{"obj1": ["a", [0, 0, 1, 1]], "obj2": ["b", [0, 0, 1, 1]], "prompt": "x"}]', "nsr1k"),
        ("a", '{"phrases": [], "locations": []}', "gligen"),
        ("a", "0 0.5 0.5 1 1\n", "yolo"),
    ],
)
def test_the_content_tells_the_format(tmp_path: Path, name: str, text: str, format: str) -> None:
    (tmp_path / "classes.txt").write_text("dog\n")
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")  # some editors begin with a mark
    assert read_layouts(tmp_path / name).format == format


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", "3", '{"dog": [0, 0, 1, 1]}', "0 0.5 0.5 1\n", "[[0, 0, 1, 1]]"])
def test_what_cannot_be_told_is_not_guessed(tmp_path: Path, text: str) -> None:
    with pytest.raises(LayoutError, match=rf"a: cannot tell its format; .*boxes.*--from\): {', '.join(READERS)}"):
        read(tmp_path, text, "a")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"absent\.json: cannot be read"):
        read_layouts(tmp_path / "absent.json")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(LayoutError, match="not a text in UTF-8"):
        read_layouts(tmp_path / "picture.json")
    with pytest.raises(LayoutError, match="a folder; coco is a file"):
        read_layouts(tmp_path, "coco")


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format 'coko'.*did you mean 'coco'\?"):
        read_layouts(tmp_path, "coko")
    with pytest.raises(ConfigError, match=r"format 'nsr1k': expected one of lsregen, jsonl, pixels$"):
        encode_layouts(tmp_path / "a", [Item("a")], "nsr1k")
    with pytest.raises(ConfigError, match="on_bad_box 'ignore': expected one of error, drop"):
        read_layouts(tmp_path, on_bad_box="ignore")
    with pytest.raises(ConfigError, match="size"):
        read_layouts(tmp_path, size=(0, 4))
    with pytest.raises(LayoutError, match="no items"):
        encode_layouts(tmp_path / "a", [], "jsonl")


KEYS = [*ITEM_KEYS, *LISTS, *NSR1K_KEYS, "phrase", "box", "mask", "images", "annotations", "categories"]
KEYS += ["width", "height", "bbox", "category_id"]
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just([0, 0, 1, 1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
)


@settings(max_examples=200, deadline=None)
@given(nonsense, st.sampled_from([None, *READERS]))
def test_whatever_is_in_a_file_the_error_is_ours(data: object, format: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(LsregenError):
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(data))
        assert read_layouts(path, format).format in READERS


# The command line's form


def test_mask_region(tmp_path: Path) -> None:
    Image.new("L", (4, 2), 255).save(tmp_path / "a=b.png")
    assert mask_region(f" red circle ={tmp_path / 'a=b.png'}") == Region("red circle", mask=torch.ones(2, 4))
    for text in ("", "dog", "dog=", "=a.png", " = a.png", "=", "=="):
        with pytest.raises(LayoutError, match=r"expected PHRASE=FILE\.png"):
            mask_region(text)
    with pytest.raises(LayoutError, match=r"mask 'dog=absent.png', of the form.*no such file"):
        mask_region("dog=absent.png")


@pytest.mark.parametrize(
    ("text", "phrase", "width"),
    [
        ("dog=a=b.png", "dog", 4),
        ("x=1 dog=c.png", "x=1 dog", 2),
        ("x=1 dog=a=b.png", "x=1 dog", 4),
        ("dog=e=c.png", "dog=e", 2),  # both are files: the last sign parts them
    ],
)
def test_phrases_and_masks_may_hold_the_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, phrase: str, width: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in (("a=b.png", (4, 2)), ("c.png", (2, 2)), ("e=c.png", (8, 2))):
        Image.new("L", size, 255).save(name)
    assert mask_region(text) == Region(phrase, mask=torch.ones(2, width))


def test_a_mask_that_is_nowhere_is_named_by_its_last_part() -> None:
    with pytest.raises(LayoutError, match=r"mask absent\.png: no such file"):
        mask_region("x=1 dog=absent.png")
    with pytest.raises(LayoutError, match="of the form"):
        mask_region("dog=" + "x" * 5000)
    with pytest.raises(LayoutError, match="of the form"):
        mask_region("dog=a\0b")


def test_a_region_needs_a_phrase() -> None:
    with pytest.raises(PhraseError):
        Region(" ")
