"""COCO and YOLO: prompts for what has none, what is refused, and where the names of classes come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.framework.annotations import category_of, class_names, compose, spoken, told
from lsregen.framework.errors import ConfigError, LayoutError, PhraseError
from lsregen.framework.formats import read_layouts, write_layouts
from lsregen.framework.items import Item, Items
from lsregen.framework.layout import Box, Layout, Region
from lsregen.framework.tokens import TokenTable

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


def test_a_category_without_a_name_is_refused() -> None:
    with pytest.raises(PhraseError, match="category '' cannot be told from other words"):
        compose(["", "dog"])


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
    "no bbox": ({"annotations": [{"image_id": 9, "category_id": 18}]}, "annotation 1: box None: expected four"),
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


def test_written_coco_is_what_other_tools_expect(tmp_path: Path) -> None:
    layout = Layout(
        (Region("dog#1", Box(0, 0, 0.5, 1)), Region("dog#2", Box(0.5, 0.25, 1, 0.75)), Region("cat", Box(0, 0, 1, 1)))
    )
    write_layouts(tmp_path / "a.json", [Item("a dog, a dog and a cat", layout, size=(100, 50), name="x.png")], "coco")
    data = json.loads((tmp_path / "a.json").read_text())
    assert data["images"] == [{"id": 1, "width": 100, "height": 50, "file_name": "x.png", "caption": "a dog, a dog and a cat"}]
    assert data["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert data["annotations"][1] == {
        "id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 12.5, 50, 25], "area": 1250, "iscrowd": 0, "phrase": "dog#2",
    }  # fmt: skip
    assert [(each["category_id"], "phrase" in each) for each in data["annotations"]] == [(1, True), (1, True), (2, False)]


# YOLO


def labels(folder: Path, text: str = "1 0.5 0.75 0.5 0.5\n0 0.25 0.5 0.5 1\n", name: str = "one.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


ONE = Item("a dog and a cat", Layout((Region("dog", Box(0.25, 0.5, 0.75, 1)), Region("cat", Box(0, 0, 0.5, 1)))), name="one")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "cat\ndog\n\n"),
        ("data.yaml", "path: ../x\nnames: [cat, dog]\n"),
        ("data.yml", "names:\n  0: cat\n  1: dog\n"),
        ("../classes.txt", "cat\r\ndog"),
    ],
)
def test_yolo_classes_are_found_near(tmp_path: Path, name: str, text: str) -> None:
    path = labels(tmp_path / "labels")
    (path.parent / name).write_text(text)
    assert read_layouts(path).items == (ONE,)
    labels(path.parent, "", "empty.txt")
    assert read_layouts(path.parent).items == (Item(name="empty"), ONE)


def test_yolo_classes_can_be_given(tmp_path: Path) -> None:
    path = labels(tmp_path / "labels")
    names = labels(tmp_path / "labels", "cat\ndog\n", "names.txt")
    assert read_layouts(path, classes=names).items == (ONE,)
    assert read_layouts(path.parent, classes=names).items == (ONE,)  # the file of names is no file of labels
    assert read_layouts(path, classes=names, size=(8, 4)).items[0].size == (8, 4)


def test_yolo_without_certain_classes_is_refused(tmp_path: Path) -> None:
    path = labels(tmp_path / "deep" / "labels")
    with pytest.raises(LayoutError, match=r"no classes\.txt or data\.yaml beside it.*--classes"):
        read_layouts(path)
    (path.parent / "classes.txt").write_text("cat\ndog\n")
    (path.parent / "data.yaml").write_text("names: [dog, cat]")
    with pytest.raises(LayoutError, match=r"classes\.txt and data\.yaml both name classes.*--classes"):
        read_layouts(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0.5 0.5 1 1\n0 0.5 0.5 1\n", r"one\.txt, line 2: '0 0\.5 0\.5 1': expected a class and four numbers"),
        ("0 0.5 0.5 1 1 0.9\n", "line 1: .*expected a class and four numbers"),
        ("dog 0.5 0.5 1 1\n", "line 1: 'dog 0.5 0.5 1 1'"),
        ("2 0.5 0.5 1 1\n", "class 2: expected one of the 2 named classes, counted from 0"),
        ("-1 0.5 0.5 1 1\n", "class -1"),
        ("\n1 0.5 0.5 2 1\n", r"line 2 \('dog'\): YOLO box \[0.5, 0.5, 2, 1\]: .*out of range"),
        ("1 nan 0.5 1 1\n", "not finite"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(LayoutError, match=said):
        read_layouts(labels(tmp_path, text), "yolo")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.yaml", "nc: 3", r"c\.yaml: no names of classes"),
        ("c.yaml", "names: {a: 1}", "class a: 1: expected a name"),
        ("c.yaml", "names: [cat, 3]", "class 1: 3: expected a name"),
        ("c.yaml", "- cat", "mapping"),
        ("c.txt", "cat\n\ndog", "class 1: '': expected a name"),
        ("c.txt", "", "class 0"),
    ],
)
def test_bad_classes_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((LayoutError, ConfigError), match=said):
        class_names(tmp_path / name)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(LayoutError, match=r"no \.txt files in this folder"):
        read_layouts(tmp_path)


def test_labels_are_written_by_name(tmp_path: Path) -> None:
    named = [Item(layout=ONE.layout, name=name) for name in ("../val/a b.jpg", "a b.png", None, "classes.txt", "A b")]
    written = write_layouts(tmp_path / "labels", named, "yolo").files
    assert [path.relative_to(tmp_path / "labels").as_posix() for path in written] == [
        "a-b.txt", "a-b-2.txt", "000003.txt", "classes-4.txt", "A-b-5.txt", "classes.txt",
    ]  # fmt: skip
    assert (tmp_path / "labels" / "classes.txt").read_text() == "dog\ncat\n"
    assert (tmp_path / "labels" / "a-b.txt").read_text() == "0 0.5 0.75 0.5 0.5\n1 0.25 0.5 0.5 1.0\n"


def test_no_label_file_takes_the_place_of_another(tmp_path: Path) -> None:
    named = [Item(layout=ONE.layout, name=name) for name in ("a.jpg", "a-3.jpg", "sub/a.jpg", "a-4.jpg", "A.jpg")]
    written = write_layouts(tmp_path, named, "yolo").files
    assert [path.name for path in written] == ["a.txt", "a-3.txt", "a-4.txt", "a-4-4.txt", "A-5.txt", "classes.txt"]


@pytest.mark.parametrize("name", ["classes.txt", "Classes.txt"])
def test_labels_are_not_called_as_the_names_of_the_classes(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match=rf"{name}: classes\.txt holds the names of the classes; call the labels otherwise"):
        write_layouts(tmp_path / name, [ONE], "yolo")
    assert not list(tmp_path.iterdir())


def test_labels_of_given_classes(tmp_path: Path) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("names: {3: cat, 7: dog}")
    written = write_layouts(tmp_path / "one.txt", [ONE], "yolo", classes=names).files
    assert written == {tmp_path / "one.txt": b"7 0.5 0.75 0.5 0.5\n3 0.25 0.5 0.5 1.0\n"}
    with pytest.raises(LayoutError, match=r"item 1: 'bird' is none of the 2 classes in .*names\.yaml"):
        write_layouts(tmp_path / "two.txt", [Item(layout=Layout.from_boxes({"bird": (0, 0, 1, 1)}))], "yolo", classes=names)
    with pytest.raises(LayoutError, match="a YOLO file is one image, and there are 2 items; name a folder"):
        write_layouts(tmp_path / "two.txt", [ONE, ONE], "yolo")
