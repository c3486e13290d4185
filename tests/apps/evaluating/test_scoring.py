"""`lsregen evaluate score`: known pictures get their known scores, twice the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from lsregen.evaluation.instruments import passes
from lsregen.evaluation.instruments.clip import Clip
from lsregen.evaluation.instruments.detectors import _ShapeWorld
from lsregen.evaluation.runs.expects import Attribute, Expects
from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import RunFolder
from lsregen.evaluation.shapeworld import render, sample_scene
from lsregen.framework.layout.regions import Layout, Region
from lsregen.framework.plugins.detection import Detected
from tests.evaluation import drawn, networks

pytestmark = pytest.mark.slow

Call = Callable[..., Result]
METHODS = {"right": drawn.true, "mirrored": drawn.mirrored, "empty": drawn.empty}


def values(path: Path) -> dict[str, dict[str, float]]:
    rows = json.loads(path.read_text())["rows"]
    return {row["guidance"]: {name: each["value"] for name, each in row["metrics"].items()} for row in rows}


def test_known_pictures_get_their_known_scores(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(tuple(METHODS), items=6), METHODS)
    result = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert result.exit_code == 0, result.output
    found = values(tmp_path / "run" / "scores" / "result.json")
    ones = (
        "map50",
        "map50_prompted",
        "map50_multi",
        "relation_oa",
        "relation_uncond",
        "relation_cond",
        "count_exact",
        "count_f1",
    )
    assert {found["right"][name] for name in ones} == {1.0}
    assert found["right"]["attribute_rate"] == 1
    assert found["mirrored"]["relation_oa"] == found["mirrored"]["count_exact"] == 1
    assert found["mirrored"]["relation_uncond"] == found["mirrored"]["relation_cond"] == 0
    assert found["mirrored"]["map50"] < 0.5
    assert set(found["empty"].values()) == {0.0}
    assert "| right |" in result.stdout


def reference(folder: Path, count: int = 70) -> Path:
    """True pictures that no item shows."""
    folder.mkdir()
    for i in range(count):
        Image.fromarray(render(sample_scene(1000 + i, split="eval", objects=1))).save(folder / f"{i}.png")
    return folder


@pytest.mark.long
def test_everything_at_once(run: Call, tmp_path: Path) -> None:
    """Detector, features and CLIP; the splits as two runs; what decides the numbers stands beside them."""
    methods = {"right": drawn.true, "empty": drawn.empty}
    drawn.run(tmp_path / "single", drawn.plan(tuple(methods), items=40, objects=1, name="single"), methods)
    drawn.run(tmp_path / "multi", drawn.plan(tuple(methods), items=30, objects=2, name="multi"), methods, broken=[3])
    clip = networks.clip(tmp_path / "clip")
    options = ("--detector", "shapeworld", "--features", "shapeworld", "--reference", str(reference(tmp_path / "real")))
    result = run("evaluate", "score", "single", "multi", *options, "--clip", str(clip), "--json", "out.json")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out.json").read_text())
    right, nothing = data["rows"]
    assert (right["count"], right["single"], right["multi"], right["failed"], right["items"]) == (69, 40, 29, 1, 69)
    assert (nothing["count"], nothing["failed"]) == (70, 0)
    assert right["size"] == [64, 64]
    names = {
        "map50",
        "map50_single",
        "map50_multi",
        "map50_prompted",
        "clip",
        "clip_single",
        "clip_multi",
        "frechet",
        "relation_oa",
    }
    assert names <= set(right["metrics"])
    assert right["metrics"]["frechet"]["value"] < nothing["metrics"]["frechet"]["value"]
    assert right["metrics"]["map50_single"]["value"] == 1
    for name, interval in right["metrics"].items():
        if name.startswith("map50"):
            assert (interval["low"], interval["high"]) == (None, None), "all resamples agree, and it is no share"
        elif name != "frechet":  # percentiles lie above it
            assert (interval["low"] is None) == (interval["high"] is None), name
            if interval["low"] is not None:
                assert interval["low"] - 1e-9 <= interval["value"] <= interval["high"] + 1e-9, name
    (change,) = data["differences"]
    assert (change["first"], change["second"], change["count"]) == ("right", "empty", 69)
    assert change["metrics"]["map50"]["value"] == -1
    protocol = data["protocol"]
    assert protocol["detector"]["name"] == "shapeworld"
    assert protocol["detector"]["threshold"] == 0.65
    assert set(protocol["detector"]["sha256"]) == {"detect.py", "geometry.py", "scene.py"}
    assert protocol["features"]["dimensions"] == 64
    assert protocol["features"]["reference"]["images"] == 70
    assert "box filter" in protocol["features"]["resize"]
    assert protocol["clip"]["resize"].startswith("its preprocessor's, shortest_edge 32, ")
    assert protocol["images"] == 139
    assert set(protocol["versions"]) >= {"lsregen", "torch", "torchmetrics"}
    assert "1 job ended with an error" in protocol["notes"][-1]


def test_pictures_without_boxes_have_a_table(run: Call, tmp_path: Path) -> None:
    """Such as Attend-and-Excite's prompts and GenEval's: neither of the paper's splits holds them."""
    clip, made = str(networks.clip(tmp_path / "clip")), drawn.plan(("right",), items=4)
    bare = [replace(job, layout=Layout(tuple(Region(phrase) for phrase in job.layout.phrases))) for job in made.jobs]
    for name, jobs in (("bare", bare), ("mixed", [*bare[:2], *made.jobs[2:]]), ("boxed", list(made.jobs))):
        drawn.run(tmp_path / name, Plan.of(made.origin, made.methods, made.batch, jobs), METHODS)
        assert run("evaluate", "score", name, "--clip", clip).exit_code == 0

    def table(name: str) -> tuple[str, str]:
        result = run("evaluate", "table", name)
        assert result.exit_code == 0, result.output
        head, *_ = result.stdout.splitlines()
        return head, next(line for line in result.stdout.splitlines() if line.startswith("- Pictures"))

    several = "Multi objects: T2I-Sim ↑"
    assert table("bare") == ("| Method | T2I-Sim ↑ |", "- Pictures of each method: 4 without a box, 1 of each item.")
    assert table("mixed") == (
        f"| Method | T2I-Sim ↑ | {several} |",
        "- Pictures of each method: 0 with one box and 2 with several, 2 without a box, 1 of each item.",
    )
    assert table("boxed") == (
        f"| Method | {several} |",
        "- Pictures of each method: 0 with one box and 4 with several, 1 of each item.",
    )


