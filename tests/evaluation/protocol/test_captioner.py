"""Captions by tiny models with random weights: what is asked of them, what is kept, and what cannot be captioned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lsregen.evaluation.protocol.captioner import QUESTION, Captioner, Picture, pictures_of, write_captions
from lsregen.evaluation.protocol.captions import read_captions
from lsregen.evaluation.protocol.export import export_shapeworld
from lsregen.evaluation.protocol.sources import Asked, read_source
from lsregen.framework.errors import CheckpointError, ConfigError, LayoutError

from . import tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with one to three objects, of which four have two or more."""
    folder = tmp_path_factory.mktemp("coco") / "data"
    export_shapeworld(folder, count=6)
    return folder


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return Captioner(tiny.blip2(tmp_path_factory.mktemp("blip2")), "cpu")


@pytest.fixture(scope="module")
def images_only(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return Captioner(tiny.images_only(tmp_path_factory.mktemp("images-only")), "cpu")


def instances(data: Path) -> Path:
    return data / "annotations" / "instances_eval.json"


class Echo:
    """Says what it was asked, so that what is asked is seen."""

    takes_text = True

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def caption(self, images: Any, questions: Any) -> list[str]:
        self.batches.append(list(questions))
        return [f"{image.size} {question}" for image, question in zip(images, questions, strict=True)]


def test_the_papers_question_names_the_two_largest_objects(data: Path) -> None:
    asked = Asked(instances(data), split="multi")
    pictures = pictures_of(asked, data / "images")
    named = [[region.phrase for region in entry.item.layout.regions] for entry in read_source("coco", asked).entries]
    assert [picture.question for picture in pictures] == [
        f"Question: what is the relationship between {first} and {second}? Answer:" for first, second in named
    ]
    assert QUESTION.count("{") == 2


@pytest.mark.parametrize("split", ["all", "single", "multi"])
def test_a_plan_of_as_many_images_as_were_captioned(data: Path, tmp_path: Path, split: str) -> None:
    asked = Asked(instances(data), split=split, limit=2)
    named = {entry.id: entry.item.prompt for entry in read_source("coco", asked).entries}

    class Names(Echo):
        def caption(self, images: Any, questions: Any) -> list[str]:
            return [named.pop(next(iter(named))) for _ in images]

    out = tmp_path / "captions.jsonl"
    assert write_captions(Names(), pictures_of(asked, data / "images"), out) == 2  # pyright: ignore[reportArgumentType]
    assert len(read_source("coco", replace(asked, captions=out)).entries) == 2


def test_a_single_object_is_asked_nothing(data: Path) -> None:
    pictures = pictures_of(Asked(instances(data), split="single"), data / "images")
    assert {picture.question for picture in pictures} == {""}


def test_captions_are_written_once_and_read_as_captions(data: Path, blip2: Captioner, tmp_path: Path) -> None:
    pictures = pictures_of(Asked(instances(data)), data / "images")
    out = tmp_path / "captions.jsonl"
    assert write_captions(blip2, pictures, out, batch=4) == 6
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["id"] for line in lines} == {picture.id for picture in pictures}
    assert {line["id"]: line.get("question", "") for line in lines} == {picture.id: picture.question for picture in pictures}
    assert all(line["caption"] and not line["caption"].startswith("Question") for line in lines)
    assert write_captions(Echo(), pictures, out) == 0  # pyright: ignore[reportArgumentType]
    source = read_source("coco", Asked(instances(data), "drop", split="all", captions=None, limit=3))
    assert read_captions(out).keys() >= {int(entry.id.removeprefix("coco-")) for entry in source.entries}


def test_an_interrupted_file_is_mended_and_goes_on(data: Path, tmp_path: Path) -> None:
    pictures, out, echo = pictures_of(Asked(instances(data)), data / "images"), tmp_path / "captions.jsonl", Echo()
    out.write_text(json.dumps({"id": pictures[0].id, "caption": "kept"}) + "\n" + '{"id": 3, "cap')
    told: list[int] = []
    assert write_captions(echo, pictures, out, batch=2, on_done=told.append) == 5  # pyright: ignore[reportArgumentType]
    assert read_captions(out)[pictures[0].id] == "kept"
    assert len(read_captions(out)) == sum(told) == 6
    assert all(len({bool(question) for question in batch}) == 1 for batch in echo.batches)


def test_images_of_which_nothing_is_said_are_told_at_the_end(data: Path, tmp_path: Path) -> None:
    class Silent(Echo):
        def caption(self, images: Any, questions: Any) -> list[str]:
            return ["" if i == 0 else "a dog" for i in range(len(images))]

    pictures = pictures_of(Asked(instances(data)), data / "images", "")
    with pytest.raises(LayoutError, match=r"the model said nothing of 2 images, the first is .*000000000000.png"):
        write_captions(Silent(), pictures, tmp_path / "a.jsonl", batch=3)  # pyright: ignore[reportArgumentType]
    assert len(read_captions(tmp_path / "a.jsonl")) == 4


def test_a_model_without_text_captions_images_only(data: Path, images_only: Captioner, tmp_path: Path) -> None:
    assert not images_only.takes_text
    pictures = pictures_of(Asked(instances(data), split="multi"), data / "images", "")
    assert write_captions(images_only, pictures, tmp_path / "a.jsonl") == len(pictures)
    asked = pictures_of(Asked(instances(data), split="multi"), data / "images")
    with pytest.raises(ConfigError, match="this model is given images and no text; give --question ''"):
        write_captions(images_only, asked, tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()


def test_a_question_with_other_places(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"--question 'what of {third}\?': expected a text with {first} and {second}"):
        pictures_of(Asked(instances(data), split="multi"), data / "images", "what of {third}?")


def test_images_that_are_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"6 of 6 images are missing; the first is .*000000000000.png"):
        pictures_of(Asked(instances(data)), tmp_path)


def test_an_image_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(LayoutError, match=r"a.png: not a picture that can be read"):
        write_captions(Echo(), [Picture(1, tmp_path / "a.png")], tmp_path / "a.jsonl")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("config", [None, "{}", '{"model_type": "bert"}'])
def test_a_folder_that_is_no_such_model(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises((ConfigError, CheckpointError), match="expected an image-to-text model of transformers"):
        Captioner(tmp_path, "cpu")


def test_weights_that_are_pickles_are_not_opened(tmp_path: Path) -> None:
    folder = tiny.images_only(tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"no file named model\.safetensors.*expected an image-to-text model of transformers"
    ):
        Captioner(folder, "cpu")


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    folder = tiny.images_only(tmp_path)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="expected an image-to-text model of transformers"):
        Captioner(folder, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_is_none(tmp_path: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}'"):
        Captioner(tmp_path, device)
