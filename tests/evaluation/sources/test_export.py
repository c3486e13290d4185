"""Scenes in COCO's form: true boxes, counted areas, and read back by the reader of COCO."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsregen.evaluation.shapeworld import masks, render, sample_scene
from lsregen.evaluation.sources import Asked, read_source
from lsregen.evaluation.sources.export import categories, export_shapeworld
from lsregen.framework.errors import ConfigError


def test_pictures_are_those_of_the_scenes(tmp_path: Path) -> None:
    export_shapeworld(tmp_path / "data", count=2, seed=40, size=(96, 64))
    for seed in (40, 41):
        with Image.open(tmp_path / "data" / "images" / f"{seed:012}.png") as picture:
            assert np.array_equal(np.asarray(picture), render(sample_scene(seed, split="eval", size=(96, 64))))


def test_the_reader_of_coco_finds_the_scenes_again(tmp_path: Path) -> None:
    instances, captions = export_shapeworld(tmp_path / "data", count=8, objects=2)
    source = read_source("coco", Asked(instances, split="multi", captions=captions))
    assert source.origin.items == 8
    for entry in source.entries:
        scene = sample_scene(int(entry.id.removeprefix("coco-")), split="eval", objects=2)
        assert entry.item.prompt == scene.caption
        found = {region.phrase: region.box and region.box.xyxy for region in entry.item.layout.regions}
        assert found == {phrase: pytest.approx(box) for phrase, box in zip(scene.phrases, scene.boxes, strict=True)}
        assert entry.expects.classes == {phrase: phrase for phrase in scene.phrases}
        assert entry.item.size == (64, 64)


def test_areas_are_counted_in_pixels(tmp_path: Path) -> None:
    instances, _ = export_shapeworld(tmp_path / "data", count=3)
    data = json.loads(instances.read_text())
    counted = [int(mask.sum()) for seed in range(3) for mask in masks(sample_scene(seed, split="eval"))]
    assert [annotation["area"] for annotation in data["annotations"]] == counted
    assert [annotation["id"] for annotation in data["annotations"]] == list(range(1, len(counted) + 1))


def test_every_colour_and_shape_is_a_category() -> None:
    assert len(categories()) == 36
    assert set(categories().values()) == set(range(1, 37))


def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match="it is not empty; choose another one"):
        export_shapeworld(tmp_path, count=1)


def test_a_split_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split 'test': expected one of eval, reference, train"):
        export_shapeworld(tmp_path / "data", count=1, split="test")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        export_shapeworld(tmp_path / "file" / "data", count=1)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), MemoryError()])
def test_what_an_unfinished_export_made_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, there: bool
) -> None:
    """A disk that becomes full with the second picture, or an interruption: the same command can then be given again."""
    folder, write = tmp_path / "a" / "data", Path.write_bytes
    if there:
        folder.mkdir(parents=True)

    def full(path: Path, data: bytes) -> int:
        if path.name.endswith("01.png"):
            write(path, b"")
            raise stop
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ConfigError if isinstance(stop, OSError) else type(stop)):
            export_shapeworld(folder, count=3)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", folder] if there else [])
    export_shapeworld(folder, count=3)
    assert len(list((folder / "images").iterdir())) == 3


@pytest.mark.parametrize("late", ["data", "images", "annotations"])
def test_a_data_set_that_another_command_makes_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The other command makes its folders just before this one makes the folder called `late`."""
    folder, mkdir = tmp_path / "a" / "data", Path.mkdir

    def slow(path: Path, *args: Any, **options: Any) -> None:
        if path == (folder if late == "data" else folder / late):
            monkeypatch.setattr(Path, "mkdir", mkdir)
            for name in ("images", "annotations"):
                if not (late == "annotations" and name == "images"):
                    (folder / name).mkdir(parents=True)
                    (folder / name / "theirs").write_text("")
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", slow)
    with pytest.raises(ConfigError, match="cannot be written"):
        export_shapeworld(folder, count=1)
    theirs = ["annotations"] if late == "annotations" else ["annotations", "images"]
    assert sorted(path.parent.name for path in folder.rglob("theirs")) == theirs
    assert sorted(path.name for path in folder.iterdir()) == theirs


def test_places_where_no_data_set_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "more", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="cannot be written"):
            export_shapeworld(folder, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
