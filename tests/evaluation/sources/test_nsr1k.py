"""NSR-1K as a source: its relations, its counts, its boxes, and phrases that a prompt says twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsregen.evaluation.runs.expects import Expects, Relation
from lsregen.evaluation.sources import Asked, read_source
from lsregen.framework.errors import LayoutError
from tests.evaluation.sources.lists import COUNTED, NSR, write


def test_nsr1k_states_relations(tmp_path: Path) -> None:
    source = read_source("nsr1k", Asked(write(tmp_path / "a.json", NSR), "drop"))
    [entry] = source.entries
    assert entry.id == "nsr1k-3"
    assert entry.expects == Expects((Relation("dog", "left of", "cat"),), classes={"dog": "dog", "cat": "cat"})
    assert [region.box and region.box.xyxy for region in entry.item.layout.regions] == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert source.origin.dropped == {"box of zeros": 2, "item without all of its boxes": 1}
    assert len(source.dropped) == 3


def test_nsr1ks_zeros_are_bad_boxes(tmp_path: Path) -> None:
    with pytest.raises(
        LayoutError, match=r"nsr1k-4 lost a box; 2 boxes cannot be used, the first is .* entry 2, object 1 .'dog'."
    ):
        read_source("nsr1k", Asked(write(tmp_path / "a.json", NSR)))


def test_nsr1ks_boxes_are_fractions_in_errors_too(tmp_path: Path) -> None:
    wide = [{**NSR[0], "obj1": ["dog", [0.6, 0, 0.5, 1]]}]
    said = (
        r"entry 1, object 1 .*box \[0.6, 0, 0.5, 1\] \(left, top, width, height\): right=1.1 is out of range; expected fractions "
        r".*; correct it, or leave such items out: --on-bad-box drop$"
    )
    with pytest.raises(LayoutError, match=said):
        read_source("nsr1k", Asked(write(tmp_path / "a.json", wide)))


def test_nsr1k_is_not_looked_at_beyond_the_limit(tmp_path: Path) -> None:
    [entry] = read_source("nsr1k", Asked(write(tmp_path / "a.json", NSR), limit=1)).entries
    assert entry.id == "nsr1k-3"


def test_keys_of_nothing_are_not_there(tmp_path: Path) -> None:
    given = [{**NSR[0], "object_list": None}, {**COUNTED[0], "obj1": None, "obj2": None, "relation": None}]
    pair, counted = read_source("nsr1k", Asked(write(tmp_path / "a.json", given))).entries
    assert (len(pair.expects.relations), counted.expects.counts) == (1, {"zebra": 2})


def test_nsr1k_states_counts(tmp_path: Path) -> None:
    [entry] = read_source("nsr1k", Asked(write(tmp_path / "a.json", COUNTED))).entries
    assert entry.expects == Expects(counts={"zebra": 2}, classes={"zebras": "zebra"})


def test_nsr1ks_stated_counts_are_read(tmp_path: Path) -> None:
    """Not its boxes counted, of which there may be fewer or more; what is named and not boxed is counted too."""
    given = [{**COUNTED[0], "num_object": [["zebra", 3], ["giraffe", 0.0]]}, {**COUNTED[0], "id": 99}]
    stated, boxed = read_source("nsr1k", Asked(write(tmp_path / "a.json", given))).entries
    assert (stated.expects.counts, len(stated.item.layout.regions)) == ({"zebra": 3, "giraffe": 0}, 2)
    assert boxed.expects.counts == {"zebra": 2}


@pytest.mark.parametrize("given", [3, ["zebra", 2], [["zebra"]], [["zebra", "2"]], [["zebra", 1.5]], [["zebra", -1]], [[2, 2]]])
def test_counts_that_nsr1k_cannot_state(tmp_path: Path, given: object) -> None:
    with pytest.raises(LayoutError, match="entry 1, num_object"):
        read_source("nsr1k", Asked(write(tmp_path / "a.json", [{**COUNTED[0], "num_object": given}])))


@pytest.mark.parametrize(
    ("prompt", "names", "phrases"),
    [
        ("a pizza on a pizza plate", ["pizza"], ["pizza#1"]),
        ("a dog beside another dog", ["dog", "dog"], ["dog#1", "dog#2"]),
        ("dogs and more dogs", ["dog", "dog", "dog"], ["dogs#1"] * 3),
        ("two dogs", ["dog", "dog"], ["dogs", "dogs"]),
        ("a cat", ["dog"], ["dog"]),
    ],
)
def test_a_phrase_that_nsr1ks_prompt_says_twice_is_numbered(
    tmp_path: Path, prompt: str, names: list[str], phrases: list[str]
) -> None:
    boxes = [[name, [0.1 * i, 0, 0.1, 1]] for i, name in enumerate(names)]
    entry = {"id": 1, "image_id": 2, "num_object": [[names[0], len(names)]], "object_list": boxes, "prompt": prompt}
    [found] = read_source("nsr1k", Asked(write(tmp_path / "a.json", [entry]))).entries
    assert [region.phrase for region in found.item.layout.regions] == phrases
    assert found.expects.classes == dict.fromkeys(phrases, names[0])


def test_a_relation_that_nsr1k_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"entry 1: relation 'lift': expected one of left, right, .*did you mean 'left'"):
        read_source("nsr1k", Asked(write(tmp_path / "a.json", [{**NSR[0], "relation": "lift"}])))
