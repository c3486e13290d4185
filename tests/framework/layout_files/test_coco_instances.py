"""COCO and YOLO: prompts for what has none, what is refused, and where the names of classes come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.errors import LayoutError, PhraseError
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.layout.tokens import TokenTable
from lsregen.framework.layout_files.coco_instances import category_of, compose, spoken, told
from lsregen.framework.layout_files.formats import read_layouts
from lsregen.framework.layout_files.item import Item, Items

# Prompts


@pytest.mark.parametrize(
    ("names", "prompt", "phrases"),
    [
        ([], "", []),
        (["dog"], "a dog", ["dog"]),
        (["orange", "dog"], "an orange and a dog", ["orange", "dog"]),
        (["dog", "cat", "dog"], "a dog, a cat and a dog", ["dog#1", "cat", "dog#2"]),
        (["hot dog", "dog"], "a hot dog and a dog", ["hot dog", "dog#2"]),
        (["Dog", "dog"], "a Dog and a dog", ["Dog#1", "dog#2"]),
    ],
)
def test_a_prompt_is_composed(names: list[str], prompt: str, phrases: list[str]) -> None:
    assert compose(names) == (prompt, phrases)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["dog", "hot dog", "cat", "and", "a", "potted plant", "plant", "apple"]), max_size=6))
def test_composed_phrases_find_their_own_words(names: list[str]) -> None:
    prompt, phrases = compose(names)
    spans = [TokenTable(prompt, ()).locate(phrase) for phrase in phrases]
    assert [prompt[start:end] for start, end in spans] == names
    assert spans == sorted(set(spans))  # each its own, in their order


def test_a_category_without_a_name_is_refused_by_its_file_and_image(tmp_path: Path) -> None:
    with pytest.raises(PhraseError, match=r"instances.json, image 9: category ''"):
        load(tmp_path, coco(categories=[{"id": 18, "name": " "}]))


def test_a_name_that_begins_with_a_character_that_is_not_shown_stands_in_its_prompt() -> None:
    assert compose(["\u200bdog", "dog"]) == ("a \u200bdog and a dog", ["\u200bdog#1", "dog#2"])


def test_the_last_of_thousands_of_things_has_its_number() -> None:
    prompt, phrases = compose(["dog", "hot dog"] * 1000)
    assert (phrases[0], phrases[-2], phrases[-1]) == ("dog#1", "dog#1999", "hot dog#1000")
    assert TokenTable(prompt, ()).locate(phrases[-2]) == (
        len(prompt) - len("dog and a hot dog"),
        len(prompt) - len(" and a hot dog"),
    )


@pytest.mark.parametrize(
    ("name", "prompt", "found"),
    [
        ("dog", "two Dogs", "dogs"),
        ("dog", "a dog and dogs", "dog"),
        ("bus", "three buses", "buses"),
        ("knife", "knives", "knives"),
        ("teddy", "teddies", "teddies"),
        ("person", "some people", "people"),
        ("fire hydrant", "two fire hydrants", "fire hydrants"),
        ("dog", "dog, dog", "dog"),
        ("dog", "a cat", "dog"),
        ("dog", "", "dog"),
    ],
)
def test_names_as_the_prompt_has_them(name: str, prompt: str, found: str) -> None:
    assert spoken(name, prompt) == found


def test_a_number_is_no_part_of_a_category() -> None:
    assert [category_of(phrase) for phrase in ("dog#2", "dog #12", "dog", "#2", "a#b")] == ["dog", "dog", "dog", "#2", "a#b"]


# COCO


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [{"id": 9, "width": 640, "height": 480, "file_name": "9.jpg"}, {"id": 4, "width": 10, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 10], "iscrowd": 0, "segmentation": []},
            {"id": 2, "image_id": 9, "category_id": 18, "bbox": [160, 240, 320, 240]},
            {"id": 3, "image_id": 4, "category_id": 18, "bbox": [5, 10, 5, 10]},
        ],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
    } | changes


def load(tmp_path: Path, data: object, **options: Any) -> Items:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return read_layouts(path, "coco", **options)


def test_coco_instances(tmp_path: Path) -> None:
    first, second = Region("dog#1", Box(0, 0, 0.5, 0.5)), Region("dog#2", Box(0.5, 0.5, 1, 1))
    assert load(tmp_path, coco()).items == (
        Item("a dog", Layout((Region("dog", Box(0.25, 0.5, 0.75, 1)),)), size=(640, 480), name="9.jpg"),
        Item("a dog and a dog", Layout((first, second)), size=(10, 20)),
    )


def test_coco_captions_are_the_prompts(tmp_path: Path) -> None:
    told = [{"image_id": 4, "id": 5, "caption": "Two dogs."}, {"image_id": 4, "id": 6, "caption": "Dogs again."}]
    found = load(tmp_path, coco(annotations=[*coco()["annotations"], *told])).items[1]
    assert found.prompt == "Two dogs."
    assert [region.phrase for region in found.layout.regions] == ["dogs", "dogs"]


@pytest.mark.parametrize(
    ("names", "caption", "phrases"),
    [
        (["dog", "dog"], "A dog looks at another dog.", ["dog#1", "dog#2"]),
        (["dog", "cat", "Dog"], "Dog, dog and a cat", ["dog#1", "cat", "Dog#2"]),
        (["dog", "dogs"], "Dogs and dogs", ["dogs#1", "dogs#2"]),
        (["dog", "dog"], "two dogs", ["dogs", "dogs"]),
        (["dog"], "a dog and a dog", [None]),
        (["dog"] * 3, "a dog and a dog", [None] * 3),
        (["cat", "dog"], "a dog", [None, "dog"]),
        (["dog", "dog"], "", ["dog", "dog"]),
    ],
)
def test_what_a_caption_calls_things(names: list[str], caption: str, phrases: list[str | None]) -> None:
    assert told(names, caption) == phrases
    for phrase in filter(None, phrases if caption else ()):
        TokenTable(caption, ()).locate(phrase)


def captioned(text: str, *more: dict[str, Any]) -> dict[str, Any]:
    return coco(annotations=[*coco()["annotations"], {"image_id": 4, "caption": text}, *more])


@pytest.mark.parametrize(
    ("caption", "why"),
    [
        ("A cat.", r"the caption 'A cat\.' of image 4 has no such words"),
        ("Dog, dog, dog.", r"the caption 'Dog, dog, dog\.' of image 4 has 'dog' 3 times, and there is not one box for each"),
    ],
)
def test_what_a_caption_does_not_tell_is_refused_or_dropped(tmp_path: Path, caption: str, why: str) -> None:
    with pytest.raises(LayoutError, match=rf"annotation 1 \('dog'\): {why}; say which words are meant.*--on-bad-box drop"):
        load(tmp_path, captioned(caption))
    found = load(tmp_path, captioned(caption), on_bad_box="drop")
    assert [len(item.layout.regions) for item in found.items] == [1, 0]
    assert len(found.dropped) == 2  # both dogs
    assert found.dropped[0].what == "annotation"
    assert re.fullmatch(why, found.dropped[0].why)


def test_phrases_in_annotations_go_before_the_caption(tmp_path: Path) -> None:
    third = {"image_id": 4, "category_id": 18, "bbox": [0, 0, 1, 1], "phrase": "puppy"}
    with pytest.raises(LayoutError, match=r"annotation 1 .* has 'dog' 2 times"):
        load(tmp_path, captioned("A dog, a dog and a puppy.", third))
    data = captioned("A dog, a dog and a puppy.", third)
    for annotation, phrase in zip((data["annotations"][0], data["annotations"][2]), ("dog#2", "dog#1"), strict=True):
        annotation["phrase"] = phrase
    assert [region.phrase for region in load(tmp_path, data).items[1].layout.regions] == ["dog#2", "dog#1", "puppy"]


def test_coco_crowds_are_dropped(tmp_path: Path) -> None:
    crowd = {"id": 4, "image_id": 9, "category_id": 18, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    found = load(tmp_path, coco(annotations=[*coco()["annotations"], crowd]))
    assert len(found.items[0].layout.regions) == 1
    assert [str(each).rpartition("instances.json, ")[2] for each in found.dropped] == [
        "annotation 4: annotation: a crowd; expected one object"
    ]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no annotations": ({"annotations": None}, "'annotations' is missing"),
    "images no list": ({"images": {}}, "images: expected a list"),
    "image without id": ({"images": [{}]}, "image 1: 'id' is missing"),
    "image twice": ({"images": [{"id": 1}, {"id": 1}]}, "image 2: id 1 stands twice"),
    "odd id": ({"images": [{"id": [1]}]}, r"id \[1\]: expected a whole number or a text"),
    "no image": ({"annotations": [{"image_id": 5}]}, "annotation 1: image_id 5 is none of the 2 images"),
    "no category": ({"annotations": [{"image_id": 9, "category_id": 3}]}, "annotation 1: category_id 3 is none"),
    "category twice": ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category 2: id 1 stands twice"),
    "category's name": ({"categories": [{"id": 18, "name": 3}]}, "category 1: name 3: expected a text"),
    "no bbox": ({"annotations": [{"image_id": 9, "category_id": 18}]}, r"annotation 1 \(\'dog\'\): box None: expected four"),
    "no sides": ({"images": [{"id": 9}, {"id": 4}]}, "image 9: no width and height.*--size"),
    "sides": ({"images": [{"id": 9, "width": 0, "height": 4}, {"id": 4}]}, r"image 9: size \[0, 4\]"),
    "outside": (
        {"annotations": [{"image_id": 9, "category_id": 18, "bbox": [600, 0, 66, 480]}]},
        r"annotation 1 \('dog'\): box \[600, 0, 66, 480\] .*right=666 is out of range.*640x480.*--on-bad-box drop",
    ),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD.keys())
def test_bad_coco_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        load(tmp_path, coco(**changes))


def test_coco_sizes_can_be_given(tmp_path: Path) -> None:
    data = coco(images=[{"id": 9}, {"id": 4}])
    found = load(tmp_path, data, size=(640, 480)).items[0]
    assert (found.size, found.layout.regions[0].box) == ((640, 480), Box(0.25, 0.5, 0.75, 1))


# YOLO


# What annotators write


def test_numbers_may_be_written_as_text_or_with_a_point(tmp_path: Path) -> None:
    data = coco(
        images=[{"id": 9.0, "width": 640.0, "height": 480}, {"id": 4, "width": 640, "height": 480}],
        annotations=[
            {"image_id": 9, "category_id": 18.0, "bbox": [160, 240, 320, 240], "iscrowd": "0"},
            {"image_id": 9, "category_id": 18, "bbox": [0, 0, 64, 64], "iscrowd": "1"},
            {"image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 5], "iscrowd": False},
        ],
    )
    found = load(tmp_path, data)
    assert [len(item.layout.regions) for item in found.items] == [1, 1]
    assert [(each.what, "crowd" in each.why) for each in found.dropped] == [("annotation", True)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": [{"image_id": "9", "category_id": 18, "bbox": [0, 0, 64, 64]}]}, "image_id '9'.*it is 9, another type"),
        ({"annotations": [{"image_id": 9, "category_id": "18", "bbox": [0, 0, 64, 64]}]}, "category_id '18'.*it is 18"),
        ({"annotations": [{"image_id": 9, "category_id": 18, "bbox": [0, 0, 64, 64], "iscrowd": "no"}]}, "iscrowd 'no'"),
        ({"annotations": [{"image_id": 9.5, "category_id": 18, "bbox": [0, 0, 64, 64]}]}, "id 9.5"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_is_there(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        load(tmp_path, coco(**changes))


@pytest.mark.parametrize(
    ("annotation", "kept"),
    [
        ({"image_id": 9, "category_id": 18}, 1),  # its phrase stays, without a place
        ({"image_id": 9, "category_id": 18, "bbox": None}, 1),
        ({"image_id": 9, "category_id": 18, "bbox": []}, 1),
        ({"image_id": 9, "category_id": 5, "bbox": [0, 0, 64, 64]}, 0),
        ({"image_id": 7, "category_id": 18, "bbox": [0, 0, 64, 64]}, 0),
        ({"category_id": 18, "bbox": [0, 0, 64, 64]}, 0),
    ],
)
def test_one_annotation_that_cannot_be_used_does_not_cost_the_file(tmp_path: Path, annotation: dict[str, Any], kept: int) -> None:
    data = coco(annotations=[{"image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 5]}, annotation])
    with pytest.raises(LayoutError, match=r"annotation 2.*--on-bad-box drop"):
        load(tmp_path, data)
    found = load(tmp_path, data, on_bad_box="drop")
    assert [len(item.layout.regions) for item in found.items] == [kept, 1]
    assert len(found.dropped) == 1


def test_backgrounds_are_left_out_where_images_are_to_be_made(tmp_path: Path) -> None:
    data = coco(annotations=[{"image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 5]}])
    assert [item.prompt for item in load(tmp_path, data).items] == ["", "a dog"]
    found = load(tmp_path, data, empty=False)
    assert [item.prompt for item in found.items] == ["a dog"]
    assert [each.what for each in found.dropped] == ["image"]
    with pytest.raises(LayoutError, match="no image has a caption or an object"):
        load(tmp_path, coco(annotations=[]), empty=False)
