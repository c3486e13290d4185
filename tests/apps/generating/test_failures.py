"""`lsregen generate` that fails or is interrupted: what is kept, what is said, and the exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from click.testing import Result

from lsregen.apps.generating import run_report, work
from lsregen.apps.output import OutputError, write_file
from lsregen.framework.errors import ConfigError, NonFiniteError
from tests.apps.conftest import BOXES, PROMPT, StandIn

Call = Callable[..., Result]
STEM = "a-red-circle-and-a-blue-square"


def report_in(folder: str = "outputs") -> Any:
    return json.loads(Path(folder, "report.json").read_text())


def test_a_report_that_cannot_be_written_is_not_spoken_of(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: object) -> None:
        raise OutputError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(run_report, "write_file", full)
    result = run("generate", *BOXES)
    assert result.exit_code == 2
    assert "Failed; 1 of 1 images were finished and are kept in outputs, without a report.json." in result.stderr
    assert result.stderr.endswith("Error: outputs/report.json: cannot be written (No space left on device)\n")
    assert "with report.json" not in result.stderr
    assert Path(f"outputs/{STEM}-0.png").exists()


def test_an_interrupt_while_an_image_is_written_does_not_lose_its_note(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, data: bytes) -> None:
        write_file(path, data)
        if path.name == "x-1.png":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(work, "write_file", interrupted)
    result = run("generate", "--count", "3", "--name", "x")
    assert result.exit_code == 130
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["outputs/x-0.png", "outputs/x-1.png"]
    assert report_in()["seeds"] == [0, 1]
    assert {path.name for path in Path("outputs").iterdir()} == {"x-0.png", "x-1.png", "report.json"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
    assert not Path("outputs").exists()


def test_an_error_of_one_image_leaves_the_others_alone(run: Call, stand_in: StandIn) -> None:
    def fail(batch: int) -> None:
        if batch == 1:
            raise NonFiniteError("term 'layout' at step 3: nan")

    stand_in.before_batch = fail
    result = run("generate", *BOXES, "--count", "3", "--name", "x")
    assert result.exit_code == 1
    assert "Failed: outputs/x-1.png: term 'layout' at step 3: nan\n" in result.stderr
    assert "Failed; 2 of 3 images were finished" in result.stderr
    report = report_in()
    assert (report["seeds"], report["interrupted"]) == ([0, 2], False)
    failure = {"seed": 1, "path": "x-1.png", "prompt": PROMPT, "error": "term 'layout' at step 3: nan"}
    assert report["failed"] == [failure]
    stand_in.before_batch = lambda _: None
    result = run("generate", *BOXES, "--count", "3", "--name", "x")
    assert result.exit_code == 0
    assert "2 were finished before, 1 made" in result.stderr
    assert (report_in()["seeds"], report_in()["failed"]) == ([0, 1, 2], [])


def test_a_batch_that_fails_is_made_one_by_one(run: Call, stand_in: StandIn) -> None:
    def fail(_: int) -> None:
        if 2 in stand_in.calls[-1]["seed"]:
            raise ZeroDivisionError("a plugin's own")

    stand_in.before_batch = fail
    result = run("generate", "--count", "6", "--batch", "3", "--name", "x")
    assert result.exit_code == 1
    assert [list(call["seed"]) for call in stand_in.calls] == [[0, 1, 2], [0], [1], [2], [3, 4, 5]]
    assert "Failed: outputs/x-2.png: ZeroDivisionError: a plugin's own\n" in result.stderr
    assert report_in()["seeds"] == [0, 1, 3, 4, 5]


def test_what_a_failed_batch_computed_is_gone_before_its_images_are_made_one_by_one(run: Call, stand_in: StandIn) -> None:
    computed: list[ref[torch.Tensor]] = []
    kept: list[bool] = []

    def fail(batch: int) -> None:
        if batch == 0:
            large = torch.zeros(8)
            computed.append(ref(large))
            raise ZeroDivisionError("a plugin's own")
        kept.append(computed[0]() is not None)

    stand_in.before_batch = fail
    assert run("generate", "--count", "2", "--batch", "2").exit_code == 0
    assert kept == [False, False]


@pytest.mark.parametrize("error", [ConfigError("not so"), OSError(28, "No space left on device", "/there"), MemoryError()])
def test_an_error_that_the_others_would_meet_too_ends_the_run(run: Call, stand_in: StandIn, error: Exception) -> None:
    def fail(batch: int) -> None:
        if batch == 1:
            raise error

    stand_in.before_batch = fail
    result = run("generate", *BOXES, "--count", "3")
    assert result.exit_code == 2
    assert len(stand_in.calls) == 2
    assert "Failed; 1 of 3 images were finished and are kept in outputs, with report.json." in result.stderr
    assert "Error: " in result.stderr.splitlines()[-1]
    assert (report_in()["seeds"], report_in()["interrupted"]) == ([0], False)


def test_an_error_of_the_only_image_is_the_error_of_the_command(run: Call, stand_in: StandIn) -> None:
    def fail(_: int) -> None:
        raise NonFiniteError("term 'layout' at step 3: nan")

    stand_in.before_batch = fail
    result = run("generate", *BOXES)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: term 'layout' at step 3: nan")
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("count", "code"), [("1", 2), ("2", 1)])
def test_a_plugin_that_exits_is_an_error(run: Call, stand_in: StandIn, count: str, code: int) -> None:
    def leave(_: int) -> None:
        raise SystemExit(0)

    stand_in.before_batch = leave
    result = run("generate", "--count", count)
    assert result.exit_code == code
    assert "sys.exit(0)" in result.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA: tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "python"],
)
def test_out_of_memory_says_what_to_do(run: Call, stand_in: StandIn, error: Exception) -> None:
    def fail(_: int) -> None:
        raise error

    stand_in.before_batch = fail
    result = run("generate", "--batch", "4", "--count", "4")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: not enough memory for 4 images at once; lower --batch or --size, or use --dtype fp16\n")
    assert "for an image; lower --size" in run("generate").stderr


def test_another_error_of_torch_is_not_hidden(run: Call, stand_in: StandIn) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("shapes do not match")

    stand_in.before_batch = fail
    assert isinstance(run("generate").exception, RuntimeError)
