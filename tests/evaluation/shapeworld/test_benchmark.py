"""Rows of stand-in methods whose metrics are known, restarts, and the way from a pipeline to a row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from lsregen.evaluation.metrics.bootstrap import average_precision
from lsregen.evaluation.shapeworld import COLOURS, Scene, SceneObject, quality, render
from lsregen.evaluation.shapeworld.benchmark import (
    METRICS,
    Contender,
    Row,
    contender,
    differences,
    image_path,
    image_result,
    run,
)
from lsregen.evaluation.shapeworld.classifier import image_features
from lsregen.evaluation.shapeworld.scenes import Scenes
from lsregen.evaluation.shapeworld.sheet import contact_sheet
from lsregen.framework.errors import ConfigError
from lsregen.framework.plugins.registry import discover

pytestmark = pytest.mark.slow

SCENES = Scenes(objects=2, size=(64, 64), count=6, seed=0)


@pytest.fixture(autouse=True, scope="module")
def smaller_reference() -> Iterator[None]:
    """Two thousand true images take seconds to draw, and these tests need none of them exactly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "REFERENCE", 100)
        quality.true_reference.cache_clear()
        yield
        quality.true_reference.cache_clear()


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


def mirrored(scene: Scene) -> Image.Image:
    """Every shape of the world is its own mirror image, so only the places are wrong."""
    return Image.fromarray(np.ascontiguousarray(render(scene)[:, ::-1]))


def first_only(scene: Scene) -> Image.Image:
    return picture(replace(scene, objects=scene.objects[:1]))


def noise(scene: Scene) -> Image.Image:
    rng = np.random.default_rng(scene.seed)
    return Image.fromarray(rng.integers(256, size=(scene.height, scene.width, 3), dtype=np.uint8))


@dataclass
class StandIn:
    """A method that draws scenes by a rule, and counts what it was asked."""

    draw: Any = picture
    batches: list[list[int]] = field(default_factory=list[list[int]])
    fail_at: int | None = None

    def __call__(self, scenes: Sequence[Scene]) -> list[Image.Image]:
        if self.fail_at == len(self.batches):
            raise KeyboardInterrupt
        self.batches.append([scene.seed for scene in scenes])
        return [self.draw(scene) for scene in scenes]


def entrant(draw: Any, name: str = "none", **settings: Any) -> Contender:
    return Contender(name, "stand-in", 4.0, {"by": name, **settings}, draw if isinstance(draw, StandIn) else StandIn(draw))


def values(row: Row) -> dict[str, float]:
    return {name: statistic.value for name, statistic in row.statistics().items()}


def test_perfect_images(tmp_path: Path) -> None:
    found = values(run(entrant(picture), SCENES, tmp_path, batch=4))
    for name in ("present", "right", "all_right", "centre_in_box", "map50", "count_right"):
        assert found[name] == pytest.approx(1), name
    assert 0.95 < found["mask_iou"] <= 1
    assert found["seconds_per_image"] > 0


def test_objects_in_wrong_places(tmp_path: Path) -> None:
    found = values(run(entrant(mirrored), SCENES, tmp_path))
    assert found["present"] == found["right"] == found["all_right"] == found["count_right"] == 1
    assert found["map50"] < 0.5
    assert found["centre_in_box"] < 0.5
    assert found["mask_iou"] < 0.5


def recoloured(scene: Scene) -> Image.Image:
    first = scene.objects[0]
    others = [colour for colour in COLOURS if colour not in {item.colour for item in scene.objects}]
    return picture(replace(scene, objects=(replace(first, colour=others[0]), *scene.objects[1:])))


