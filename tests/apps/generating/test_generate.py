"""`lsregen generate`: files, report, seeds and batches, and what is overwritten."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps.generating.metadata import read_metadata
from lsregen.apps.generating.progress import Progress
from lsregen.framework import LoadOptions
from tests.apps.conftest import BOXES, PROMPT, StandIn

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


def test_the_small_picture_that_another_model_made_is_kept_beside_the_image(run: Call, stand_in: StandIn) -> None:
    source = "{model: shapeworld-base, guidance: layout-guidance}"
    term = f"{{extractor: {{name: gligen_inversion, source: {source}}}, distance: l2, blend: 1}}"
    Path("inversion.yaml").write_text(f"guidance: {{pull: {term}}}")
    result = run("generate", *BOXES, "--guidance", "inversion.yaml", "--seed", "7")
    assert result.exit_code == 0, result.output
    with Image.open(f"outputs/{STEM}-7-source.png") as kept:
        assert kept.getpixel((0, 0)) == (0, 7, 0)
    assert report_in()["images"][0]["source_path"] == f"{STEM}-7-source.png"
    models = {"small": stand_in.model.describe()}
    assert read_metadata(Path(f"outputs/{STEM}-7.png")).models == report_in()["models"] == models
    assert run("generate", *BOXES, "--seed", "7").exit_code == 0  # of a picture that has none, an earlier one's is removed
    assert not Path(f"outputs/{STEM}-7-source.png").exists()


def test_the_report(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--count", "3", "--batch", "2", "--seed", "5", "--steps", "2", "--negative", "green")
    report = report_in()
    assert report["seeds"] == [5, 6, 7]
    assert (report["prompt"], report["negative"], report["guidance"]) == (PROMPT, "green", "layout-guidance@shapeworld")
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
    assert [(each.seed, each.negative) for each in settings.batch] == [(5, "green"), (6, "green")]
    assert (settings.seed, settings.index) == (6, 1)


def test_what_the_pipeline_is_asked(run: Call, stand_in: StandIn) -> None:
    Path("somewhere").mkdir()
    where = ("--model", "somewhere", "--device", "cpu", "--dtype", "fp32")
    how = ("--cfg", "3", "--sampler", "ddpm", "--size", "64x32", "--trace", "0")
    assert run("generate", *BOXES, *where, *how, "--set", "guidance.layout.gamma=9").exit_code == 0
    (loaded,), (call,) = stand_in.loaded, stand_in.calls
    assert (loaded["model"], loaded["device"], loaded["dtype"]) == ("somewhere", "cpu", "fp32")
    config = call["guidance"]
    assert (config.cfg, config.sampler_name, call["size"], call["trace"]) == (3.0, "ddpm", (64, 32), 0)
    (term,) = config.terms
    assert (term.name, term.distance_name, term.schedule.gamma) == ("layout", "box_energy", 9)


def test_how_the_model_is_loaded(run: Call, stand_in: StandIn) -> None:
    asked: dict[str, Any] = {
        "revision": "v2", "variant": "fp16", "vae": Path("vae"), "family": "sd2", "prediction_type": "epsilon", "grounding": 0.5,
        "memory": "low", "tiling": "on", "tile": 512, "offload": True,
    }  # fmt: skip
    options = [("--" + name.replace("_", "-"), str(value)) for name, value in asked.items() if name != "offload"]
    result = run("generate", "--model", "owner/name", *(text for pair in options for text in pair), "--offload")
    assert result.exit_code == 0, result.output
    run("generate")
    said, unsaid = ({key: loaded[key] for key in loaded if key not in ("model", "plugins")} for loaded in stand_in.loaded)
    assert (LoadOptions.of(said), LoadOptions.of(unsaid)) == (LoadOptions(**asked), LoadOptions())
    assert {*asked, "device", "dtype"} == {f.name for f in fields(LoadOptions)}


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (BOXES, "layout-guidance@shapeworld"),
        (("--phrase", "red circle"), "attend-and-excite@shapeworld"),
        ((*BOXES, "--phrase", "circle"), "layout-guidance@shapeworld"),
        ((*BOXES, "--model", "shapeworld-large"), "lsregen"),
        ((*BOXES, "--model", "owner/name"), "layout-guidance"),
        (("--phrase", "red circle", "--model", "owner/name"), "attend-and-excite"),
        ((*BOXES, "--guidance", "layout-guidance"), "layout-guidance"),
        ((), "none"),
        ((*BOXES, "--guidance", "none"), "none"),
        ((*BOXES, "--guidance", "semantic-layout"), "semantic-layout"),
    ],
)
def test_default_guidance(run: Call, stand_in: StandIn, args: tuple[str, ...], name: str) -> None:
    result = run("generate", *args)
    assert f"guidance: {name}\n" in result.stderr
    assert report_in()["guidance"] == name
    assert bool(stand_in.calls[0]["guidance"].terms) == (name != "none")


def test_guidance_from_a_file_with_model_and_seed(run: Call, stand_in: StandIn) -> None:
    for folder in ("other", "mine", "set"):
        Path(folder).mkdir()
    Path("mine.yaml").write_text("steps: 3\nseed: 7\nmodel: other\nguidance: {}\n")
    assert run("generate", "--guidance", "mine.yaml", "--name", "x").exit_code == 0
    assert stand_in.loaded[0]["model"] == "other"
    assert Path("outputs/x-7.png").exists()
    assert run("generate", "--guidance", "mine.yaml", "--name", "x", "--model", "mine", "--seed", "1").exit_code == 0
    assert stand_in.loaded[1]["model"] == "mine"
    assert read_metadata(Path("outputs/x-1.png")).config["seed"] == 1
    assert run("generate", "--guidance", "mine.yaml", "--name", "x", "--set", "seed=3").exit_code == 0
    assert Path("outputs/x-3.png").exists()
    run("generate", "--guidance", "mine.yaml", "--model", "mine", "--set", "model=set")
    assert stand_in.loaded[3]["model"] == "set"


def test_a_phrase_with_a_box_needs_no_second_mention(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES, "--phrase", "Red  Circle", "--phrase", "square", "--phrase", "square")
    assert [region.phrase for region in stand_in.calls[0]["layout"][0].regions] == ["red circle", "blue square", "square"]


def test_without_boxes_or_phrases_only_the_image(run: Call, stand_in: StandIn) -> None:
    run("generate")
    assert {path.name for path in Path("outputs").iterdir()} == {f"{STEM}-0.png", "report.json"}
    assert report_in()["images"][0]["layout_path"] is None


def test_json_is_all_there_is_on_stdout(run: Call, stand_in: StandIn) -> None:
    result = run("generate", *BOXES, "--json")
    assert json.loads(result.stdout) == report_in()


def test_no_metadata(run: Call, stand_in: StandIn) -> None:
    for _ in range(2):  # the second time over its own file
        assert run("generate", *BOXES, "--no-metadata").exit_code == 0
        assert picture(f"outputs/{STEM}-0.png")[1] == {"Software": "lsregen"}


def test_own_files_are_replaced_and_said_so(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES)
    assert "replaced" not in run("generate", *BOXES, "--seed", "1").stderr
    assert "4 files of an earlier run were replaced" in run("generate", *BOXES, "--seed", "1", "--again").stderr
    assert "3 files of an earlier run were replaced" in run("generate", *BOXES, "--seed", "0", "--steps", "3").stderr
    assert Path(f"outputs/{STEM}-0.png").exists()


def test_pictures_about_an_earlier_image_do_not_stay_beside_another(run: Call, stand_in: StandIn) -> None:
    run("generate", *BOXES)
    mine = Path("outputs", f"{STEM}-1-layout.png")
    mine.write_bytes(b"not a picture of lsregen's")
    assert run("generate", "--count", "2").exit_code == 0
    names = {path.name for path in Path("outputs").iterdir()}
    assert names == {f"{STEM}-0.png", f"{STEM}-1.png", mine.name, "report.json"}
    run("generate", *BOXES)
    result = run("generate")
    said = "2 files of an earlier run were removed: beside the new images of the same names, they would still show the old ones."
    assert said in result.stderr


def test_no_report_is_lost(run: Call, stand_in: StandIn) -> None:
    def reports() -> dict[str, list[int]]:
        return {path.name: json.loads(path.read_text())["seeds"] for path in Path("outputs").glob("*.json")}

    run("generate", "--name", "x", "--count", "2")
    assert reports() == {"report.json": [0, 1]}
    result = run("generate", "--name", "x", "--seed", "1", "--count", "2")
    assert reports() == {"report.json": [1, 2], "report-1.json": [0, 1]}
    assert "The report.json of an earlier run is kept as report-1.json." in result.stderr
    assert "replaced" not in result.stderr  # the image of seed 1 was finished
    assert "kept as" not in run("generate", "--name", "x", "--seed", "1", "--count", "3").stderr  # the same images and one more
    assert reports() == {"report.json": [1, 2, 3], "report-1.json": [0, 1]}
    run("generate", "--name", "y")
    assert reports() == {"report.json": [0], "report-1.json": [0, 1], "report-2.json": [1, 2, 3]}
    Path("outputs/report.json").write_text('{"format": "lsregen-report", "images": 3}')
    run("generate", "--name", "y")
    assert Path("outputs/report-3.json").read_text() == '{"format": "lsregen-report", "images": 3}'


def test_images_are_named_as_they_are_finished(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    shown: list[int] = []
    monkeypatch.setattr(Progress, "line", lambda _, echo, text: lines.append(text))
    stand_in.before_batch = lambda _: shown.append(len(lines))
    run("generate", "--count", "3", "--name", "x")
    assert shown == [0, 1, 2]
    assert [line.split()[0] for line in lines] == [f"outputs/x-{seed}.png" for seed in range(3)]


def test_what_the_guidance_reached(run: Call, stand_in: StandIn) -> None:
    assert "layout: energy 5 -> 5.3\n" in run("generate", *BOXES, "--seed", "5").stderr
    assert "layout: energy 6 -> 6.3 (mean of 3 images)\n" in run("generate", *BOXES, "--seed", "5", "--count", "3").stderr
    once = ("generate", *BOXES, "--seed", "5", "--steps", "1")
    assert "layout: energy 5 (one evaluation)\n" in run(*once).stderr
    assert "layout: energy 6 (one evaluation, mean of 3 images)\n" in run(*once, "--count", "3").stderr


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


def test_what_the_library_warns_of_is_said_once_and_as_a_warning(run: Call, stand_in: StandIn) -> None:
    stand_in.before_batch = lambda _: logging.getLogger("lsregen.framework.pipeline.pipeline").warning("nothing pulls")
    assert [line for line in run("generate", *BOXES).stderr.splitlines() if "nothing pulls" in line] == ["Warning: nothing pulls"]


def test_what_plugins_print_is_not_on_stdout(run: Call, stand_in: StandIn) -> None:
    stand_in.before_batch = lambda _: print("noise")
    result = run("generate", *BOXES, "--json")
    assert json.loads(result.stdout) == report_in()
    assert "noise" in result.stderr
    assert run("generate", "--name", "x").stdout == "outputs/x-0.png  0.2 s\n"


def test_a_prompt_that_is_too_long(run: Call, stand_in: StandIn) -> None:
    prompt = "a red circle" + " and" * 30 + " a blue square"
    assert "Warning: the prompt is too long for stand-in" in run("generate", "--prompt", prompt).stderr
    result = run("generate", "--prompt", prompt, "--phrase", "blue square")
    assert result.exit_code == 2
    assert "--phrase: phrase 'blue square' is in the part of the prompt that the model does not see" in result.stderr
