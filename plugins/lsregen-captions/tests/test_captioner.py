"""Captions by tiny models with random weights: what is asked of them, what is kept, and what cannot be captioned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lsregen_captions.captioner import QUESTION, Captioner, Picture, is_within, pictures_of, write_captions
from PIL import Image
from safetensors.torch import load_file

from lsregen.evaluation.sources import Asked, read_source
from lsregen.evaluation.sources.captions import read_captions
from lsregen.framework.errors import CheckpointError, ConfigError, LayoutError
from recipes.shapeworld.export_coco import export_coco
from tests.evaluation import tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with one to three objects, of which four have two or more."""
    folder = tmp_path_factory.mktemp("coco") / "data"
    export_coco(folder, count=6)
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

    def length(self, question: str) -> tuple[int, ...]:
        return (len(question.split()),) if question else ()

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


@pytest.mark.parametrize("split", ["all", "multi"])
def test_the_larger_object_is_asked_for_first_in_every_split(data: Path, tmp_path: Path, split: str) -> None:
    found = json.loads(instances(data).read_text())
    for i, annotation in enumerate(found["annotations"]):
        annotation["area"] = i + 1  # the last of each image is its largest
    (tmp_path / "a.json").write_text(json.dumps(found))
    names = {each["id"]: each["name"] for each in found["categories"]}
    of = {
        each["id"]: [names[a["category_id"]] for a in found["annotations"] if a["image_id"] == each["id"]]
        for each in found["images"]
    }
    asked = {picture.id: picture.question for picture in pictures_of(Asked(tmp_path / "a.json", split=split), data / "images")}
    assert {key: said for key, said in asked.items() if said} == {
        key: QUESTION.format(first=here[-1], second=here[-2]) for key, here in of.items() if len(here) > 1
    }


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


def lines(path: Path) -> dict[Any, str]:
    return {line["id"]: line["caption"] for line in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_caption_is_the_same_alone_and_in_a_batch(data: Path, tmp_path: Path, side: str) -> None:
    """BLIP-2's own folder pads on the right, where OPT would go on from the padding of a shorter question."""
    captioner = Captioner(tiny.blip2(tmp_path / "model", side), "cpu")
    shown = sorted((data / "images").glob("*.png"))
    asked = (
        "a dog",
        "what is the relationship between a red circle and a blue square on the left of a star",
        "the cat",
        "a star",
    )
    pictures = [Picture(i, shown[i], question) for i, question in enumerate(asked)]
    assert write_captions(captioner, pictures, tmp_path / "together.jsonl", batch=4) == 4
    assert write_captions(captioner, pictures, tmp_path / "alone.jsonl", batch=1) == 4
    assert lines(tmp_path / "together.jsonl") == lines(tmp_path / "alone.jsonl")


def test_only_questions_of_one_length_are_asked_together(data: Path, tmp_path: Path) -> None:
    shown, echo = next((data / "images").glob("*.png")), Echo()
    asked = ("a b", "a", "b", "", "b c", "", "c")
    pictures = [Picture(i, shown, question) for i, question in enumerate(asked)]
    write_captions(echo, pictures, tmp_path / "a.jsonl", batch=2)  # pyright: ignore[reportArgumentType]
    assert echo.batches == [["", ""], ["a", "b"], ["c"], ["a b", "b c"]]
    assert {i: f"(64, 64) {question}".strip() for i, question in enumerate(asked)} == read_captions(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"cannot take these 2 images at once; give --batch 1"):
        Captioner(tiny.blip2(tmp_path / "model"), "cpu").caption([Image.new("RGB", (16, 16))] * 2, ["a", "a dog"])


def test_a_whole_last_line_without_its_end_is_kept(data: Path, tmp_path: Path) -> None:
    pictures, out = pictures_of(Asked(instances(data)), data / "images"), tmp_path / "captions.jsonl"
    out.write_text("".join(f'{{"id": {picture.id}, "caption": "kept {picture.id}"}}\n' for picture in pictures[:2]).rstrip())
    assert write_captions(Echo(), pictures, out) == 4  # pyright: ignore[reportArgumentType]
    found = read_captions(out)
    assert len(found) == 6
    assert [found[picture.id] for picture in pictures[:2]] == [f"kept {picture.id}" for picture in pictures[:2]]


@pytest.mark.parametrize(
    "text",
    [
        "my notes",
        '{"notes": "mine"}',
        '{"id": 1, "note": "mine"}',
        '[{"id": 1',
        '{"id": 1, "caption": "a"}\nmy notes',
        '{"x": 1}\n{"id": 2, "ca',
    ],
)
def test_what_are_no_captions_is_not_touched(data: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.jsonl").write_text(text)
    pictures = pictures_of(Asked(instances(data)), data / "images")
    with pytest.raises(LayoutError, match=r"notes\.jsonl, line [12]: "):
        write_captions(Echo(), pictures, tmp_path / "notes.jsonl")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "notes.jsonl").read_text() == text


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


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "a/../../b.png", "", ".."])
def test_names_that_lead_out_of_the_folder(name: str) -> None:
    assert not is_within(name)


@pytest.mark.parametrize("name", ["a.png", "train2017/000000000001.jpg", "a..b.png"])
def test_names_that_stay_in_the_folder(name: str) -> None:
    assert is_within(name)