def test_wrong_colours(tmp_path: Path) -> None:
    """Of the shapes that are there, half have the wrong colour; with one object left out, all that are there are right."""
    apart = replace(SCENES, count=20)
    scenes = [apart.scene(seed) for seed in apart.seeds]
    alike = [scene.objects[0].shape == scene.objects[1].shape for scene in scenes]
    row = run(entrant(recoloured, "recoloured"), apart, tmp_path)
    assert values(row)["colour_given_shape"] == 0.5
    assert values(row)["right"] == 0.5
    left = run(entrant(first_only, "first"), apart, tmp_path)
    assert values(left)["colour_given_shape"] == pytest.approx(len(scenes) / (len(scenes) + sum(alike)))
    assert "colour_given_shape" not in values(run(entrant(noise, "noise"), apart, tmp_path))


def test_half_of_the_objects(tmp_path: Path) -> None:
    found = values(run(entrant(first_only), SCENES, tmp_path))
    assert found["right"] == found["centre_in_box"] == 0.5
    assert found["all_right"] == found["count_right"] == 0
    assert 0.45 < found["mask_iou"] < 0.5


def test_noise(tmp_path: Path) -> None:
    found = values(run(entrant(noise), SCENES, tmp_path))
    for name in ("right", "all_right", "centre_in_box", "map50", "mask_iou"):
        assert found[name] == 0, name


def test_a_second_copy_costs_mask_overlap_and_count(tmp_path: Path) -> None:
    def copied(scene: Scene) -> Image.Image:
        item = SceneObject("red", "circle", "", 0.25, 0.25, 0.15)
        return picture(replace(scene, objects=(item, replace(item, x=0.75, y=0.75))))

    class One(Scenes):
        def scene(self, seed: int) -> Scene:
            item = SceneObject("red", "circle", "", 0.25, 0.25, 0.15)
            return replace(super().scene(seed), objects=(item,))

    found = values(run(entrant(copied), One(1, (64, 64), 2, 0), tmp_path))
    assert found["right"] == 1
    assert found["count_right"] == 0
    assert found["mask_iou"] == pytest.approx(0.5, abs=0.03)


def test_row_as_json(tmp_path: Path) -> None:
    row = run(entrant(picture), SCENES, tmp_path)
    data = row.to_json()
    assert list(data) == ["guidance", "model", "objects", "size", "cfg", "count", "seed", "classifier", "metrics"]
    assert (data["size"], data["count"], data["cfg"]) == ([64, 64], 6, 4.0)
    assert {*data["metrics"], "peak_bytes"} == {*METRICS, "kid"}, "six images are too few for a Frechet distance"
    assert data["metrics"]["map50"]["value"] == pytest.approx(average_precision([image_result(item) for item in row.items]))
    json.dumps(data, allow_nan=False)


def test_finished_items_are_kept(tmp_path: Path) -> None:
    stand_in = StandIn(fail_at=1)
    with pytest.raises(KeyboardInterrupt):
        run(entrant(stand_in), SCENES, tmp_path, batch=4)
    done: list[int] = []
    stand_in.fail_at = None
    row = run(entrant(stand_in), SCENES, tmp_path, batch=4, on_done=done.append)
    assert stand_in.batches == [[0, 1, 2, 3], [4, 5]]
    assert done == [4, 2]
    assert [item["seed"] for item in row.items] == list(range(6))
    # More scenes, the same scenes in another order of batches, and fewer: only what is new is made.
    run(entrant(stand_in), replace(SCENES, count=7), tmp_path, batch=2)
    assert run(entrant(stand_in), replace(SCENES, count=3), tmp_path).items == row.items[:3]
    assert stand_in.batches[2:] == [[6]]


def test_features_and_costs_are_kept_with_their_item(tmp_path: Path) -> None:
    row = run(entrant(picture), replace(SCENES, count=2), tmp_path)
    again = run(entrant(StandIn(fail_at=0)), replace(SCENES, count=2), tmp_path)
    assert again.items == row.items
    features = np.array([item["features"] for item in row.items])
    assert features == pytest.approx(image_features([picture(SCENES.scene(seed)) for seed in (0, 1)]), abs=1e-4)
    assert all(item["seconds"] > 0 and item["batch"] == [0, 2] for item in row.items)
    assert all(item["peak_bytes"] is None or item["peak_bytes"] >= 0 for item in row.items)