def test_several_seeds_are_resampled_by_item_and_counted_as_visor_does(run: Call, tmp_path: Path) -> None:
    def every_other(scene: Any, seed: int) -> Image.Image:
        return (drawn.true if seed % 2 else drawn.mirrored)(scene, seed)

    drawn.run(tmp_path / "run", drawn.plan(("some",), items=5, seeds=4), {"some": every_other})
    assert run("evaluate", "score", "run", "--detector", "shapeworld").exit_code == 0
    row = json.loads((tmp_path / "run" / "scores" / "result.json").read_text())["rows"][0]
    assert (row["count"], row["items"], row["seeds"]) == (20, 5, 4)
    found = row["metrics"]
    assert [found[f"visor_{n}"]["value"] for n in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert found["relation_uncond"] == {
        "value": 0.5,
        "low": pytest.approx(0.053, abs=1e-3),
        "high": pytest.approx(0.947, abs=1e-3),
    }


def test_a_visor_n_that_cannot_be_given_is_said(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("some",), items=3, seeds=2), {"some": drawn.true}, broken=[1])
    result = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert "visor_n of some: some items have 1 pictures and some 2, so it is left out" in result.stdout
    assert "visor_1" not in values(tmp_path / "run" / "scores" / "result.json")["some"]


def test_what_was_seen_is_not_looked_at_again(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = drawn.plan(("right",), items=5)
    drawn.run(tmp_path / "run", plan, METHODS, but=[4])
    looked: list[int] = []
    look = _ShapeWorld.__call__

    def counted(self: _ShapeWorld, pictures: Any, wanted: Any) -> Any:
        looked.append(len(pictures))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return look(self, pictures, wanted)

    monkeypatch.setattr(_ShapeWorld, "__call__", counted)
    command = ("evaluate", "score", "run", "--detector", "shapeworld", "--partial", "--batch", "3")
    assert run(*command).exit_code == 130
    assert run(*command).exit_code == 0
    assert looked == [3, 1, 1]
    drawn.run(tmp_path / "run", plan, METHODS, but=[0, 1, 2, 3])
    first = (tmp_path / "run" / "scores" / "result.json").read_bytes()
    assert run(*command).exit_code == 0
    assert looked == [3, 1, 1, 1]
    assert run(*command).exit_code == 0
    assert sum(looked[3:]) == 1
    assert (tmp_path / "run" / "scores" / "result.json").read_bytes() != first  # of five pictures now


def test_another_version_of_what_looks_looks_again(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=2), METHODS)
    look, looked, installed = _ShapeWorld.__call__, list[int](), passes.versions

    def counted(self: _ShapeWorld, pictures: Any, wanted: Any) -> Any:
        looked.append(len(pictures))
        return look(self, pictures, wanted)

    monkeypatch.setattr(_ShapeWorld, "__call__", counted)
    command = ("evaluate", "score", "run", "--detector", "shapeworld", "--clip", str(networks.clip(tmp_path / "clip")))
    assert run(*command).exit_code == run(*command).exit_code == 0
    assert sum(looked) == 2
    monkeypatch.setattr(passes, "versions", lambda packages: {**installed(packages), "transformers": "9.9"})
    assert run(*command).exit_code == 0
    assert sum(looked) == 4
    assert len(list((tmp_path / "run" / "scores").glob("clip-*.jsonl"))) == 2


