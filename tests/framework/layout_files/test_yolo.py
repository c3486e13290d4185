"""YOLO labels, and what annotators write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsregen.framework.errors import ConfigError, LayoutError
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.layout_files.formats import read_layouts
from lsregen.framework.layout_files.item import Item
from lsregen.framework.layout_files.yolo import class_names


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
        ("0 0.5 0.5 1 1\n0 0.5 0.5 1\n", r"one\.txt, line 2 .*'0\.5 0\.5 1': expected a class and four numbers"),
        ("0 0.5 0.5 1 1 0.9\n", "line 1: .*confidence 0.9.*four numbers"),
        ("dog 0.5 0.5 1 1\n", "line 1: class 'dog'"),
        ("1 0.1 0.1 0.9 0.1 0.9 0.9\n", "line 1 .*a polygon of 3 points"),
        ("2 0.5 0.5 1 1\n", "class 2: expected one of the 2 named classes, counted from 0"),
        ("-1 0.5 0.5 1 1\n", "class -1"),
        ("\n1 0.5 0.5 2 1\n", r"line 2 \('dog'\): YOLO box \[0.5, 0.5, 2, 1\]: .*out of range"),
        ("1 nan 0.5 1 1\n", "'nan 0.5 1 1'"),
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
        ("c.yaml", "names: {a: 1}", "class 'a'.*expected its number"),
        ("c.yaml", "names: {0: yes}", "class 0: True.*in quotes"),
        ("c.yaml", "names: {0: cat, '00': dog}", "class 0 stands twice"),
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


def test_a_confidence_can_be_dropped_and_its_box_stays(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    path = labels(tmp_path, "0 0.5 0.5 1 1 0.9\n1.0 0.5 0.5 1 1\n")
    found = read_layouts(path, on_bad_box="drop")
    assert found.format == "yolo"
    assert [region.box for region in found.items[0].layout.regions] == [Box(0, 0, 1, 1)] * 2
    assert [each.what for each in found.dropped] == ["confidence"]


def test_polygons_are_told_from_other_formats(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(LayoutError, match="a polygon of 3 points"):
        read_layouts(labels(tmp_path, "0 0.1 0.1 0.9 0.1 0.9 0.9\n"))


def test_numbers_of_classes_may_be_texts(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: {'0': dog, 1: cat}")
    assert class_names(tmp_path / "data.yaml") == {0: "dog", 1: "cat"}
