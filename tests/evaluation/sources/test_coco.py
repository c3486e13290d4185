"""COCO's instances by split, with captions of their own or of a file, and everything that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.sources import Asked, Source, read_source
from lsregen.framework.errors import ConfigError, LayoutError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}, {"id": 1, "name": "person"}]
IMAGES = [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (11, 12, 13, 14, 15)]


def thing(image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


ANNOTATIONS = [
    thing(11, 18, [20, 10, 100, 50], area=1000),
    thing(12, 18, [0, 0, 50, 50], area=900),
    thing(12, 17, [50, 0, 100, 100], area=5000),
    thing(12, 1, [150, 0, 50, 100], area=1000),
    thing(13, 17, [0, 0, 20, 20]),
    thing(13, 17, [100, 0, 40, 40]),
    thing(14, 1, [0, 0, 20, 20], iscrowd=1),
    thing(14, 18, [0, 0, 200, 100]),
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        data = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES, **changes}
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(data))
        return path

    return make


def captions(path: Path, said: dict[Any, str]) -> Path:
    found = path.with_name("captions.jsonl")
    found.write_text("".join(json.dumps({"id": key, "caption": value}) + "\n" for key, value in said.items()))
    return found


def shown(source: Source) -> dict[str, list[tuple[str, tuple[float, ...] | None]]]:
    return {
        entry.id: [(region.phrase, region.box and region.box.xyxy) for region in entry.item.layout.regions]
        for entry in source.entries
    }


def test_single_is_exactly_one_object_crowds_aside(write: Callable[..., Path]) -> None:
    source = read_source("coco", Asked(write(), split="single"))
    assert shown(source) == {"coco-11": [("dog", (0.1, 0.1, 0.6, 0.6))], "coco-14": [("dog", (0.0, 0.0, 1.0, 1.0))]}
    assert [entry.item.prompt for entry in source.entries] == ["a dog", "a dog"]
    assert source.entries[0].item.size == (200, 100)
    assert source.origin.dropped == {"crowd": 1}
    assert source.origin.options == {"on_bad_box": "error", "limit": None, "split": "single"}
    assert source.size == "x3"


def test_multi_keeps_the_two_largest_by_pixel_area(write: Callable[..., Path]) -> None:
    source = read_source("coco", Asked(write(), split="multi"))
    assert shown(source) == {
        "coco-12": [("cat", (0.25, 0.0, 0.75, 1.0)), ("person", (0.75, 0.0, 1.0, 1.0))],
        "coco-13": [("cat#1", (0.5, 0.0, 0.7, 0.4)), ("cat#2", (0.0, 0.0, 0.1, 0.2))],
    }
    assert source.entries[0].item.prompt == "a cat and a person"
    assert source.entries[1].expects.classes == {"cat#1": "cat", "cat#2": "cat"}


def test_all_keeps_every_object_of_images_that_have_any(write: Callable[..., Path]) -> None:
    source = read_source("coco", Asked(write()))
    assert [(entry.id, len(entry.item.layout.regions)) for entry in source.entries] == [
        ("coco-11", 1),
        ("coco-12", 3),
        ("coco-13", 2),
        ("coco-14", 1),
    ]


def test_files_of_one_name_in_two_folders_keep_both_hashes(write: Callable[..., Path], tmp_path: Path) -> None:
    found = json.loads(write().read_text())
    said = [{"image_id": image["id"], "caption": "a dog, a cat and a bird"} for image in found["images"]]
    places = [tmp_path / "a" / "val.json", tmp_path / "b" / "val.json"]
    for place, data in zip(places, (found, {"annotations": said}), strict=True):
        place.parent.mkdir()
        place.write_text(json.dumps(data))
    files = read_source("coco", Asked(places[0], "drop", captions=places[1])).origin.files
    assert files == {f"{place.parent.name}/val.json": sha256(place.read_bytes()).hexdigest() for place in places}


def test_a_limit_takes_the_first(write: Callable[..., Path]) -> None:
    assert list(shown(read_source("coco", Asked(write(), limit=2)))) == ["coco-11", "coco-12"]


def test_a_limit_counts_the_images_of_the_split_before_any_is_left_out(write: Callable[..., Path]) -> None:
    path = write(annotations=[thing(11, 18, [0, 0, 0, 9]), *ANNOTATIONS[1:], thing(15, 17, [0, 0, 0, 9])])
    source = read_source("coco", Asked(path, "drop", limit=2))
    assert list(shown(source)) == ["coco-12"]
    assert source.origin.dropped == {"crowd": 1, "box that cannot be used": 1, "item without all of its boxes": 1}


def test_beyond_the_limit_no_image_needs_a_caption(write: Callable[..., Path]) -> None:
    path = write()
    said = captions(path, {12: "a cat and a person"})
    assert list(shown(read_source("coco", Asked(path, split="multi", captions=said, limit=1)))) == ["coco-12"]
    with pytest.raises(LayoutError, match="no caption of image 13"):
        read_source("coco", Asked(path, split="multi", captions=said, limit=2))


def test_captions_are_the_prompts_and_phrases_what_they_call_things(write: Callable[..., Path]) -> None:
    path = write()
    said = captions(path, {12: "a  cat looks at two persons", 13: "two cats"})
    source = read_source("coco", Asked(path, split="multi", captions=said))
    assert [entry.item.prompt for entry in source.entries] == ["a cat looks at two persons", "two cats"]
    assert [phrase for phrase, _ in shown(source)["coco-12"]] == ["cat", "persons"]
    assert source.entries[0].expects.classes == {"cat": "cat", "persons": "person"}
    assert set(source.origin.files) == {"instances.json", "captions.jsonl"}


def test_captions_in_cocos_own_form_first_ones(write: Callable[..., Path], tmp_path: Path) -> None:
    said = tmp_path / "captions.json"
    entries = [{"image_id": 11, "caption": "A dog."}, {"image_id": 11, "caption": "No."}, {"image_id": 14, "caption": "Dog"}]
    said.write_text(json.dumps({"images": [], "annotations": entries}))
    source = read_source("coco", Asked(write(), split="single", captions=said))
    assert [entry.item.prompt for entry in source.entries] == ["A dog.", "Dog"]


def test_an_object_that_the_caption_does_not_name(write: Callable[..., Path]) -> None:
    path = write()
    said = captions(path, {12: "a cat and a man", 13: "two cats"})
    with pytest.raises(LayoutError, match=r"annotation 4 \('person'\): the caption .* of image 12 has no such words"):
        read_source("coco", Asked(path, split="multi", captions=said))
    source = read_source("coco", Asked(path, "drop", split="multi", captions=said))
    assert list(shown(source)) == ["coco-13"]
    dropped = {"crowd": 1, "object that the caption does not name": 1, "item without all of its boxes": 1}
    assert source.origin.dropped == dropped


def test_a_bad_box_leaves_its_item_out_and_is_counted(write: Callable[..., Path]) -> None:
    path = write(annotations=[*ANNOTATIONS, thing(15, 18, [150, 0, 100, 50]), thing(15, 17, [0, 0, 0, 9])])
    with pytest.raises(
        LayoutError, match=r"annotation 9 \('dog'\): box .*; correct it, or leave such items out: --on-bad-box drop$"
    ):
        read_source("coco", Asked(path, split="multi"))
    source = read_source("coco", Asked(path, "drop", split="multi"))
    assert list(shown(source)) == ["coco-12", "coco-13"]
    assert source.origin.dropped == {"crowd": 1, "box that cannot be used": 2, "item without all of its boxes": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"annotations": 7}, "annotations: expected a list, got int"),
        ({"images": None}, "'images' is missing"),
        ({"annotations": [thing(99, 18, [0, 0, 1, 1])]}, "image_id 99 is none of the 5 images"),
        ({"annotations": [thing(11, 99, [0, 0, 1, 1])]}, "category_id 99 is none of the file's categories"),
        ({"annotations": [thing(11, 18, [0, 0, 9])]}, "expected four numbers"),
        ({"images": [{"id": 11, "file_name": "a.jpg"}], "annotations": ANNOTATIONS[:1]}, "no width and height"),
    ],
)
def test_files_that_are_not_coco(write: Callable[..., Path], changes: dict[str, Any], why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        read_source("coco", Asked(write(**changes), split="all"))


@pytest.mark.parametrize("area", ["big", -1, True, float("inf")])
def test_an_area_that_is_none(write: Callable[..., Path], area: Any) -> None:
    things = [thing(11, 18, [0, 0, 9, 9], area=area), thing(11, 17, [0, 0, 9, 9], area=5)]
    with pytest.raises(LayoutError, match=r"annotation 1: area .*: expected a number of pixels"):
        read_source("coco", Asked(write(annotations=things), split="multi"))


@pytest.mark.parametrize("text", ["", "[]", "nothing", '{"images": []}'])
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LayoutError, match=r"a.json"):
        read_source("coco", Asked(tmp_path / "a.json"))


def test_an_empty_split_is_said(write: Callable[..., Path]) -> None:
    one, crowd = ANNOTATIONS[0], ANNOTATIONS[6]
    said = (
        r"instances.json: no items \(split multi\): of its 5 images 1 with exactly one object, 0 with two or more, "
        r"4 with none \(besides 1 crowd\)"
    )
    with pytest.raises(LayoutError, match=said):
        read_source("coco", Asked(write(annotations=[one, crowd]), split="multi"))


def test_what_was_left_out_of_an_empty_source_is_counted(write: Callable[..., Path]) -> None:
    path = write(annotations=[thing(11, 18, [0, 0, 0, 9]), thing(12, 18, [0, 0, 0, 9])])
    left = r"no items \(split all\); left out: 2 x box that cannot be used, 2 x item without all of its boxes; the first is"
    with pytest.raises(LayoutError, match=left):
        read_source("coco", Asked(path, "drop"))


def test_captions_of_images_that_are_not_in_the_file_are_counted(write: Callable[..., Path]) -> None:
    """Such as those of the whole data set, beside a part of its instances."""
    path = write()
    said = captions(path, {11: "a dog", 12: "a cat", 14: "a dog", 77: "a cat", 78: "a cat"})
    source = read_source("coco", Asked(path, split="single", captions=said))
    assert [entry.item.prompt for entry in source.entries] == ["a dog", "a dog"]
    assert source.origin.dropped == {"crowd": 1, "caption of no image in instances.json": 2}
    assert str(source.dropped[-1]) == f"{said}, image 78: caption: of no image in instances.json"


@pytest.mark.parametrize("ids", [(77, 78), ("11", "14")])
def test_captions_of_other_images_alone(write: Callable[..., Path], ids: tuple[int | str, ...]) -> None:
    path = write()
    said = captions(path, dict.fromkeys(ids, "a dog"))
    of_others = rf"no caption of image 11, .* of other images are 2 of the 2 captions, the first has the id {ids[0]!r}; expected"
    with pytest.raises(LayoutError, match=of_others):
        read_source("coco", Asked(path, split="single", captions=said))


def test_captions_where_instances_are_expected_and_the_reverse(write: Callable[..., Path], tmp_path: Path) -> None:
    path, said = write(), tmp_path / "captions.json"
    entries = [{"image_id": 11, "id": 1, "caption": "a dog"}]
    said.write_text(json.dumps({"images": IMAGES, "annotations": entries}))
    with pytest.raises(LayoutError, match=r"captions.json: a file of captions, .* expected COCO's instances .*--captions of"):
        read_source("coco", Asked(said, split="single"))
    with pytest.raises(
        LayoutError, match=r"instances.json: a file of instances, without any caption; .* evaluate plan coco FILE"
    ):
        read_source("coco", Asked(path, split="single", captions=path))


def test_an_image_without_a_caption(write: Callable[..., Path]) -> None:
    path = write()
    with pytest.raises(
        LayoutError,
        match=r"no caption of image 14, which is in the split 'single' of .* \(of its 2 images 1 without one\); expected",
    ):
        read_source("coco", Asked(path, split="single", captions=captions(path, {11: "a dog"})))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"id": 1}\n', "line 1: 'caption' is missing"),
        ('{"id": 1, "caption": "a"}\n\n{"id": 1, "caption": "b"}\n', "line 3: image 1 has a caption already"),
        ('{"id": 1, "caption": " "}\n', "an empty caption"),
        ('{"id": 1.5, "caption": "a"}\n', "id 1.5: expected a whole number or a text"),
        ('{"id": 1, "captoin": "a"}\n', "unknown key 'captoin' .did you mean 'caption'"),
    ],
)
def test_captions_that_cannot_be_used(write: Callable[..., Path], tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "captions.jsonl").write_text(text)
    with pytest.raises(LayoutError, match=why):
        read_source("coco", Asked(write(), captions=tmp_path / "captions.jsonl"))


def test_what_is_not_of_this_source(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="objects 3: not of the source coco; it is of shapeworld"):
        read_source("coco", Asked(write(), objects=3))


def test_a_split_of_another_name() -> None:
    with pytest.raises(ConfigError, match="split 'double': expected one of single, multi, all"):
        Asked(split="double")


def test_without_a_file() -> None:
    with pytest.raises(ConfigError, match=r"^source coco: it reads a file: name it"):
        read_source("coco", Asked())
