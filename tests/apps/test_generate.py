"""`lsregen generate`: files, report, seeds and batches, what is overwritten, and what an interrupted run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps.metadata import read_metadata
from lsregen.framework.errors import NonFiniteError

from .conftest import BOXES, PROMPT, StandIn

Call = Callable[..., Result]
STEM = "a-red-circle-and-a-blue-square"


def report_in(folder: str = "outputs") -> Any:
    return json.loads(Path(folder, "report.json").read_text())


def picture(path: str) -> tuple[tuple[int, int], dict[Any, Any]]:
    """Size and texts."""
    with Image.open(path) as image:
        return image.size, image.info


def test_the_files_of_one_image(run: Call, stand_in: StandIn) -> None:
    result = run("generate", *BOXES)
    assert result.exit_code == 0, result.output
    names = {f"{STEM}-0.png", f"{STEM}-0-layout.png", f"{STEM}-0-attention.png", "report.json"}
    assert {path.name for path in Path("outputs").iterdir()} == names
    assert result.stdout.splitlines() == [f"outputs/{STEM}-0.png  0.2 s"]
    assert "guidance: layout-guidance" in result.stderr
    size, info = picture(f"outputs/{STEM}-0.png")
    assert size == (24, 16)
    assert picture(f"outputs/{STEM}-0-layout.png")[0] == (24 * 32, 16 * 32)
    last = info["parameters"].splitlines()[-1]
    version = read_metadata(Path(f"outputs/{STEM}-0.png")).versions["lsregen"]
    assert last == f"Steps: 4, Sampler: DDIM, CFG scale: 4, Seed: 0, Size: 24x16, Model: stand-in, Version: lsregen {version}"


def test_the_report(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--count", "3", "--batch", "2", "--seed", "5", "--steps", "2", "--negative", "green")
    report = report_in()
    assert report["seeds"] == [5, 6, 7]
    assert (report["prompt"], report["negative"], report["guidance"]) == (PROMPT, "green", "layout-guidance")
    assert report["interrupted"] is False
    assert set(report["seconds"]) == {"start", "load", "prepare", "sample", "decode", "write", "total"}
    assert report["model"]["components"]["unet"]["sha256"]
    images = report["images"]
    assert [(i["seed"], i["path"], i["batch_seeds"], i["index"]) for i in images] == [
        (5, f"{STEM}-5.png", [5, 6], 0),
        (6, f"{STEM}-6.png", [5, 6], 1),
        (7, f"{STEM}-7.png", [7], 0),
    ]
    assert images[1]["energies"] == [
        {"step": 0, "term": "layout", "energy": 6.0, "updated": True, "strength": 30.0},
        {"step": 1, "term": "layout", "energy": 6.1, "updated": True, "strength": 30.0},
    ]
    settings = read_metadata(Path("outputs", f"{STEM}-6.png"))
    assert (settings.seed, settings.batch_seeds, settings.index, settings.negative) == (6, (5, 6), 1, "green")


def test_what_the_pipeline_is_asked(run: Call, stand_in: StandIn) -> None:
    where = ("--model", "somewhere", "--device", "cpu", "--dtype", "fp32")
    how = ("--cfg", "3", "--sampler", "ddpm", "--size", "64x32", "--trace", "0")
    assert run("generate", *BOXES, *where, *how, "--set", "guidance.layout.gamma=9").exit_code == 0
    (loaded,), (call,) = stand_in.loaded, stand_in.calls
    assert (loaded["model"], loaded["device"], loaded["dtype"]) == ("somewhere", "cpu", "fp32")
    assert (call["cfg"], call["sampler"], call["size"], call["trace"]) == (3.0, "ddpm", (64, 32), 0)
    assert call["sets"] == ("guidance.layout.gamma=9",)
    assert call["guidance"]["guidance"]["layout"]["distance"] == "box_energy"


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (BOXES, "layout-guidance"),
        (("--phrase", "red circle"), "attend-and-excite"),
        ((*BOXES, "--phrase", "circle"), "layout-guidance"),
        ((), "none"),
        ((*BOXES, "--guidance", "none"), "none"),
        ((*BOXES, "--guidance", "semantic-layout"), "semantic-layout"),
    ],
)
def test_default_guidance(run: Call, stand_in: StandIn, args: tuple[str, ...], name: str) -> None:
    result = run("generate", *args)
    assert f"guidance: {name}\n" in result.stderr
    assert report_in()["guidance"] == name
    assert bool(stand_in.calls[0]["guidance"]) == (name != "none")


def test_guidance_from_a_file_with_model_and_seed(run: Call, stand_in: StandIn) -> None:
    Path("mine.yaml").write_text("steps: 3\nseed: 7\nmodel: other\nguidance: {}\n")
    assert run("generate", "--guidance", "mine.yaml", "--name", "x").exit_code == 0
    assert stand_in.loaded[0]["model"] == "other"
    assert Path("outputs/x-7.png").exists()
    assert run("generate", "--guidance", "mine.yaml", "--name", "x", "--model", "mine", "--seed", "1").exit_code == 0
    assert stand_in.loaded[1]["model"] == "mine"
    assert read_metadata(Path("outputs/x-1.png")).config["seed"] == 1
    assert run("generate", "--guidance", "mine.yaml", "--name", "x", "--set", "seed=3").exit_code == 0
    assert Path("outputs/x-3.png").exists()


def test_a_phrase_with_a_box_needs_no_second_mention(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--phrase", "Red  Circle", "--phrase", "square", "--phrase", "square")
    assert [region.phrase for region in stand_in.calls[0]["layout"].regions] == ["red circle", "blue square", "square"]


def test_without_boxes_or_phrases_only_the_image(run: Call, stand_in: StandIn) -> None:
    run("generate")
    assert {path.name for path in Path("outputs").iterdir()} == {f"{STEM}-0.png", "report.json"}
    assert report_in()["images"][0]["layout"] is None


def test_json_is_all_there_is_on_stdout(run: Call, stand_in: StandIn) -> None:
    result = run("generate", *BOXES, "--json")
    assert json.loads(result.stdout) == report_in()


def test_no_metadata(run: Call, stand_in: StandIn) -> None:
    for _ in range(2):  # the second time over its own file
        assert run("generate", *BOXES, "--no-metadata").exit_code == 0
        assert picture(f"outputs/{STEM}-0.png")[1] == {"Software": "lsregen"}


def test_own_files_are_replaced_and_said_so(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES)
    result = run("generate", *BOXES, "--seed", "1")
    assert result.exit_code == 0
    assert "1 file of an earlier run was replaced" in result.stderr  # the report
    assert "4 files of an earlier run were replaced" in run("generate", *BOXES, "--seed", "1").stderr
    assert Path(f"outputs/{STEM}-0.png").exists()


@pytest.mark.parametrize("name", [f"{STEM}-0.png", f"{STEM}-1-layout.png", "report.json"])
def test_files_of_others_and_folders_are_left_alone(run: Call, stand_in: StandIn, name: str) -> None:
    path = Path("outputs", name)
    path.parent.mkdir()
    path.write_text("{}")
    result = run("generate", *BOXES, "--count", "2")
    assert result.exit_code == 2
    assert f"outputs/{name} exists and was not made by lsregen" in result.stderr
    path.unlink()
    path.mkdir()
    assert "a folder is in the way" in run("generate", *BOXES, "--count", "2").stderr
    assert not stand_in.loaded


def interrupt(batch: int) -> None:
    if batch == 2:
        raise KeyboardInterrupt


def test_an_interrupted_run_keeps_what_is_finished(run: Call, stand_in: StandIn) -> None:
    stand_in.before_batch = interrupt
    result = run("generate", *BOXES, "--count", "5", "--name", "x")
    assert result.exit_code == 130
    assert "Interrupted; 2 of 5 images were finished and are kept in outputs" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["outputs/x-0.png", "outputs/x-1.png"]
    report = report_in()
    assert (report["seeds"], report["requested"], report["interrupted"]) == ([0, 1], 5, True)
    assert len(list(Path("outputs").iterdir())) == 2 * 3 + 1  # and no part of a third


def test_an_interrupt_before_the_first_image(run: Call, stand_in: StandIn) -> None:
    stand_in.before_batch = lambda _: interrupt(2)
    result = run("generate", *BOXES)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Interrupted; no image was finished" in result.stderr
    assert list(Path("outputs").iterdir()) == []


def test_an_error_keeps_what_is_finished(run: Call, stand_in: StandIn) -> None:
    def fail(batch: int) -> None:
        if batch == 1:
            raise NonFiniteError("term 'layout' at step 3: nan")

    stand_in.before_batch = fail
    result = run("generate", *BOXES, "--count", "3")
    assert result.exit_code == 2
    assert "Failed; 1 of 3 images were finished" in result.stderr
    assert result.stderr.endswith("Error: term 'layout' at step 3: nan\n")
    assert report_in()["seeds"] == [0]


def test_out_of_memory_says_what_to_do(run: Call, stand_in: StandIn) -> None:
    import torch

    def fail(_: int) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    stand_in.before_batch = fail
    result = run("generate", "--batch", "4", "--count", "4")
    assert result.exit_code == 2
    assert "not enough memory for 4 images at once; lower --batch" in result.stderr


def test_a_prompt_that_is_too_long(run: Call, stand_in: StandIn) -> None:
    prompt = "a red circle" + " and" * 30 + " a blue square"
    assert "Warning: the prompt is too long for stand-in" in run("generate", "--prompt", prompt).stderr
    result = run("generate", "--prompt", prompt, "--phrase", "blue square")
    assert result.exit_code == 2
    assert "--phrase: phrase 'blue square' is in the part of the prompt that the model does not see" in result.stderr
