"""Detectors: the exact one, and folders of transformers; what is no detector is said before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from lsregen.evaluation.instruments.detectors import ShapeWorldDetector, TransformersDetector, labels_for
from lsregen.evaluation.runs.measuring_device import device_of
from lsregen.evaluation.shapeworld import render, sample_scene
from lsregen.framework import discover
from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.testing import check_detector
from tests.evaluation import networks


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.yolos(tmp_path_factory.mktemp("yolos"), ("cat", "dog"))


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.owl(tmp_path_factory.mktemp("owl"))


def test_the_built_ins_come_by_the_hook() -> None:
    assert {"shapeworld", "transformers"} <= set(discover(only=()).detectors)


def test_the_exact_detector_conforms_and_finds_a_scene_again() -> None:
    assert check_detector(ShapeWorldDetector()).held
    scene = sample_scene(3, split="eval", objects=2)
    (found,) = ShapeWorldDetector().load("cpu")([Image.fromarray(render(scene))], [()])
    assert sorted(each.label for each in found) == sorted(scene.phrases)
    assert all(each.score > 0.65 for each in found)


@pytest.mark.same_request
def test_a_folder_with_classes_conforms(yolos: Path) -> None:
    detector = TransformersDetector(str(yolos))
    check_detector(detector)
    loaded = detector.load("cpu")
    assert loaded.classes == ("cat", "dog")
    assert set(loaded.sha256) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    picture = Image.new("RGB", (80, 64), (90, 0, 0))
    assert {each.label for each in loaded([picture], [()])[0]} <= {"cat", "dog"}


@pytest.mark.same_request
def test_a_folder_for_any_words_conforms_and_looks_for_nothing_else(owl: Path) -> None:
    detector = TransformersDetector(str(owl))
    check_detector(detector)
    loaded = detector.load("cpu")
    assert loaded.classes is None
    pictures = [Image.new("RGB", (80, 64), (90, 0, 0))] * 3
    found = loaded(pictures, [("cat",), ("red circle", "dog"), ()])
    assert {each.label for each in found[0]} == {"cat"}
    assert {each.label for each in found[1]} <= {"red circle", "dog"}
    assert found[2] == ()


@pytest.mark.parametrize("name", ["yolos", "owl"])
def test_a_folder_may_ask_for_plain_tuples(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    pictures, words = [networks.noise((80, 64), 60)], [("cat", "dog")]
    (wanted,), (found,) = (
        TransformersDetector(str(each)).load("cpu")(pictures, words) for each in (folder, networks.in_tuples(folder, tmp_path))
    )
    assert [each.label for each in found] == [each.label for each in wanted] != []
    assert [each.score for each in found] == pytest.approx([each.score for each in wanted])


def test_boxes_are_those_of_transformers_as_fractions(yolos: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    picture = networks.noise((80, 64), 60)
    processor, network = AutoImageProcessor.from_pretrained(yolos), AutoModelForObjectDetection.from_pretrained(yolos)
    outputs = network(**processor(images=[picture], return_tensors="pt"))
    (wanted,) = processor.post_process_object_detection(outputs, threshold=0.001, target_sizes=[(64, 80)])
    (found,) = TransformersDetector(str(yolos)).load("cpu")([picture], [()])
    there = {tuple(round(value, 2) for value in box.tolist()) for box in wanted["boxes"]}
    assert found
    assert {
        tuple(round(value * side, 2) for value, side in zip(each.box, (80, 64, 80, 64), strict=True)) for each in found
    } <= there


def test_the_least_score_leaves_objects_out(yolos: Path) -> None:
    pictures = [networks.noise((80, 64), 60)]
    loaded = TransformersDetector(str(yolos), least_score=0.0).load("cpu")
    highest = max(each.score for each in loaded(pictures, [()])[0])
    strict = TransformersDetector(str(yolos), least_score=min(highest, 0.999), threshold=1.0).load("cpu")
    assert all(each.score >= min(highest, 0.999) for each in strict(pictures, [()])[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"least_score": 1.0}, r"least_score: 1.0; expected a number in \[0, 1\)"),
        ({"threshold": 0.0}, r"threshold: 0.0; expected a number from least_score \(0.001\) to 1"),
        ({"query": "cat"}, r"query: 'cat'; expected {} in it once"),
        ({"query": "a {} of {name}"}, r"query: 'a {} of {name}'; expected {} in it once, .* and no other braces"),
        ({"query": "{} {}"}, r"query: '{} {}'; expected {} in it once"),
        ({"query": "{} {"}, r"query: '{} {'; expected {} in it once"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TransformersDetector("folder", **options)  # type: ignore[arg-type]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder with a config\.json; expected a detector of transformers"):
        TransformersDetector(str(tmp_path)).load("cpu")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))


def without_preparation(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize("spoil", [without_weights, of_another_kind, without_preparation])
def test_a_folder_that_is_no_detector(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = networks.yolos(tmp_path, ("cat",))
    spoil(folder)
    with pytest.raises(CheckpointError, match=r"cannot be loaded .*; expected a detector of transformers"):
        TransformersDetector(str(folder)).load("cpu")


def test_weights_that_are_missing(tmp_path: Path) -> None:
    folder = networks.yolos(tmp_path, ("cat",))
    weights = load_file(folder / "model.safetensors")
    removed = next(key for key in weights if key.startswith("bbox_predictor"))
    save_file({key: value for key, value in weights.items() if key != removed}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lacks 1 weight, 'bbox_predictor[\w.]*' among them; it holds a YolosForObjectDetection; "
    ):
        TransformersDetector(str(folder)).load("cpu")


@dataclass(frozen=True)
class Knows:
    classes: tuple[str, ...] | None


def test_classes_are_matched_whatever_their_case() -> None:
    assert labels_for(Knows(("Cat", "TV")), ["cat", "tv"], {}, "x") == {"cat": "Cat", "tv": "TV"}  # type: ignore[arg-type]
    assert labels_for(Knows(("Cat", "TV")), ["television"], {"Television": "tv"}, "x") == {"television": "TV"}  # type: ignore[arg-type]
    assert labels_for(Knows(None), ["unicorn"], {}, "x") == {"unicorn": "unicorn"}  # type: ignore[arg-type]


def test_a_class_that_is_lacking_is_named_with_the_nearest() -> None:
    said = (
        r"detector x: lacks 2 of the 3 classes that the plan asks for: zebras \(did you mean 'zebra'\?\), unicorn; .*"
        r"\(--class 'zebras=LABEL'\); it knows cat, zebra"
    )
    with pytest.raises(ConfigError, match=said):
        labels_for(Knows(("cat", "zebra")), ["cat", "zebras", "unicorn"], {}, "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--class 'dgo=cat': class 'dgo' is renamed, and nothing asks for it"):
        labels_for(Knows(("cat",)), ["cat"], {"dgo": "cat"}, "x")  # type: ignore[arg-type]


def test_a_label_that_the_detector_lacks_is_named_with_its_option_and_the_nearest() -> None:
    said = r"--class 'tv=TV monitr': the detector x has no label 'TV monitr' \(did you mean 'tv monitor'\?\); it knows TV monitor"
    with pytest.raises(ConfigError, match=said):
        labels_for(Knows(("TV monitor",)), ["tv"], {"tv": "TV monitr"}, "x")  # type: ignore[arg-type]
    assert labels_for(Knows(None), ["tv"], {"tv": "television"}, "x") == {"tv": "television"}  # type: ignore[arg-type]


def test_a_device_that_is_not_there() -> None:
    assert device_of("auto").type
    assert device_of("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="device 'abacus': not a device of torch"):
        device_of("abacus")
    with pytest.raises(ConfigError, match=r"device 'xpu:99': this machine has"):
        device_of("xpu:99")