@pytest.mark.long
def test_enough_images_have_a_frechet_distance(tmp_path: Path) -> None:
    rows = [run(entrant(draw, name), replace(SCENES, count=70), tmp_path) for draw, name in ((picture, "true"), (noise, "noise"))]
    true, broken = (row.to_json()["metrics"] for row in rows)
    assert true["frechet"] == pytest.approx(true["frechet_true"], abs=1e-3), "features are kept rounded"
    assert broken["frechet"]["low"] > true["frechet"]["high"]
    assert broken["frechet_true"] == true["frechet_true"]
    (difference,) = differences(rows)
    assert difference["metrics"]["frechet"]["low"] > 0
    assert difference["metrics"]["kid"]["low"] > 0
    assert not {"frechet_true", "peak_bytes", "seconds_per_image"} & set(difference["metrics"])


@pytest.mark.parametrize("change", ["settings", "size", "objects", "guidance"])
def test_other_settings_share_nothing(tmp_path: Path, change: str) -> None:
    run(entrant(picture, steps=50), SCENES, tmp_path)
    settings = {"steps": 20 if change == "settings" else 50}
    scenes = replace(SCENES, size=(96, 64)) if change == "size" else SCENES
    scenes = replace(scenes, objects=1) if change == "objects" else scenes
    stand_in = StandIn()
    run(entrant(stand_in, "other" if change == "guidance" else "none", **settings), scenes, tmp_path)
    assert len(stand_in.batches) == 1


def test_rows_of_one_kind_share_their_items_whatever_they_are_called(tmp_path: Path) -> None:
    first = run(entrant(picture), SCENES, tmp_path, images=True)
    stand_in = StandIn()
    again = run(replace(entrant(stand_in), guidance="strength, 0.5"), SCENES, tmp_path, images=True)
    assert (stand_in.batches, again.items, again.name) == ([], first.items, first.name)


def test_a_torn_line_is_made_again(tmp_path: Path) -> None:
    row = run(entrant(picture), SCENES, tmp_path)
    path = tmp_path / f"{row.name}.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    stand_in = StandIn()
    again = run(entrant(stand_in), SCENES, tmp_path)
    assert stand_in.batches == [[5]]
    assert again.items[:5] == row.items[:5]
    assert again.items[5]["objects"] == row.items[5]["objects"]


def test_foreign_files_and_folders_are_refused(tmp_path: Path) -> None:
    row = run(entrant(picture), replace(SCENES, count=1), tmp_path)
    (tmp_path / f"{row.name}.jsonl").write_text("a diary\n")
    with pytest.raises(ConfigError, match="not a file of lsregen's results"):
        run(entrant(picture), SCENES, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="results cannot be kept"):
        run(entrant(picture), SCENES, tmp_path / "file")


def test_images_and_contact_sheet(tmp_path: Path) -> None:
    scenes = replace(SCENES, count=3, size=(96, 64))
    run(entrant(picture), scenes, tmp_path)
    stand_in = StandIn()
    rows = [
        run(entrant(stand_in), scenes, tmp_path, images=True),
        run(entrant(mirrored, "mirror"), scenes, tmp_path, images=True),
    ]
    assert stand_in.batches == [[0, 1, 2]], "items without an image are made again"
    image_path(tmp_path / "images" / rows[0].name, 1).unlink()
    run(entrant(stand_in), scenes, tmp_path, images=True)
    assert stand_in.batches[1:] == [[1]]
    sheet = contact_sheet(rows, tmp_path, most=2)
    assert sheet.width > 3 * 192
    assert 2 * 128 < sheet.height < 3 * 128