def test_the_versions_that_made_the_pictures_are_told(run: Call, tmp_path: Path) -> None:
    made = drawn.run(tmp_path / "run", drawn.plan(("right",), items=3), METHODS)

    def of(torch: str, *numbers: int) -> None:
        for number in numbers:
            made.keep(replace(made.record(number), measured={"versions": {"lsregen": "0.1.0", "torch": torch}}), None)

    of("2.13.0", 0, 1, 2)
    first = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert (first.exit_code, "several versions" in first.stdout) == (0, False)
    of("2.14.0", 2)
    second = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert "pictures were made by several versions: torch 2.13.0 (2) and 2.14.0 (1)" in second.stdout
    (plan,) = json.loads((tmp_path / "run" / "scores" / "result.json").read_text())["protocol"]["plans"]
    assert plan["made_by"] == [
        {"images": 2, "versions": {"lsregen": "0.1.0", "torch": "2.13.0"}},
        {"images": 1, "versions": {"lsregen": "0.1.0", "torch": "2.14.0"}},
    ]
    assert (plan["seeds"], plan["seed"]) == (1, 0)


def test_a_method_that_has_no_picture_yet_is_left_out_of_a_part(run: Call, tmp_path: Path) -> None:
    plan = drawn.plan(tuple(METHODS), items=4)
    drawn.run(tmp_path / "run", plan, METHODS, but=range(6, 12))
    result = run("evaluate", "score", "run", "--detector", "shapeworld", "--partial")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "run" / "scores" / "result.json").read_text())
    assert [(row["guidance"], row["count"]) for row in data["rows"]] == [("right", 4), ("mirrored", 2)]
    assert [(each["first"], each["second"], each["count"]) for each in data["differences"]] == [("right", "mirrored", 2)]
    assert "left out, since no picture of it is finished: empty" in result.stdout
    assert "scored before all jobs were finished; missing: mirrored (2)" in result.stdout
    drawn.run(tmp_path / "bad", plan, METHODS, broken=range(12))
    assert (
        "no job of right, mirrored, empty has made a picture"
        in run("evaluate", "score", "bad", "--clip", "x", "--partial").stderr
    )
    drawn.run(tmp_path / "one", plan, METHODS, broken=range(4))
    said = run("evaluate", "score", "one", "--detector", "shapeworld").stderr
    assert "no job of right has made a picture; `lsregen evaluate status` tells why" in said
    assert "or leave them out (--partial)" in said


def test_too_few_pictures_for_a_frechet_distance_is_said(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=5), METHODS)
    real = str(reference(tmp_path / "real"))
    result = run("evaluate", "score", "run", "--features", "shapeworld", "--reference", real)
    assert result.exit_code == 0
    assert "frechet: too few pictures of right (5); 64 features need more pictures than that" in result.stdout
    assert "frechet" not in values(tmp_path / "run" / "scores" / "result.json")["right"]


