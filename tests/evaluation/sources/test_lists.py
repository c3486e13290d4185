"""The sources that are lists: Attend-and-Excite, GenEval, our own JSON lines and CSV, and scenes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.runs.expects import Attribute, Expects, Relation
from lsregen.evaluation.sources import Asked, read_source
from lsregen.framework.errors import ConfigError, LayoutError
from tests.evaluation.sources.lists import COUNTED, NSR, write

GENEVAL: list[dict[str, Any]] = [
    {
        "tag": "counting",
        "include": [{"class": "knife", "count": 3}],
        "exclude": [{"class": "knife", "count": 4}],
        "prompt": "a photo of three knives",
    },
    {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "bus", "count": 1, "position": ["right of", 0]}],
        "prompt": "a photo of a bus right of a dog",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "wine glass", "count": 1, "color": "purple"}, {"class": "apple", "count": 1, "color": "black"}],
        "prompt": "a photo of a purple wine glass and a black apple",
    },
]


def test_attend_and_excite_names_two_things(tmp_path: Path) -> None:
    data = {"animals": ["an elephant and a frog"], "objects": [{"prompt": "a red car with a bow", "indices": [3, 6]}]}
    entries = read_source("attend-and-excite", Asked(write(tmp_path / "a.json", data))).entries
    assert [entry.id for entry in entries] == ["ae-animals-1", "ae-objects-1"]
    assert [entry.item.layout.phrases for entry in entries] == [("elephant", "frog"), ("car", "bow")]
    assert entries[1].expects == Expects(attributes=(Attribute("red car", "car", "red"),), classes={"car": "car", "bow": "bow"})


def test_one_noun_twice_is_numbered(tmp_path: Path) -> None:
    data = {"objects": ["a red car and a blue car"]}
    [entry] = read_source("attend-and-excite", Asked(write(tmp_path / "a.json", data))).entries
    assert entry.item.layout.phrases == ("car#1", "car#2")
    assert entry.expects.classes == {"car#1": "car", "car#2": "car"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "expected a mapping from groups to lists of prompts, got list"),
        ({"animals": "a cat and a dog"}, "animals: expected a list, got str"),
        ({"animals": ["a cat"]}, "animals, prompt 1: 'a cat': expected two things"),
        ({"animals": [{"text": "a cat and a dog"}]}, "animals, prompt 1: unknown key 'text'"),
        ({"animals": []}, "no items"),
    ],
)
def test_prompts_of_another_form(tmp_path: Path, data: Any, why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        read_source("attend-and-excite", Asked(write(tmp_path / "a.json", data)))


def test_geneval_says_what_it_checks(tmp_path: Path) -> None:
    entries = read_source("geneval", Asked(write(tmp_path / "a.jsonl", GENEVAL))).entries
    assert [entry.id for entry in entries] == ["geneval-00000", "geneval-00001", "geneval-00002"]
    assert entries[0].expects == Expects(counts={"knife": 3}, classes={"knives": "knife"})
    assert entries[1].expects.relations == (Relation("bus", "right of", "dog"),)
    assert entries[1].expects.counts == {}
    assert entries[2].expects.attributes == (
        Attribute("purple wine glass", "wine glass", "purple"),
        Attribute("black apple", "apple", "black"),
    )
    assert entries[2].item.layout.phrases == ("wine glass", "apple")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prompt": "a photo"}, "the prompt 'a photo' does not name 'knife'"),
        (
            {"include": [{"class": "knife", "count": 1, "position": ["right of", 1]}]},
            "expected a relation and the number of a thing",
        ),
        ({"include": [{"class": "knife", "count": 1, "position": ["right", 0]}]}, "position 'right': expected one of left of"),
        ({"include": [{"class": "knife", "count": "three"}]}, "count 'three': expected a whole number"),
        ({"include": [{"class": "knife"}]}, "thing 1: 'count' is missing"),
        ({"metadata": 1}, "unknown key 'metadata'"),
    ],
)
def test_metadata_of_another_form(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(LayoutError, match=rf"a.jsonl, line 1.*{why}"):
        read_source("geneval", Asked(write(tmp_path / "a.jsonl", [{**GENEVAL[0], **change}])))


LINES: list[dict[str, Any]] = [
    {"name": "two", "prompt": "a dog and a cat", "boxes": {"dog": [0, 0, 0.5, 1]}, "seed": 7, "size": [64, 32]},
    {"prompt": "a cat", "expects": {"counts": {"cat": 1}, "relations": [{"subject": "a", "relation": "above", "object": "b"}]}},
]


def test_our_own_lines(tmp_path: Path) -> None:
    source = read_source("list", Asked(write(tmp_path / "a.jsonl", LINES)))
    assert [entry.id for entry in source.entries] == ["two", "line-2"]
    assert (source.entries[0].item.seed, source.entries[0].item.size) == (7, (64, 32))
    assert source.entries[1].expects == Expects((Relation("a", "above", "b"),), {"cat": 1})
    assert source.size == "own"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"prompt": "a cat", "expects": {"count": {"cat": 1}}}, r"line 3, expects.count: no such option .*did you mean 'counts'"),
        ({"prompt": "a cat", "expects": 3}, "line 3, expects: 3 is not a mapping"),
        ({"prompt": "a cat", "box": [0, 0, 1, 1]}, "line 3: unknown key 'box'"),
        ({"name": "two", "prompt": "a cat"}, "the item 'two' stands twice"),
        ([], "line 3: expected a mapping"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, line: Any, why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        read_source("list", Asked(write(tmp_path / "a.jsonl", [*LINES, line])))


BAD = {"prompt": "a cat", "boxes": {"cat": [0.5, 0, 0.2, 1]}}


def bad_csv(path: Path) -> Path:
    path.write_text("name,prompt,phrase,left,top,right,bottom\na,a dog,dog,0,0,1,1\nb,a cat,cat,0.5,0,0.2,1\nc,a sky,sky,,,,\n")
    return path


def bad_lines(path: Path) -> Path:
    return write(
        path, [{"prompt": "a dog", "boxes": {"dog": [0, 0, 1, 1]}}, BAD, {"prompt": "a sky", "regions": [{"phrase": "sky"}]}]
    )


def bad_pairs(path: Path) -> Path:
    return write(path, [NSR[0], NSR[1], COUNTED[0]])


def bad_labels(path: Path) -> Path:
    path.mkdir()
    (path / "classes.txt").write_text("dog\n")
    for name, label in (("a", "0 0.5 0.5 1 1"), ("b", "0 0.5 0.5 0 1"), ("c", "0 0.2 0.2 0.1 0.1")):
        (path / f"{name}.txt").write_text(label)
    return path


def bad_coco(path: Path) -> Path:
    things = [{"image_id": i, "category_id": 1, "bbox": box} for i, box in ((1, [0, 0, 9, 9]), (2, [0, 0, 0, 9]))]
    crowd = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    images = [{"id": i, "width": 9, "height": 9, "caption": "a dog"} for i in (1, 2, 3)]
    return write(path, {"images": images, "annotations": [*things, crowd], "categories": [{"id": 1, "name": "dog"}]})


LISTS = {
    "a.csv": bad_csv,
    "a.jsonl": bad_lines,
    "layouts.json": bad_lines,
    "pairs.json": bad_pairs,
    "labels": bad_labels,
    "coco.json": bad_coco,
}


@pytest.mark.parametrize("name", LISTS)
def test_an_item_with_a_bad_box_is_left_out_of_every_list(tmp_path: Path, name: str) -> None:
    path = LISTS[name](tmp_path / name)
    with pytest.raises(LayoutError, match="--on-bad-box drop"):
        read_source("list", Asked(path))
    source = read_source("list", Asked(path, "drop"))
    assert len(source.entries) == source.origin.items == 2
    assert source.origin.dropped["item without all of its boxes"] == 1
    assert sum(count for what, count in source.origin.dropped.items() if what.startswith("box")) >= 1
    first = read_source("list", Asked(path, "drop", limit=1))
    assert [entry.id for entry in first.entries] == [source.entries[0].id]
    assert set(first.origin.dropped) <= {"crowd"}


def test_a_bad_box_of_a_line_names_it(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"line 2.*are the corners swapped"):
        read_source("list", Asked(bad_lines(tmp_path / "a.jsonl")))


CSV = """name,prompt,seed,width,height,phrase,left,top,right,bottom,category
two,"a dog, left of a cat",7,64,32,dog,0,0,0.5,1,animal
two,,,,,cat,0.5,0,1,1,
none,a house,,,,,,,,,
"""


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    two, none = read_source("list", Asked(tmp_path / "a.csv")).entries
    assert (two.id, two.item.prompt, two.item.seed, two.item.size) == ("two", "a dog, left of a cat", 7, (64, 32))
    assert [(region.phrase, region.box and region.box.xyxy) for region in two.item.layout.regions] == [
        ("dog", (0, 0, 0.5, 1)),
        ("cat", (0.5, 0, 1, 1)),
    ]
    assert two.expects.classes == {"dog": "animal"}
    assert (none.item.prompt, none.item.layout.regions, none.item.seed) == ("a house", (), None)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("prompt\na\n", "no column 'name'"),
        ("name,prompt,colour\na,b,c\n", "column 'colour': expected name, prompt"),
        ("name,prompt\na,b,c\n", "line 2: more values than the 2 columns"),
        ("name,prompt\n,b\n", "line 2: name '': expected one in each row"),
        ("name,prompt\na,b\nc,d\na,b\n", "line 4: name 'a': expected one in each row, and rows of one name together"),
        ("name,prompt\na,b\na,c\n", "line 3: prompt 'c', and 'b' in a row above"),
        ("name,prompt,seed\na,b,1.5\n", "line 2: seed '1.5': expected a whole number"),
        ("name,prompt,phrase,left,top,right,bottom\na,b,b,0,0,1,\n", "line 2: bottom '': expected a number"),
        ("name,prompt,phrase,left,top,right,bottom\na,b,,0,0,1,1\n", "line 2: left without a phrase"),
        ("name,prompt,phrase,left,top,right,bottom\na,b,b,0,0,2,1\n", r"line 2, region 1 .*out of range"),
        ("name,prompt\n", "no rows"),
        ('name,prompt\na,"b\n', "not a row of CSV .unexpected end of data.; is a quote never closed"),
        ('name,prompt\n"a"b,c\n', "line 2: not a row of CSV"),
        ("name,prompt,prompt\na,b,c\n", "the column 'prompt' stands twice"),
        ('name,prompt\na,b\nb,"' + "x" * 200_000, r"line 3: not a row of CSV \(field larger than field limit .* never closed"),
        ("name," + "x" * 200_000 + "\na,b\n", r"line 1: not a row of CSV \(field larger than field limit"),
        ("name,prompt,phrase,left,top,right,bottom\na,b,b,nan,0,1,1\n", "line 2"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, table: str, why: str) -> None:
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(LayoutError, match=why):
        read_source("list", Asked(tmp_path / "a.csv"))


def test_any_other_file_of_layouts(tmp_path: Path) -> None:
    data = {"phrases": ["dog"], "locations": [[0, 0, 0.5, 1]], "prompt": "a dog"}
    [entry] = read_source("list", Asked(write(tmp_path / "a.json", data))).entries
    assert (entry.id, entry.item.layout.phrases) == ("item-1", ("dog",))


def test_scenes_keep_their_seeds_and_boxes() -> None:
    source = read_source("shapeworld", Asked(count=2, first=5, objects=1))
    assert [(entry.id, entry.item.seed) for entry in source.entries] == [("shapeworld-5", 5), ("shapeworld-6", 6)]
    assert all(len(entry.item.layout.boxed) == 1 for entry in source.entries)
    assert source.origin.options["first"] == 5


def test_a_source_of_another_name() -> None:
    with pytest.raises(ConfigError, match=r"source 'cocoa': expected one of .*did you mean 'coco'"):
        read_source("cocoa", Asked())


def test_a_file_for_a_source_that_reads_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path 'a.json': not of the source shapeworld; it is of coco, nsr1k"):
        read_source("shapeworld", Asked(Path("a.json")))


@pytest.mark.parametrize("name", ["nsr1k", "attend-and-excite", "geneval", "list"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="cannot be read"):
        read_source(name, Asked(tmp_path / "a.jsonl"))


def test_the_lists_of_the_page_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "scale.md").read_text(encoding="utf-8")
    section = page.partition("### A list of your own")[2].partition("\n### ")[0]
    lines, rows = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    (tmp_path / "own.jsonl").write_text(lines)
    (tmp_path / "own.csv").write_text(rows)
    (one,), (other,) = (read_source("list", Asked(tmp_path / f"own.{ending}")).entries for ending in ("jsonl", "csv"))
    assert one.item == other.item
    assert (one.id, one.item.seed, one.item.size) == ("two-dogs", 7, (512, 512))
    assert one.expects.relations == (Relation("dog", "left of", "cat"),)
    assert one.expects.attributes == (Attribute("red dog", "dog", "red"),)
    assert one.expects.classes == {"red dog": "dog"}
    assert other.expects.classes == {"red dog": "dog", "cat": "cat"}


def test_what_may_be_expected_is_told_beside_the_keys_of_an_item(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"prompt": "a dog", "expcts": {}}')
    with pytest.raises(
        LayoutError, match=r"^source list: .*own.jsonl, line 1: unknown key 'expcts' \(did you mean 'expects'\?\)"
    ):
        read_source("list", Asked(tmp_path / "own.jsonl"))


def test_lines_behind_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"prompt": "a dog"}\n\n{"prompt": "a cat"}\n{"expcts": 1\n')
    found = read_source("list", Asked(tmp_path / "own.jsonl", limit=2))
    assert [entry.item.prompt for entry in found.entries] == ["a dog", "a cat"]
    with pytest.raises(LayoutError, match="line 4: not JSON"):
        read_source("list", Asked(tmp_path / "own.jsonl", limit=3))


@pytest.mark.parametrize("written", ["7", "7.0", "7e0"])
def test_whole_numbers_may_have_a_point(tmp_path: Path, written: str) -> None:
    """A spreadsheet writes 7 as 7.0, and JSON has one kind of number."""
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a dog", "seed": {written}, "size": [64.0, 64]}}')
    (tmp_path / "a.csv").write_text(f"name,prompt,seed,width,height\none,a dog,{written},64.0,64\n")
    for ending in ("jsonl", "csv"):
        [entry] = read_source("list", Asked(tmp_path / f"a.{ending}")).entries
        assert (entry.item.seed, entry.item.size) == (7, (64, 64))
        assert type(entry.item.seed) is int


@pytest.mark.parametrize("written", ["7.5", "nan", "inf", "1e400", "seven"])
def test_what_is_no_whole_number_in_a_table(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.csv").write_text(f"name,prompt,seed\none,a dog,{written}\n")
    with pytest.raises(LayoutError, match=f"line 2: seed '{written}'"):
        read_source("list", Asked(tmp_path / "a.csv"))


@pytest.mark.parametrize("count", [0, -1, 10**12])
def test_numbers_of_scenes_that_are_none(count: int) -> None:
    with pytest.raises(ConfigError, match=f"count {count}"):
        Asked(count=count)
