"""`lsregen generate` with files: layouts, masks, prompts, and pictures that are made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from lsregen.apps.generating.metadata import read_metadata
from lsregen.apps.output import is_own
from lsregen.framework.layout.regions import Box
from lsregen.framework.pipeline.report import weights
from tests.apps.conftest import BOXES, StandIn

Call = Callable[..., Result]
LINES = (
    {"prompt": "a dog and a cat", "boxes": {"dog": [0.1, 0.2, 0.6, 0.9]}},
    {"prompt": "a dog and a cat", "boxes": {"cat": [0.5, 0.5, 0.9, 0.9]}, "seed": 7, "negative": "rain"},
    {"prompt": "a red car", "boxes": {"red car": [0, 0, 1, 0.5]}, "size": [32, 16], "name": "car"},
)


def write(name: str, data: Any) -> str:
    Path(name).write_text(data if isinstance(data, str) else json.dumps(data))
    return name


def prompts(*lines: dict[str, Any]) -> str:
    return write("prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines or LINES))


def mask(name: str = "mask.png") -> str:
    values = np.zeros((12, 18), np.uint8)
    values[3:9, 5:15] = 255
    Image.fromarray(values).save(name)
    return name


def images() -> set[str]:
    return {path.name for path in Path("outputs").glob("*.png") if not path.stem.endswith(("-layout", "-attention"))}


def bare(run: Call, *args: str) -> Result:
    """`run` adds a prompt where there is none; this does not."""
    return run("--", "generate", *args)


def test_a_layout_file_with_and_without_a_prompt(run: Call, stand_in: StandIn) -> None:
    file = write("one.json", {"prompt": "a big dog", "boxes": {"dog": [0.1, 0.2, 0.6, 0.9]}, "seed": 3, "negative": "rain"})
    assert bare(run, "--layout", file).exit_code == 0
    assert bare(run, "--layout", file, "--prompt", "a dog and a cat", "--box", "cat=0,0,0.5,0.5", "--seed", "4").exit_code == 0
    first, second = stand_in.calls
    assert (first["prompt"], first["seed"], first["negative"]) == (["a big dog"], [3], ["rain"])
    assert first["layout"][0].regions[0].box == Box(0.1, 0.2, 0.6, 0.9)
    assert (second["prompt"], second["seed"]) == (["a dog and a cat"], [4])
    assert second["layout"][0].phrases == ("dog", "cat")
    assert images() == {"a-big-dog-3.png", "a-dog-and-a-cat-4.png"}


def test_the_size_of_an_annotated_picture_is_not_that_of_the_image_to_make(run: Call, stand_in: StandIn) -> None:
    coco = {
        "images": [{"id": 1, "width": 641, "height": 479}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [64.1, 47.9, 320.5, 239.5]}],
        "categories": [{"id": 2, "name": "dog"}],
    }
    assert bare(run, "--layout", write("coco.json", coco)).exit_code == 0
    (call,) = stand_in.calls
    assert (call["prompt"], call["size"]) == (["a dog"], None)
    assert call["layout"][0].regions[0].box.xyxy == pytest.approx((0.1, 0.1, 0.6, 0.6))


def test_a_mask_is_a_place(run: Call, stand_in: StandIn) -> None:
    result = run("generate", "--mask", f"red circle={mask()}", "--phrase", "Red circle")
    assert result.exit_code == 0, result.output
    assert "guidance: layout-guidance" in result.stderr
    (region,) = stand_in.calls[0]["layout"][0].regions
    assert region.phrase == "red circle"
    assert region.mask.shape == (12, 18)
    (path,) = (path for path in Path("outputs").glob("*-layout.png"))
    assert torch.equal(read_metadata(path.with_name(path.name.replace("-layout", ""))).layout.regions[0].mask, region.mask)


def test_every_item_of_a_file_of_prompts(run: Call, stand_in: StandIn) -> None:
    result = bare(run, "--prompts", prompts(), "--batch", "2", "--count", "2")
    assert result.exit_code == 0, result.output
    assert [(call["prompt"], call["seed"], call["size"]) for call in stand_in.calls] == [
        (["a dog and a cat"] * 2, [0, 1], None),
        (["a dog and a cat"] * 2, [7, 8], None),
        (["a red car"] * 2, [0, 1], (32, 16)),
    ]
    names = ("1-a-dog-and-a-cat-0", "1-a-dog-and-a-cat-1", "2-a-dog-and-a-cat-7", "2-a-dog-and-a-cat-8", "3-car-0", "3-car-1")
    assert images() == {f"{name}.png" for name in names}
    report = json.loads(Path("outputs/report.json").read_text())
    assert report["seeds"] == [0, 1, 7, 8, 0, 1]
    assert "prompt" not in report, "it differs from image to image"
    assert [entry["prompt"] for entry in report["images"]][::2] == [line["prompt"] for line in LINES]
    assert report["images"][4]["size"] == [32, 16]
    assert report["dtype"] == "float32"


def test_prompts_of_one_batch_may_differ(run: Call, stand_in: StandIn) -> None:
    assert bare(run, "--prompts", prompts(), "--batch", "8", "--size", "24x16", "--seed", "1", "--name", "x").exit_code == 0
    (call,) = stand_in.calls
    assert call["prompt"] == [line["prompt"] for line in LINES]
    assert [layout.phrases for layout in call["layout"]] == [("dog",), ("cat",), ("red car",)]
    assert (call["seed"], call["negative"], call["size"]) == ([1, 1, 1], ["", "rain", ""], (24, 16))
    assert images() == {"x-1-1.png", "x-2-1.png", "x-3-1.png"}
    found = read_metadata(Path("outputs/x-2-1.png"))
    assert (found.index, [sample.prompt for sample in found.batch]) == (1, call["prompt"])
    assert found.own.negative == "rain"


def test_a_box_that_cannot_be_used_is_an_error_or_reported(run: Call, stand_in: StandIn) -> None:
    lines = prompts({"prompt": "a dog and a cat", "boxes": {"dog": [0.6, 0.2, 0.1, 0.9], "cat": [0, 0, 0.5, 0.5]}})
    result = bare(run, "--prompts", lines)
    assert result.exit_code == 2
    assert "prompts.jsonl, line 1, box 1 ('dog')" in result.stderr
    result = bare(run, "--prompts", lines, "--on-bad-box", "drop")
    assert result.exit_code == 0, result.output
    assert "Dropped: prompts.jsonl, line 1, box 1 ('dog'): box: " in result.stderr
    assert [region.box is None for region in stand_in.calls[0]["layout"][0].regions] == [True, False]


def test_items_that_ask_for_different_guidance_need_a_name_for_it(run: Call, stand_in: StandIn) -> None:
    lines = prompts(LINES[0], {"prompt": "a tree", "layout": {"regions": [{"phrase": "tree"}]}})
    result = bare(run, "--prompts", lines)
    assert result.exit_code == 2
    assert "item 1 would have layout-guidance@shapeworld, and item 2 attend-and-excite@shapeworld" in result.stderr
    assert bare(run, "--prompts", lines, "--guidance", "attend-and-excite").exit_code == 0
    result = bare(run, "--prompts", lines, "--guidance", "layout-guidance")
    assert result.exit_code == 2
    assert "--prompts, item 2: guidance 'layout-guidance', term 'layout': distance box_energy needs a box" in result.stderr


def test_a_picture_is_made_again_in_its_batch(run: Call, stand_in: StandIn) -> None:
    changed = ("--set", "guidance.layout.gamma=9", "--steps", "3", "--negative", "green", "--size", "32x16")
    assert run("generate", *BOXES, *changed, "--count", "3", "--batch", "3", "--seed", "5", "--name", "x").exit_code == 0
    before = stand_in.calls.pop()
    result = bare(run, "--from-image", "outputs/x-6.png", "--model", ".", "--out", "again", "--name", "y")
    assert result.exit_code == 0, result.output
    (call,) = stand_in.calls
    for key in ("prompt", "layout", "negative", "seed", "size"):
        assert call[key] == before[key], key
    assert [path.name for path in sorted(Path("again").iterdir())] == [
        "report.json", "y-6-attention.png", "y-6-layout.png", "y-6.png",
    ]  # fmt: skip
    assert read_metadata(Path("again/y-6.png")).batch == read_metadata(Path("outputs/x-6.png")).batch
    assert [made["seed"] for made in json.loads(Path("again/report.json").read_text())["images"]] == [6]
    assert "Warning" not in result.stderr


def test_a_picture_does_not_replace_itself(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--name", "x")
    before = Path("outputs/x-0.png").read_bytes()
    result = bare(run, "--from-image", "outputs/x-0.png", "--model", ".", "--name", "x")
    assert result.exit_code == 2
    assert "would be replaced by what is made from it; choose another --out or --name" in result.stderr
    assert Path("outputs/x-0.png").read_bytes() == before
    assert is_own(Path("outputs/x-0.png"))


UNET = {"unet": {"parameters": 5, "sha256": {"a.safetensors": "0" * 64}}}


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"name": "renamed", "dtype": "float16"}, False),
        ({"components": {"unet": {"sha256": {"renamed.safetensors": "0" * 64}}}}, False),
        ({"components": {"unet": {"sha256": {"a.safetensors": "1" * 64}}}}, True),
        ({"components": {**UNET, "vae": {"sha256": {}}}}, True),
        ({"prediction": "v"}, True),
        ({"grounding": 0.3}, True),
        ({"components": None}, True),
    ],
)
def test_other_weights_than_then_are_said(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], warned: bool
) -> None:
    run("generate", *BOXES, "--name", "x")
    monkeypatch.setattr(stand_in.model, "describe", lambda: {"name": "stand-in", "components": UNET} | changes)
    result = bare(run, "--from-image", "outputs/x-0.png", "--model", ".", "--name", "y")
    assert result.exit_code == 0, result.output
    said = "Warning: the picture was made with other weights; it may come out different." in result.stderr
    assert said == warned


def test_models_without_hashes_are_compared_whole() -> None:
    model = {"name": "toy", "dtype": "float32", "hash": "1"}
    assert weights(model) == weights(model | {"name": "other", "dtype": "float16"}) != weights(model | {"hash": "2"})


def test_a_picture_of_another_autoencoder_asks_for_it(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def describes(vae: str) -> None:
        parts = {"unet": {"sha256": {"unet.safetensors": "11"}}, "vae": {"sha256": {"vae.safetensors": vae}}}
        monkeypatch.setattr(stand_in.model, "describe", lambda: {"name": "stand-in", "components": parts})

    describes("22" * 32)
    run("generate", *BOXES, "--name", "x")
    again = ("--from-image", "outputs/x-0.png", "--model", ".", "--name", "y")
    describes("33" * 32)
    result = bare(run, *again)
    assert result.exit_code == 2
    assert "another autoencoder than that of stand-in (vae.safetensors, sha256 222222222222...)" in result.stderr
    assert "say where it is: --vae PATH" in result.stderr
    assert not Path("outputs/y-0.png").exists()
    describes("22" * 32)
    assert bare(run, *again).exit_code == 0


def test_a_model_named_in_a_picture_is_never_a_path(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--name", "x")  # made by "stand-in", which does not ship
    Path("stand-in").mkdir()
    result = bare(run, "--from-image", "outputs/x-0.png", "--name", "y")
    assert result.exit_code == 2
    assert "made by the model 'stand-in', which does not ship; say where it is: --model DIR" in result.stderr
    assert len(stand_in.loaded) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), ("--prompt is missing", "--prompts FILE", "--from-image FILE")),
        (("--layout", "absent.json"), ("--layout absent.json", "cannot be read")),
        (("--layout", "two.json", "--prompt", "a dog"), ("2 items, expected one", "--prompts")),
        (("--layout", "bare.json"), ("--prompt is missing", "bare.json holds none")),
        (("--prompts", "two.json", "--prompt", "x"), ("--prompts with --prompt", "leave one of them out")),
        (("--prompts", "two.json", "--box", "dog=0,0,1,1"), ("--prompts with --box",)),
        (("--prompts", "empty.jsonl"), ("no lines",)),
        (("--prompts", "untold.jsonl"), ("--prompts, item 2: prompt '' is empty",)),
        (("--prompts", "strange.jsonl"), ("--prompts, item 1: ", "'elephant'", "a dog")),
        (("--mask", "dog=absent.png", "--prompt", "a dog"), ("--mask 'dog=absent.png'", "no such file")),
        (("--mask", "dog", "--prompt", "a dog"), ("--mask 'dog'", "PHRASE=FILE.png")),
        (("--mask", "cat=mask.png", "--prompt", "a dog"), ("--mask: ", "'cat'")),
        (
            ("--mask", "dog=mask.png", "--box", "Dog=0,0,1,1", "--prompt", "a dog"),
            ("--box and --mask of 'dog': they would be two places; leave one out",),
        ),
        (("--from-image", "mask.png"), ("mask.png: no settings of lsregen inside",)),
        (("--from-image", "absent.png"), ("absent.png",)),
        (("--from-image", "mask.png", "--seed", "3"), ("--from-image with --seed",)),
        (("--from-image", "mask.png", "--count", "3"), ("--from-image with --count or --batch",)),
        (("--from-image", "mask.png", "--guidance", "none"), ("--from-image with --guidance",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(run: Call, stand_in: StandIn, args: tuple[str, ...], said: tuple[str, ...]) -> None:
    write("two.json", [{"prompt": "a dog"}, {"prompt": "a cat"}])
    write("bare.json", {"boxes": {"dog": [0, 0, 1, 1]}})
    write("empty.jsonl", "")
    write("untold.jsonl", '{"prompt": "a dog"}\n{"boxes": {"dog": [0, 0, 1, 1]}}\n')
    write("strange.jsonl", '{"prompt": "a dog", "boxes": {"elephant": [0, 0, 1, 1]}}\n')
    mask()
    result = bare(run, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr
    assert not stand_in.loaded


def test_masks_that_would_not_fit_into_the_settings(run: Call, stand_in: StandIn) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(1, 256, (1200, 1800), dtype=np.uint8)).save("noise.png")
    result = run("generate", "--mask", "red circle=noise.png")
    assert result.exit_code == 2
    assert "--no-metadata" in result.stderr
    assert run("generate", "--mask", "red circle=noise.png", "--no-metadata").exit_code == 0


def test_a_mask_of_other_proportions_is_refused(run: Call, stand_in: StandIn) -> None:
    for name, size in (("same.png", (48, 32)), ("other.png", (40, 40))):
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, 20, 20))
        mask.save(name)
    refused = run("generate", "--mask", "red circle=other.png", "--name", "x")
    assert refused.exit_code == 2
    said = "the mask of 'red circle': 40x40 pixels, and the image is to have 24x16: it would be stretched; crop it, or ask for a "
    assert said in refused.stderr
    assert not Path("outputs/x.png").exists()
    assert run("generate", "--mask", "red circle=same.png", "--name", "y").exit_code == 0


def test_guidance_without_terms_is_said_to_pull_nothing_unless_the_model_sees_boxes(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty.yaml").write_text("steps: 3\n")
    said = (
        "Warning: the guidance 'empty.yaml' pulls nothing, and the model stand-in does not see boxes: the layout changes nothing"
    )
    assert said in run("generate", *BOXES, "--guidance", "empty.yaml").stderr
    assert "pulls nothing" not in run("generate", *BOXES, "--guidance", "none", "--name", "y").stderr
    refused = run("generate", *BOXES, "--guidance", "gligen", "--model", "shapeworld-base", "--name", "z")
    assert (refused.exit_code, "guidance 'gligen': it has no terms" in refused.stderr) == (2, True)
    monkeypatch.setattr(stand_in.model, "grounded", True)
    result = run("generate", *BOXES, "--guidance", "empty.yaml", "--name", "z")
    assert (result.exit_code, "Warning" in result.stderr) == (0, False)


def test_a_phrase_of_a_file_is_said_to_be_in_the_file(run: Call, stand_in: StandIn) -> None:
    Path("mine.json").write_text('{"prompt": "a blue star", "boxes": {"blue star": [0.1, 0.1, 0.6, 0.6]}}')
    result = run("generate", "--layout", "mine.json")
    assert result.exit_code == 2
    assert "Error: --layout mine.json: phrase 'blue star' is not in the prompt" in result.stderr
