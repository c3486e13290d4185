"""Scenes in COCO's form: true boxes, counted areas, and read back by the reader of COCO."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsregen.evaluation.shapeworld import masks, render, sample_scene
from lsregen.evaluation.sources import Asked, read_source
from recipes.shapeworld import export_coco as recipe
from recipes.shapeworld.export_coco import categories, export_coco


def test_pictures_are_those_of_the_scenes(tmp_path: Path) -> None:
    export_coco(tmp_path / "data", count=2, seed=40, size=(96, 64))
    for seed in (40, 41):
        with Image.open(tmp_path / "data" / "images" / f"{seed:012}.png") as picture:
            assert np.array_equal(np.asarray(picture), render(sample_scene(seed, split="eval", size=(96, 64))))


def test_the_reader_of_coco_finds_the_scenes_again(tmp_path: Path) -> None:
    instances, captions = export_coco(tmp_path / "data", count=8, objects=2)
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
    instances, _ = export_coco(tmp_path / "data", count=3)
    data = json.loads(instances.read_text())
    counted = [int(mask.sum()) for seed in range(3) for mask in masks(sample_scene(seed, split="eval"))]
    assert [annotation["area"] for annotation in data["annotations"]] == counted
    assert [annotation["id"] for annotation in data["annotations"]] == list(range(1, len(counted) + 1))


def test_every_colour_and_shape_is_a_category() -> None:
    assert len(categories()) == 36
    assert set(categories().values()) == set(range(1, 37))


def test_only_an_empty_folder_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["export_coco", str(tmp_path), "--count", "1"])
    recipe.main()
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "annotations" / name) for name in ("instances_eval.json", "captions_eval.json")
    ]
    with pytest.raises(SystemExit):
        recipe.main()
    assert "it is not empty; choose another folder" in capsys.readouterr().err
