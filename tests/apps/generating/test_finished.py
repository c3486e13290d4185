"""A repeated `lsregen generate` makes what is missing: what counts as finished, what never does, and what the report says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file, save_file

from lsregen.apps import output
from lsregen.apps.generating import run_report, work
from lsregen.apps.generating.metadata import encode_png, read_metadata
from lsregen.apps.output import write_file
from lsregen.apps.showing import records
from lsregen.extractors.segmenter import EMBEDDED
from lsregen.framework import files as files_module
from lsregen.framework.config import described_models
from lsregen.framework.hashes import folder_hashes
from lsregen.framework.pipeline import report as reports
from tests.apps.conftest import BOXES, PROMPT, StandIn

Call = Callable[..., Result]
BASE = ("generate", *BOXES, "--name", "x", "--steps", "3")
REPORT = Path("outputs/report.json")


def report() -> Any:
    return json.loads(REPORT.read_text())


def seeds(stand_in: StandIn) -> list[list[int]]:
    """Of every batch that was made."""
    return [list(call["seed"]) for call in stand_in.calls]


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("outputs").iterdir()}


@pytest.mark.parametrize("options", [(), ("--batch", "2"), ("--no-metadata",), ("--trace", "0")], ids=" ".join)
def test_a_repeated_command_makes_nothing(run: Call, stand_in: StandIn, options: tuple[str, ...]) -> None:
    command = (*BASE, "--count", "3", *options)
    assert run(*command).exit_code == 0
    before, made = files(), len(stand_in.calls)
    result = run(*command)
    assert result.exit_code == 0
    assert (files(), len(stand_in.calls)) == (before, made)
    assert result.stdout.splitlines() == [f"outputs/x-{seed}.png  finished before" for seed in range(3)]
    assert "3 images finished before, none made" in result.stderr
    assert json.loads(run(*command, "--json").stdout) == report()
    run(*command, "--again")
    assert len(stand_in.calls) == 2 * made


def test_what_is_missing_is_made_in_its_batch(run: Call, stand_in: StandIn) -> None:
    command = (*BASE, "--count", "6", "--batch", "3")
    run(*command)
    complete = report()
    for seed in (1, 2):
        Path(f"outputs/x-{seed}.png").unlink()
    result = run(*command)
    assert seeds(stand_in)[2:] == [[1, 2]]
    assert "4 were finished before, 2 made in" in result.stderr
    found = report()
    assert found["seeds"] == [0, 1, 2, 3, 4, 5]
    assert [image["energies"] for image in found["images"]] == [image["energies"] for image in complete["images"]]
    assert found["images"][0] == complete["images"][0]
    assert (found["images"][1]["batch_seeds"], found["interrupted"]) == ([1, 2], False)
    assert not list(Path("outputs").glob("report-*"))


def killed(run: Call, *command: str) -> None:
    """As a command leaves it that is killed after the report of its second image and its third image, of four."""
    run(*command)
    second, kept = REPORT.read_text(), "outputs/x-3.png"
    run(*command, "--count", "4")
    Path(kept).unlink()
    REPORT.write_text(second)


def test_a_killed_command_is_finished_by_the_same_again(run: Call, stand_in: StandIn) -> None:
    killed(run, *BASE, "--count", "2")
    stand_in.calls.clear()
    result = run(*BASE, "--count", "4")
    assert seeds(stand_in) == [[3]]
    assert "3 were finished before, 1 made" in result.stderr
    found = report()
    assert (found["seeds"], found["requested"], found["interrupted"]) == ([0, 1, 2, 3], 4, False)
    assert [len(image["energies"]) for image in found["images"]] == [3, 3, 0, 3]  # of the third nobody noted them
    assert found["images"][2]["seconds"] is None
    assert run("show", "outputs").exit_code == 0


def test_without_metadata_only_the_report_tells_what_an_image_is(run: Call, stand_in: StandIn) -> None:
    killed(run, *BASE, "--count", "2", "--no-metadata")
    stand_in.calls.clear()
    run(*BASE, "--count", "4", "--no-metadata")
    assert seeds(stand_in) == [[2], [3]]
    REPORT.unlink()
    run(*BASE, "--count", "4", "--no-metadata")
    assert seeds(stand_in)[2:] == [[0], [1], [2], [3]]


def test_the_report_is_written_as_images_are_finished(run: Call, stand_in: StandIn) -> None:
    said: list[Any] = []
    stand_in.before_batch = lambda batch: said.append(report() if batch else None)
    run(*BASE, "--count", "3")
    assert [(each["seeds"], each["interrupted"], each["requested"]) for each in said[1:]] == [([0], True, 3), ([0, 1], True, 3)]
    assert said[2]["images"] == report()["images"][:2]


OTHERS: dict[str, tuple[str, ...]] = {
    "steps": ("--steps", "4"),
    "cfg": ("--cfg", "3"),
    "sampler": ("--sampler", "ddpm"),
    "setting": ("--set", "guidance.layout.gamma=9"),
    "guidance": ("--guidance", "attend-and-excite"),
    "no guidance": ("--guidance", "none"),
    "negative": ("--negative", "green"),
    "prompt": ("--prompt", f"{PROMPT} "),
    "phrase": ("--phrase", "circle"),
    "size": ("--size", "32x16"),
    "trace": ("--trace", "2"),
    "no trace": ("--trace", "0"),
    "no metadata": ("--no-metadata",),
    "picture to start from": ("--init-image", "start.png"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_image_with_other_settings_is_made_again(run: Call, stand_in: StandIn, other: str) -> None:
    Image.new("RGB", (24, 16)).save("start.png")
    for options in ((), OTHERS[other], ()):  # there and back
        result = run(*BASE, "--prompt", PROMPT, *options)
        assert result.exit_code == 0, result.output
        assert "finished before" not in result.stdout
    assert len(stand_in.calls) == 3


def test_an_image_of_other_weights_device_or_versions_is_made_again(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*BASE)
    changes = (
        (
            stand_in.model,
            "describe",
            lambda: {"name": "stand-in", "components": {"unet": {"sha256": {"a.safetensors": "1" * 64}}}},
        ),
        (reports, "versions", lambda: {"lsregen": "9", "torch": "9"}),
    )
    for made, (where, name, value) in enumerate(changes, 2):
        monkeypatch.setattr(where, name, value)
        run(*BASE)
        assert len(stand_in.calls) == made


SEGMENTER = ("--guidance", "segmenter@shapeworld", "--set", "guidance.segments.extractor.model=mine", "--trace", "0")


def test_an_image_is_made_again_when_a_model_that_looked_at_it_has_other_weights(run: Call) -> None:
    shutil.copytree(EMBEDDED["shapeworld-segmenter"], "mine")
    command = ("generate", *BOXES, "--name", "x", "--steps", "2", "--device", "cpu", *SEGMENTER)
    assert "1 image in" in run(*command).stderr
    assert read_metadata(Path("outputs/x-0.png")).models["mine"]["sha256"] == folder_hashes(Path("mine"))
    assert "1 image finished before, none made" in run(*command).stderr
    weights = load_file("mine/model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, "mine/model.safetensors", {"format": "pt"})
    result = run(*command)
    assert "1 image in" in result.stderr, result.output
    assert read_metadata(Path("outputs/x-0.png")).models["mine"]["sha256"] == folder_hashes(Path("mine"))


SOURCE = "guidance: {pull: {extractor: {name: gligen_inversion, source: {model: small}}, distance: l2, blend: 1}}"


def test_a_model_that_rendered_for_an_image_is_compared_and_told_of(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("pull.yaml").write_text(SOURCE)
    looked: list[str] = []

    def described(place: str, find: object) -> dict[str, Any]:
        looked.append(place)
        return described_models.without_dtype(stand_in.model.describe())

    monkeypatch.setattr(described_models, "describe", described)
    command = (*BASE, "--guidance", "pull.yaml", "--count", "2")
    for _ in range(2):
        assert run(*command).exit_code == 0
    assert (seeds(stand_in), looked) == ([[0], [1]], ["small"])
    monkeypatch.setattr(described_models, "describe", lambda place, find: {"name": "small", "sha256": "1"})
    assert run(*command).exit_code == 0
    assert len(stand_in.calls) == 4

    def exhausted(place: str, find: object) -> dict[str, Any]:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(described_models, "describe", exhausted)
    result = run(*command)
    assert (result.exit_code, len(stand_in.calls)) == (2, 4)
    assert "Error: not enough memory" in result.stderr
    assert "--again" in result.stderr


def test_start_pictures_and_strengths_are_compared(run: Call, stand_in: StandIn) -> None:
    Image.new("RGB", (24, 16)).save("start.png")
    begin = (*BASE, "--init-image", "start.png")
    for options, made in (((), 1), ((), 1), (("--strength", "0.6"), 2), (("--strength", "0.6"), 2)):
        run(*begin, *options)
        assert len(stand_in.calls) == made
    Image.new("RGB", (24, 16), (1, 2, 3)).save("start.png")
    run(*begin, "--strength", "0.6")
    assert len(stand_in.calls) == 3


@pytest.mark.parametrize("picture", ["layout", "attention"])
def test_an_image_is_not_finished_without_the_pictures_about_it(run: Call, stand_in: StandIn, picture: str) -> None:
    run(*BASE, "--count", "2")
    path = Path(f"outputs/x-0-{picture}.png")
    path.unlink()
    run(*BASE, "--count", "2")
    assert seeds(stand_in)[2:] == [[0]]
    shutil.copy(f"outputs/x-1-{picture}.png", path)  # of another image
    run(*BASE, "--count", "2")
    assert seeds(stand_in)[3:] == [[0]]


def test_pictures_of_an_image_that_was_not_finished_are_not_taken_for_the_old_one(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, data: bytes) -> None:
        if path.name == "x-0.png":
            raise KeyboardInterrupt
        write_file(path, data)

    run(*BASE)
    with monkeypatch.context() as patch:
        patch.setattr(work, "write_file", interrupted)
        run(*BASE, "--set", "guidance.layout.gamma=9")
    assert read_metadata(Path("outputs/x-0.png")).config["guidance"]["layout"]["gamma"] != 9
    run(*BASE)
    assert len(stand_in.calls) == 3


@pytest.mark.parametrize("damage", ["cut", "another"])
def test_a_damaged_image_is_made_again(run: Call, stand_in: StandIn, damage: str) -> None:
    command = ("generate", "--name", "x", "--steps", "3")
    run(*command)
    path = Path("outputs/x-0.png")
    data = path.read_bytes()
    cut = data[: data.index(b"IDAT") + 10]
    path.write_bytes(cut if damage == "cut" else encode_png(Image.new("RGB", (24, 16))))
    run(*command)
    assert len(stand_in.calls) == 2


def test_energies_are_found_in_reports_that_were_kept_aside(run: Call, stand_in: StandIn) -> None:
    run(*BASE, "--count", "2")
    complete = report()
    run("generate", "--name", "y")
    assert Path("outputs/report-1.json").exists()
    Path("outputs/x-1.png").unlink()
    run(*BASE, "--count", "2")
    assert [image["energies"] for image in report()["images"]] == [image["energies"] for image in complete["images"]]
    assert json.loads(Path("outputs/report-2.json").read_text())["images"][0]["path"] == "y-0.png"


def test_an_earlier_report_is_kept_aside_until_all_of_its_images_were_made_again(run: Call, stand_in: StandIn) -> None:
    run(*BASE, "--count", "3")

    def interrupt(batch: int) -> None:
        if batch == 4:
            raise KeyboardInterrupt

    stand_in.before_batch = interrupt
    result = run(*BASE, "--count", "3", "--again")
    assert result.exit_code == 130
    assert report()["seeds"] == [0]
    assert json.loads(Path("outputs/report-1.json").read_text())["seeds"] == [0, 1, 2]
    assert "kept as report-1.json" in result.stderr
    Path("outputs/report-1.json").unlink()
    stand_in.before_batch = lambda _: None
    run(*BASE, "--count", "3", "--again")
    assert report()["seeds"] == [0, 1, 2]
    assert not Path("outputs/report-1.json").exists()


def test_seconds_and_passes_are_those_of_all_commands_together(run: Call, stand_in: StandIn) -> None:
    run(*BASE, "--count", "4")
    complete = report()
    for seed in (2, 3):
        Path(f"outputs/x-{seed}.png").unlink()
    REPORT.unlink()
    run(*BASE, "--count", "2")  # writes a report of those that are there
    first = report()
    run(*BASE, "--count", "4")
    assert report()["guided_passes"] == first["guided_passes"] + complete["guided_passes"] // 2
    assert report()["seconds"]["total"] > first["seconds"]["total"]
    assert report()["seconds"]["sample"] == pytest.approx(first["seconds"].get("sample", 0) + complete["seconds"]["sample"] / 2)


def test_a_report_is_kept_aside_once_when_the_command_is_killed_between_the_copy_and_the_new_report(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    run(*BASE, "--count", "2")
    complete = report()
    with monkeypatch.context() as patch:
        patch.setattr(run_report, "write_file", killed)  # the copy is written, and not the new report
        assert run("generate", "--name", "y").exit_code == 130
    assert (report(), json.loads(Path("outputs/report-1.json").read_text())) == (complete, complete)
    run("generate", "--name", "y")
    assert [image["path"] for image in report()["images"]] == ["y-0.png"]
    assert {path.name for path in Path("outputs").glob("report*")} == {"report.json", "report-1.json"}


def test_every_report_is_read_once(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    run("generate", "--name", "y")
    run(*BASE, "--count", "2")
    opened: list[str] = []

    def watched(path: Path, *rest: Any) -> Any:
        opened.append(path.name)
        return files_module.read_json(path, *rest)

    for module in (output, records):
        monkeypatch.setattr(module, "read_json", watched)
    assert "2 images finished before" in run(*BASE, "--count", "2").stderr
    assert sorted(opened) == ["report-1.json", "report.json"]


def test_a_damaged_report_is_kept_aside_and_believed_nothing(run: Call, stand_in: StandIn) -> None:
    run(*BASE, "--no-metadata")
    damaged = {**report(), "images": [{**report()["images"][0], "energies": [{"step": "one"}]}]}
    REPORT.write_text(json.dumps(damaged))
    run(*BASE, "--no-metadata")
    assert len(stand_in.calls) == 2
    assert json.loads(Path("outputs/report-1.json").read_text()) == damaged


def test_a_picture_made_again_is_finished_in_its_batch_only(run: Call, stand_in: StandIn) -> None:
    Path("here").mkdir()
    run(*BASE, "--count", "3", "--batch", "3")
    again = ("--", "generate", "--from-image", "outputs/x-1.png", "--model", "here", "--out", "again", "--name", "x")
    for made in (2, 2):
        result = run(*again)
        assert result.exit_code == 0, result.output
        assert len(stand_in.calls) == made
    run(*BASE, "--seed", "1", "--out", "again", "--again")
    run(*again)
    assert seeds(stand_in)[2:] == [[1], [0, 1, 2]]


def test_of_many_thousand_images_the_report_is_written_now_and_then(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[int] = []
    monkeypatch.setattr(run_report, "LARGE", 0)
    monkeypatch.setattr(run_report, "OVERHEAD", 1e9)
    stand_in.before_batch = lambda batch: said.append(len(report()["seeds"]) if batch else 0)
    run(*BASE, "--count", "3")
    assert (said, report()["seeds"]) == ([0, 1, 1], [0, 1, 2])
