"""Images whose answers are known, judged: metrics, what is kept, rows, paired differences and records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsregen.evaluation.instruments.entrants import entrants_of
from lsregen.evaluation.metrics.bootstrap import FoundBox, ImageResult, average_precision
from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Method, Plan
from lsregen.evaluation.runs.run_folder import Record, RunFolder
from lsregen.evaluation.shapeworld import COLOURS, Scene, SceneObject, quality, render
from lsregen.evaluation.shapeworld import results as module
from lsregen.evaluation.shapeworld.results import Judged, judge, records, result, statistics
from lsregen.evaluation.sources import Asked, read_source
from lsregen.evaluation.sources.shapeworld import scenes_of
from lsregen.framework.sampling.image_to_image import fingerprint

Draw = Callable[[Scene], Image.Image]
Size = tuple[int, int]
BATCH = 4


@pytest.fixture(autouse=True, scope="module")
def smaller_reference() -> Iterator[None]:
    """Two thousand true images take seconds to draw, and these tests need none of them exactly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "REFERENCE", 100)
        quality.true_reference.cache_clear()
        yield
        quality.true_reference.cache_clear()


def true(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


def mirrored(scene: Scene) -> Image.Image:
    """Every shape of the world is its own mirror image, so only the places are wrong."""
    return Image.fromarray(np.ascontiguousarray(render(scene)[:, ::-1]))


def first_only(scene: Scene) -> Image.Image:
    return true(replace(scene, objects=scene.objects[:1]))


def noise(scene: Scene) -> Image.Image:
    rng = np.random.default_rng(scene.seed)
    return Image.fromarray(rng.integers(256, size=(scene.height, scene.width, 3), dtype=np.uint8))


def recoloured(scene: Scene) -> Image.Image:
    first = scene.objects[0]
    others = [colour for colour in COLOURS if colour not in {item.colour for item in scene.objects}]
    return true(replace(scene, objects=(replace(first, colour=others[0]), *scene.objects[1:])))


def run(
    folder: Path, draw: Draw, size: Size = (64, 64), enlarged: Size | None = None, scene: Size = Asked.size, **asked: Any
) -> RunFolder:
    """A run whose images are drawn by a rule. `scene`: the size that the source is asked for."""
    source = read_source("shapeworld", Asked(**{"count": 6, "size": scene, **asked}))
    jobs = [
        Job(i, i // BATCH, "drawn", each.id, each.item.seed or 0, each.item.prompt, "", each.item.layout, size, each.expects)
        for i, each in enumerate(source.entries)
    ]
    config: dict[str, Any] = {"steps": 2, "cfg": 4.0, "guidance": {}}
    method = Method("none", "drawn", {"name": "drawn", "components": {}}, config, enlarged=enlarged)
    made = RunFolder.begin(folder, Plan.of(source.origin, {"drawn": method}, BATCH, jobs)).make()
    scenes = scenes_of(source.origin, enlarged or size)
    for job in jobs:
        picture, data = draw(scenes.scene(job.seed)), BytesIO()
        picture.save(data, "PNG")
        measured = {"seconds": 1.0 + job.batch, "peak_bytes": None}
        made.keep(Record(job.number, "drawn", job.item, job.seed, fingerprint(picture), None, measured), data.getvalue())
    return made


def judged(folder: Path, draw: Draw, name: str = "drawn", **how: Any) -> Judged:
    (entrant,) = entrants_of([run(folder, draw, **how)])
    return judge(entrant, name)


def values(made: Judged) -> dict[str, float]:
    return {name: each.value for name, each in statistics(made, range(len(made.scenes))).items()}


def test_perfect_images(tmp_path: Path) -> None:
    found = values(judged(tmp_path / "run", true))
    for name in ("present", "right", "all_right", "centre_in_box", "map50", "count_right"):
        assert found[name] == pytest.approx(1), name
    assert 0.95 < found["mask_iou"] <= 1
    assert found["seconds_per_image"] == pytest.approx((4 * 1 + 2 * 2) / 6)
    assert "peak_bytes" not in found, "a CPU does not tell it"
    assert "frechet" not in found, "six images are too few"


def test_objects_in_wrong_places(tmp_path: Path) -> None:
    found = values(judged(tmp_path / "run", mirrored))
    assert found["present"] == found["right"] == found["all_right"] == found["count_right"] == 1
    assert max(found["map50"], found["centre_in_box"], found["mask_iou"]) < 0.5


def test_wrong_colours(tmp_path: Path) -> None:
    """Of the shapes that are there, half have the wrong colour; with one object left out, all that are there are right."""
    made = judged(tmp_path / "recoloured", recoloured, count=20)
    alike = [scene.objects[0].shape == scene.objects[1].shape for scene in made.scenes]
    assert values(made)["colour_given_shape"] == values(made)["right"] == 0.5
    left = values(judged(tmp_path / "first", first_only, count=20))
    assert left["colour_given_shape"] == pytest.approx(20 / (20 + sum(alike)))
    assert "colour_given_shape" not in values(judged(tmp_path / "noise", noise, count=20))


def test_half_of_the_objects_and_none(tmp_path: Path) -> None:
    found = values(judged(tmp_path / "half", first_only))
    assert found["right"] == found["centre_in_box"] == 0.5
    assert found["all_right"] == found["count_right"] == 0
    assert 0.45 < found["mask_iou"] < 0.5
    nothing = values(judged(tmp_path / "noise", noise))
    assert {nothing[name] for name in ("right", "all_right", "centre_in_box", "map50", "mask_iou")} == {0}


def test_a_second_copy_costs_mask_overlap_and_count(tmp_path: Path) -> None:
    def copied(scene: Scene) -> Image.Image:
        (item,) = scene.objects
        x = 0.2 if item.x > 0.5 else 0.8
        return true(
            replace(scene, objects=(replace(item, y=0.5, radius=0.15), SceneObject(item.colour, item.shape, "", x, 0.5, 0.15)))
        )

    found = values(judged(tmp_path / "run", copied, count=3, objects=1))
    assert found["right"] == 1
    assert found["count_right"] == 0
    assert found["mask_iou"] < 0.6


def test_a_row_and_its_numbers_as_json(tmp_path: Path) -> None:
    made = judged(tmp_path / "run", mirrored, "mine.yaml")
    (row,) = result([made])["rows"]
    assert list(row) == ["guidance", "model", "objects", "size", "cfg", "count", "seed", "classifier", "config", "metrics"]
    assert (row["guidance"], row["model"], row["size"], row["count"], row["cfg"]) == ("mine.yaml", "drawn", [64, 64], 6, 4.0)
    requested = [tuple(zip(scene.phrases, scene.boxes, strict=True)) for scene in made.scenes]
    found = [tuple(FoundBox(one.label, one.box, one.score) for one in seen.found) for seen in made.looked.seen or ()]
    images = [ImageResult(*each) for each in zip(requested, found, strict=True)]
    assert row["metrics"]["map50"]["value"] == pytest.approx(average_precision(images))
    assert row["metrics"]["right"] == {"value": 1, "low": pytest.approx(0.025 ** (1 / 6)), "high": 1}, "exact binomial"
    json.dumps(row, allow_nan=False)


def test_enlarged_and_oblong_images_are_judged_in_their_own_size(tmp_path: Path) -> None:
    large = judged(tmp_path / "large", true, enlarged=(192, 192), count=2)
    wide = judged(tmp_path / "wide", true, size=(96, 64), scene=(96, 64), count=2)
    assert [scene.width for scene in (*large.scenes, *wide.scenes)] == [192, 192, 96, 96]
    assert [entry.job.item for entry in wide.looked.entrant.entries] == ["shapeworld-3:2-0", "shapeworld-3:2-1"]
    assert min(values(large)["mask_iou"], values(wide)["mask_iou"]) > 0.95
    assert result([large])["rows"][0]["size"] == [192, 192]


def test_what_was_seen_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = judged(tmp_path / "run", true)

    def gone(*_: object) -> Any:
        raise AssertionError("looked again")

    monkeypatch.setattr(module, "detect", gone)
    monkeypatch.setattr("lsregen.evaluation.shapeworld.detect", gone)
    monkeypatch.setattr("lsregen.evaluation.shapeworld.classifier.image_features", gone)
    (entrant,) = entrants_of([RunFolder.open(tmp_path / "run")])
    assert result([judge(entrant, "drawn")]) == result([first])


def test_differences_are_paired_on_shared_scenes(tmp_path: Path) -> None:
    every = [
        judged(tmp_path / "a", first_only, "none"),
        judged(tmp_path / "b", true, "better", count=4, first=2),
        judged(tmp_path / "c", true, "larger", size=(96, 96)),
        judged(tmp_path / "d", true, "moved", place=0.3),
    ]
    found = result(every)["differences"]
    assert [(entry["first"], entry["second"], entry["count"]) for entry in found] == [
        ("none", "better", 4),
        ("none", "larger", 6),
        ("better", "larger", 4),
    ]
    assert [(entry["size"], entry.get("second_size")) for entry in found] == [
        ([64, 64], None),
        ([64, 64], [96, 96]),
        ([64, 64], [96, 96]),
    ]
    assert found[0]["metrics"]["right"] == {"value": 0.5, "low": None, "high": None}, "the same in every scene"
    assert found[2]["metrics"]["map50"]["value"] == pytest.approx(0)
    assert not {"frechet_true", "peak_bytes", "seconds_per_image"} & set(found[0]["metrics"])
    assert [row.get("place") for row in result(every)["rows"]] == [None, None, None, 0.3]


def test_a_moved_object_stands_where_it_was_asked_for(tmp_path: Path) -> None:
    places = [judged(tmp_path / str(place), true, place=place, count=2) for place in (0.2, 0.5, 0.8)]
    for one, other in pairwise(places):
        assert [scene.caption for scene in one.scenes] == [scene.caption for scene in other.scenes]
        assert all(first.boxes[0][0] < second.boxes[0][0] for first, second in zip(one.scenes, other.scenes, strict=True))
    assert {values(each)["centre_in_box"] for each in places} == {1}


def test_records_hold_what_was_seen_of_every_image(tmp_path: Path) -> None:
    made = judged(tmp_path / "run", first_only)
    lines = list(records([made]))
    assert [line["seed"] for line in lines] == list(range(6))
    assert [[one["right"] for one in line["objects"]] for line in lines] == [[True, False]] * 6
    assert [line["image"] for line in lines] == [entry.image for entry in made.looked.entrant.entries]
    shares = [np.mean([one["mask_iou"] for one in line["objects"]]) for line in lines]
    assert np.mean(shares) == pytest.approx(values(made)["mask_iou"])
    json.dumps(lines, allow_nan=False)


@pytest.mark.long
def test_enough_images_have_a_frechet_distance(tmp_path: Path) -> None:
    found = result([judged(tmp_path / draw.__name__, draw, draw.__name__, count=70) for draw in (true, noise)])
    right, broken = (row["metrics"] for row in found["rows"])
    assert right["frechet"] == pytest.approx(right["frechet_true"])
    assert broken["frechet"]["low"] > right["frechet"]["high"]
    assert broken["frechet_true"] == right["frechet_true"]
    (change,) = found["differences"]
    assert change["metrics"]["frechet"]["low"] > 0
    assert change["metrics"]["kid"]["low"] > 0
