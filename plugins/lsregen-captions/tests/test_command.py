"""`lsregen caption`: captions that are written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from recipes.shapeworld.export_coco import export_coco
from tests.evaluation import tiny

Run = Callable[..., Result]
INSTANCES = "world/annotations/instances_eval.json"


@pytest.fixture(autouse=True)
def world(run: Run) -> None:
    """Two images of two objects each, in the folder that `run` works in."""
    export_coco(Path("world"), count=2, objects=2)


@pytest.mark.slow
def test_captions_are_written_once(run: Run) -> None:
    tiny.blip2(Path("model"))
    options = ("--images", "world/images", "--model", "model", "--device", "cpu", "--out", "a.jsonl")
    assert run("caption", INSTANCES, *options).stdout == "2 images, 2 captioned now\na.jsonl\n"
    assert run("caption", INSTANCES, *options).stdout == "2 images, 0 captioned now\na.jsonl\n"
    assert [json.loads(line)["id"] for line in Path("a.jsonl").read_text().splitlines()] == [0, 1]


CAPTIONS = {
    "no images": (("--images", "there", "--out", "a.jsonl"), "2 of 2 images are missing; the first is there/000000000000.png"),
    "no model": (
        ("--images", "world/images", "--out", "a.jsonl"),
        "--model 'm': no folder with a config.json; expected an image-to-text",
    ),
    "no device": (("--images", "world/images", "--out", "a.jsonl", "--device", "gpu"), "device 'gpu': not a device of torch"),
    "no lines": (("--images", "world/images", "--out", "a.json"), "expected a file that ends in .jsonl"),
    "no folder": (("--images", "world/images", "--out", f"{INSTANCES}/a.jsonl"), "is not a folder"),
}


@pytest.mark.parametrize("case", CAPTIONS)
def test_captions_that_cannot_be_made(run: Run, case: str) -> None:
    options, why = CAPTIONS[case]
    result = run("caption", INSTANCES, "--model", "m", *options)
    assert result.exit_code == 2, result.output
    [said] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert why in said
    assert not list(Path().glob("*.jsonl"))