def test_attributes_are_told_from_crops_where_the_detector_knows_nouns_only(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=3), METHODS)
    folder, clip = networks.owl(tmp_path / "owl"), networks.clip(tmp_path / "clip")
    options = ("--detector", str(folder), "--threshold", "0.1")
    result = run("evaluate", "score", "run", *options)
    assert result.exit_code == 0, result.output
    assert "attribute_rate: the detector does not know the phrases" in result.stdout
    assert run("evaluate", "score", "run", *options, "--clip", str(clip)).exit_code == 0
    assert 0 <= values(tmp_path / "run" / "scores" / "result.json")["right"]["attribute_rate"] <= 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What CLIP is asked of crops."""
    found: list[list[str]] = []
    nearest = Clip.nearest

    def counted(self: Clip, picture: Image.Image, texts: Sequence[str]) -> int:
        found.append(list(texts))
        return nearest(self, picture, texts)

    monkeypatch.setattr(Clip, "nearest", counted)
    return found


@pytest.fixture
def of_crops(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A run of circles that are asked to be red and wooden, scored with a detector that finds every noun that it knows."""
    nouns = {"circle": (0.0, 0.0, 0.5, 0.5), "cat": (0.5, 0.5, 1.0, 1.0)}

    def found(self: _ShapeWorld, pictures: Any, wanted: Any) -> Any:
        return [[Detected(noun, box, 0.9) for noun, box in nouns.items()] for _ in pictures]

    monkeypatch.setattr(_ShapeWorld, "classes", tuple(nouns))
    monkeypatch.setattr(_ShapeWorld, "__call__", found)
    plan = drawn.plan(("right",), items=2)
    both = (Attribute("red circle", "circle", "red"), Attribute("wooden circle", "circle", "wooden"))
    jobs = [
        replace(job, expects=Expects(attributes=both, classes=dict.fromkeys(job.layout.phrases, "circle"))) for job in plan.jobs
    ]
    drawn.run(tmp_path / "run", Plan.of(plan.origin, plan.methods, plan.batch, jobs), METHODS)
    return ("evaluate", "score", "run", "--detector", "shapeworld", "--clip", str(networks.clip(tmp_path / "clip")))


def test_answers_are_asked_for_again_when_a_noun_is_called_otherwise(
    run: Call, of_crops: tuple[str, ...], asked: list[list[str]]
) -> None:
    assert run(*of_crops).exit_code == 0
    assert len(asked) == 2
    assert run(*of_crops).exit_code == 0
    assert len(asked) == 2
    assert run(*of_crops, "--class", "circle=cat").exit_code == 0
    assert len(asked) == 4


def test_an_attribute_that_is_told_from_no_other_is_left_out(
    run: Call, of_crops: tuple[str, ...], asked: list[list[str]]
) -> None:
    result = run(*of_crops)
    assert result.exit_code == 0, result.output
    assert "attribute_rate: left out: wooden, since no attribute of its kind is there to tell it from" in result.stdout
    assert all(len(texts) == 11 and texts[-1] == "a photo of a gray circle" for texts in asked)


def test_another_result_is_kept_beside_the_new_one(run: Call, tmp_path: Path) -> None:
    """And the table that is printed is that of `lsregen evaluate table`."""
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=2), METHODS)
    scores, clip = tmp_path / "run" / "scores", str(networks.clip(tmp_path / "clip"))

    def held() -> list[str]:
        return sorted(path.name for path in scores.glob("*.json"))

    for _ in range(2):
        assert "another result" not in run("evaluate", "score", "run", "--detector", "shapeworld").stderr
    assert held() == ["result.json"]
    first = (scores / "result.json").read_bytes()
    result = run("evaluate", "score", "run", "--clip", clip)
    assert "run/scores/result.json held another result, which is kept as run/scores/result-1.json" in result.stderr
    assert held() == ["result-1.json", "result.json"]
    assert (scores / "result-1.json").read_bytes() == first
    assert set(values(scores / "result.json")["right"]) == {"clip", "clip_multi"}
    assert result.stdout == run("evaluate", "table", "run").stdout
    assert re.search(r"clip \(model.safetensors \w{12}, tokenizer.json \w{12}\)", result.stdout)


def test_inception_is_a_file_of_torchscript(run: Call, tmp_path: Path) -> None:
    networks.inception(tmp_path / "inception.pt")
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=5), METHODS)
    real = str(reference(tmp_path / "real", 10))
    result = run("evaluate", "score", "run", "--features", "inception.pt", "--reference", real)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "run" / "scores" / "result.json").read_text())
    assert data["protocol"]["features"]["dimensions"] == 3
    assert data["rows"][0]["metrics"]["frechet"]["value"] > 0
    assert RunFolder.open(tmp_path / "run").missing() == []
