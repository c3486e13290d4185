"""`lsregen layout`: files from one format into another, whole or not at all, and what a file holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.layout_files.formats import read_layouts, write_layouts
from lsregen.framework.layout_files.item import Item

Call = Callable[..., Result]
LAYOUT = Layout((Region("dog", Box(0, 0.25, 0.5, 1)), Region("cat", Box(0.5, 0, 1, 0.5))))
ITEM = Item("a dog and a cat", LAYOUT, size=(64, 32))


@pytest.fixture
def source(run: Call) -> str:
    """`in.json`, in the folder that `run` changes to."""
    write_layouts("in.json", [ITEM], "lsregen")
    return "in.json"


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    for text in said:
        assert text in result.stderr


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("target", "options", "format"),
    [
        ("out.json", (), "lsregen"),
        ("out.jsonl", (), "jsonl"),
        ("out.json", ("--to", "pixels"), "pixels"),
        ("deep/out.json", ("--to", "pixels"), "pixels"),
        ("out.data", ("--to", "jsonl", "--from", "lsregen"), "jsonl"),
    ],
)
def test_convert(run: Call, source: str, target: str, options: tuple[str, ...], format: str) -> None:
    result = run("layout", "convert", source, target, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}  1 item from lsregen to {format}\n"
    found = read_layouts(target, format, size=(64, 32))
    assert [(item.layout, item.prompt) for item in found.items] == [(LAYOUT, ITEM.prompt)]


def test_convert_there_and_back(run: Call, source: str) -> None:
    for one, two, *options in (
        (source, "pixels.json", "--to", "pixels", "--size", "64x32"),
        ("pixels.json", "back.jsonl"),
    ):
        assert run("layout", "convert", one, two, *options).exit_code == 0
    assert read_layouts("back.jsonl").items[0].layout == LAYOUT


def test_what_others_wrote_becomes_our_own(run: Call) -> None:
    Path("labels").mkdir()
    Path("labels/one.txt").write_text("1 0.5 0.75 0.5 0.5\n")
    Path("classes.txt").write_text("cat\ndog\n")
    assert run("layout", "convert", "labels", "out.jsonl").stdout == "out.jsonl  1 item from yolo to jsonl\n"
    assert read_layouts("out.jsonl").items[0].layout == Layout((Region("dog", Box(0.25, 0.5, 0.75, 1)),))


def test_segmentations_become_masks(run: Call) -> None:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 4], "segmentation": [[0, 0, 2, 0, 2, 4, 0, 4]]}
    data = {"images": [{"id": 1, "width": 4, "height": 4}], "annotations": [annotation], "categories": [{"id": 1, "name": "dog"}]}
    Path("coco.json").write_text(json.dumps(data))
    assert run("layout", "convert", "coco.json", "out.jsonl", "--masks").exit_code == 0
    assert files() == ["coco.json", "out-1-1.png", "out.jsonl"]
    (region,) = read_layouts("out.jsonl").items[0].layout.regions
    assert region == Region("dog", mask=torch.tensor([[1.0, 1, 0, 0]] * 4))
    refused(run("layout", "convert", "out.jsonl", "again.jsonl", "--masks"), "only coco has segmentations", "is jsonl")


def test_what_is_dropped_or_left_out_is_told(run: Call) -> None:
    empty = {"prompt": "a dog and a cat", "obj1": ["dog", [0, 0, 0, 0]], "obj2": ["cat", [0, 0, 1, 1]]}
    Path("spatial.json").write_text(json.dumps([empty] * 25))
    result = run("layout", "convert", "spatial.json", "out.jsonl")
    assert result.stdout == "out.jsonl  25 items from nsr1k to jsonl\n"
    told = result.stderr.splitlines()
    assert told[0] == "25 dropped:"
    assert told[1] == "  spatial.json, entry 1, object 1 ('dog'): box: a box of zeros: no reference layout"
    assert told[-1] == "  and 5 more"
    assert len(told) == 22


def test_nothing_is_replaced_unless_forced(run: Call, source: str) -> None:
    Path("out.jsonl").write_text("mine")
    refused(run("layout", "convert", source, "out.jsonl"), "out.jsonl exists", "--force")
    assert Path("out.jsonl").read_text() == "mine"
    assert run("layout", "convert", source, "out.jsonl", "--force").exit_code == 0
    assert read_layouts("out.jsonl").items == (ITEM,)
    assert run("layout", "convert", source, source, "--to", "pixels", "--size", "9x9", "--force").exit_code == 0  # onto itself
    assert read_layouts(source).format == "pixels"


def test_one_file_in_the_way_keeps_all_from_being_written(run: Call, source: str) -> None:
    write_layouts("masks.jsonl", [Item("a dog", Layout((Region("dog", mask=torch.eye(3)),)))], "jsonl")
    Path("out-1-1.png").write_text("mine")
    refused(run("layout", "convert", "masks.jsonl", "out.json"), "out-1-1.png exists")
    assert files() == [source, "masks-1-1.png", "masks.jsonl", "out-1-1.png"]
    assert Path("out-1-1.png").read_text() == "mine"
    Path("folder.json").mkdir()
    refused(run("layout", "convert", source, "folder.json", "--force"), "a folder is in the way")
    refused(run("layout", "convert", source, "in.json/out.json"), "cannot make this folder")


def test_masks_are_written_beside(run: Call) -> None:
    write_layouts("in.jsonl", [Item("a dog", Layout((Region("dog", mask=torch.eye(3)),)))], "jsonl")
    assert run("layout", "convert", "in.jsonl", "out/out.json").exit_code == 0
    assert files() == ["in-1-1.png", "in.jsonl", "out/out-1-1.png", "out/out.json"]
    assert read_layouts("out/out.json").items[0].layout == Layout((Region("dog", mask=torch.eye(3)),))
    assert "'dog'  mask of 3x3" in run("layout", "show", "out/out.json").stdout


def test_show(run: Call) -> None:
    lines = [
        {
            "prompt": "a dog\nand a cat",
            "boxes": {"dog": [0, 0, 0.123456, 1], "cat": [1, 0, 0, 1]},
            "seed": 3,
            "negative": "blurry",
        },
        {"name": "two", "prompt": "a bird", "size": [64, 32], "layout": {"regions": []}},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shown = run("layout", "show", "in.jsonl")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[:-1] == [
        "in.jsonl: jsonl, 2 items, 1 box, 0 masks, 1 phrase without a place",
        "   1  seed 3  'a dog\\nand a cat'  not 'blurry'",
        "        'dog'  box 0,0,0.1235,1",
        "        'cat'  no place",
        "   2  two  64x32  'a bird'",
        "dropped: 1",
    ]
    assert shown.stdout.splitlines()[-1].startswith("  in.jsonl, line 1, box 2 ('cat'): box: box [1, 0, 0, 1]: left=1 > right=0")
    refused(run("layout", "show", "in.jsonl", "--on-bad-box", "error"), "in.jsonl, line 1, box 2", "swapped", "--on-bad-box drop")


def test_bad_boxes_stop_a_conversion_unless_dropped(run: Call) -> None:
    Path("in.json").write_text(json.dumps({"boxes": {"dog": [0, 0, 2, 1], "cat": [0, 0, 1, 1]}}))
    refused(run("layout", "convert", "in.json", "out.jsonl"), "in.json, box 1 ('dog')", "--on-bad-box drop")
    assert not Path("out.jsonl").exists()
    result = run("layout", "convert", "in.json", "out.jsonl", "--on-bad-box", "drop")
    assert result.exit_code == 0
    assert "1 dropped:" in result.stderr
    assert read_layouts("out.jsonl").items[0].layout == Layout((Region("dog"), Region("cat", Box(0, 0, 1, 1))))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("show", "absent.json"), "absent.json: cannot be read"),
        (("show", "in.json", "--from", "coko"), "did you mean 'coco'?"),
        (("convert", "in.json", "out.png"), "no format has the ending '.png'; name it with --to"),
        (
            ("convert", "in.json", "out.json", "--to", "nsr1k"),
            "format 'nsr1k': expected one of lsregen, jsonl, pixels",
        ),
        (("convert", "in.json", "out.json", "--size", "64"), "--size '64': expected WIDTHxHEIGHT"),
        (("convert", "in.json", "out.json", "--from", "yolo"), "no classes.txt or data.yaml"),
        (("convert", "in.json", "out.txt"), "no format has the ending '.txt'"),
        (("show", "in.json", "--from", "yolo", "--classes", "absent.txt"), "absent.txt: cannot be read"),
    ],
)
@pytest.mark.usefixtures("source")
def test_bad_input(run: Call, args: tuple[str, ...], said: str) -> None:
    refused(run("layout", *args), said)
    assert files() == ["in.json"]