def test_differences_are_paired_on_shared_scenes(tmp_path: Path) -> None:
    rows = [
        run(entrant(first_only), SCENES, tmp_path),
        run(entrant(picture, "better"), replace(SCENES, count=4, seed=2), tmp_path),
        run(entrant(picture, "larger"), replace(SCENES, size=(96, 96)), tmp_path),
        run(entrant(picture, "wide"), replace(SCENES, size=(96, 64)), tmp_path),
    ]
    found = differences(rows)
    assert [(entry["first"], entry["second"], entry["count"]) for entry in found] == [
        ("none", "better", 4),
        ("none", "larger", 6),
        ("better", "larger", 4),
    ]
    sizes = [(entry["objects"], entry["size"], entry.get("second_size"), entry["seed"]) for entry in found]
    assert sizes == [(2, [64, 64], None, 2), (2, [64, 64], [96, 96], 0), (2, [64, 64], [96, 96], 2)]
    assert found[0]["metrics"]["right"] == {"value": 0.5, "low": None, "high": None}
    assert "seconds_per_image" not in found[0]["metrics"]
    assert found[2]["metrics"]["map50"]["value"] == pytest.approx(0)


LAYOUT_TERM = {"layout": {"extractor": "cross_attention", "distance": "box_energy"}}
SMALL_TERM = {"small": {"extractor": {"name": "gligen_inversion", "source": {"model": "drawn"}}, "distance": "l2"}}


@dataclass
class FakePipeline:
    """What `contender` uses of a pipeline; draws what it is told, from the layout and the caption alone."""

    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    model: Any = None

    def __post_init__(self) -> None:
        self.model = self
        self.name, self.device, self.plugins = "fake", "cpu", discover(only=())

    def describe(self) -> Mapping[str, Any]:
        return {"name": "fake", "hash": "1234"}

    def resolve(self, guidance: Mapping[str, Any], **given: Any) -> tuple[Any, None]:
        config = {"steps": given["steps"] or 50, "cfg": given["cfg"] or 4.0, "seed": 0, "guidance": dict(guidance)}

        class Resolved:
            cfg = config["cfg"]

            def as_dict(self) -> dict[str, Any]:
                return config

        return Resolved(), None

    def __call__(self, prompts: Sequence[str], **given: Any) -> Any:
        self.calls.append({"prompts": prompts, **given})

        class Result:
            images = [picture(SCENES.scene(seed)) for seed in given["seed"]]  # noqa: RUF012

        return Result()


def test_contender_of_a_pipeline(tmp_path: Path) -> None:
    pipeline = FakePipeline()
    made = contender(cast("Any", pipeline), "mine.yaml", LAYOUT_TERM, steps=20)
    assert (made.guidance, made.model, made.cfg) == ("mine.yaml", "fake", 4.0)
    assert "seed" not in made.settings["config"], "every item has its own"
    row = run(made, SCENES, tmp_path, batch=4)
    assert values(row)["map50"] == pytest.approx(1)
    assert [call["seed"] for call in pipeline.calls] == [[0, 1, 2, 3], [4, 5]]
    call, scene = pipeline.calls[0], SCENES.scene(0)
    assert call["prompts"][0] == scene.caption
    assert call["size"] == (64, 64)
    assert call["guidance"]["steps"] == 20
    assert call["layout"][0].phrases == scene.phrases
    assert call["layout"][0].regions[1].box.xyxy == pytest.approx(scene.boxes[1])
    other = contender(cast("Any", pipeline), "mine.yaml", LAYOUT_TERM, steps=30)
    assert other.settings != made.settings


def test_items_are_made_again_when_a_model_that_renders_for_them_has_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, asked = {"drawn": "1234"}, list[str]()

    def described(place: str, find: object) -> dict[str, Any]:
        asked.append(place)
        return {"name": place, "components": weights[place]}

    monkeypatch.setattr("lsregen.framework.config.described_models.describe", described)
    pipeline, known = cast("Any", FakePipeline()), dict[str, dict[str, Any]]()
    first, second = (contender(pipeline, name, SMALL_TERM, known=known).settings for name in ("small", "the same"))
    assert first == second
    assert asked == ["drawn"], "looked at once"
    weights["drawn"] = "5678"
    assert contender(pipeline, "small", SMALL_TERM).settings != first
    assert "others" not in contender(pipeline, "layout", LAYOUT_TERM).settings
