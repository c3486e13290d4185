"""Bad input to the doors of the evaluation: places that cannot be, damaged and endless files, numbers out of all bounds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
LONG = "x" * 300
DEEP = "[" * 100_000
READ = {
    "show": ("show", "{}"),
    "status": ("evaluate", "status", "{}"),
    "page": ("evaluate", "page", "{}"),
    "table": ("evaluate", "table", "{}"),
    "plot": ("evaluate", "plot", "{}", "--metrics", "map50", "--out", "a.png"),
    "score": ("evaluate", "score", "{}", "--clip", "clip"),
    "run": ("evaluate", "run", "{}", "--out", "run"),
    "nsr1k": ("evaluate", "plan", "nsr1k", "{}", "--guidance", "none", "--out", "plan.jsonl"),
    "list": ("evaluate", "plan", "list", "{}", "--guidance", "none", "--out", "plan.jsonl"),
    "methods": ("evaluate", "plan", "shapeworld", "--methods", "{}", "--out", "plan.jsonl"),
    "rows": ("evaluate", "shapeworld", "--rows", "{}.yaml", "--json", "a.json"),
}
"""Every command of the evaluation that reads a file or folder of somebody else's."""


def refused(result: Result) -> str:
    """The one line that says what is wrong."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, result.stderr
    return said[0]


def left(*but: str) -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name not in but)


@pytest.mark.parametrize("command", READ)
@pytest.mark.parametrize("place", [LONG, f"{LONG}/more", "no/such", "/dev/zero", "pipe", "link"])
def test_places_that_hold_nothing_to_read(run: Run, command: str, place: str) -> None:
    """None of them is read to its end, waited for, or a traceback."""
    os.mkfifo("pipe")
    Path("link").symlink_to("gone")
    Path("pipe.yaml").symlink_to("gone")
    if place == "pipe" and command in ("nsr1k", "list", "show", "table", "plot", "study's score", "methods"):
        pytest.skip("a pipe is read by these, until whoever writes to it ends")
    refused(run(*(part.format(place) for part in READ[command])))
    assert left("pipe", "link", "pipe.yaml") == []


@pytest.mark.parametrize("command", [name for name in READ if name != "rows"])
@pytest.mark.parametrize("content", [DEEP, '{"a":' * 3000, "\\ud800", "{", '{"a": 1, "a": 2}', "\x00"])
def test_files_that_hold_something_else(run: Run, command: str, content: str) -> None:
    name = "a.yaml" if command == "methods" else "a.json"
    Path(name).write_text(content)
    refused(run(*(part.format(name) for part in READ[command])))
    assert left(name) == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "score", "run", "--detector", "shapeworld", "--threshold", "{}"),
        ("evaluate", "plan", "shapeworld", "--guidance", "none", "--out", "plan.jsonl", "--cfg", "{}"),
        ("evaluate", "shapeworld", "--guidance", "none", "--json", "a.json", "--cfg", "{}"),
    ],
)
def test_numbers_that_are_not_finite(run: Run, command: tuple[str, ...], value: str) -> None:
    result = run(*(part.format(value) for part in command))
    assert result.exit_code == 2
    assert command[-2] in result.stderr
    assert left() == []


PLAN = ("evaluate", "plan", "shapeworld", "--guidance", "none", "--device", "cpu", "--out", "a/plan.jsonl")
SCENES = ("evaluate", "shapeworld", "--guidance", "none", "--device", "cpu", "--json", "a/b.json", "--out", "c/d")
NOWHERE = {
    "plan": (PLAN, "--count", "1000000000000"),
    "plan, seeds": (PLAN, "--seeds", "1000000000000"),
    "plan, all together": ((*PLAN, "--count", "4000"), "--seeds", "1000000"),
    "plan, batch": (PLAN, "--batch", "1000000000000"),
    "plan, steps": ((*PLAN, "--count", "1"), "--steps", "1001"),
    "plan, cfg": (PLAN, "--cfg", "-1"),
    "plan, model": (PLAN, "--model", ""),
    "plan, model that is not there": (PLAN, "--model", "/nowhere"),
    "plan, dtype": (PLAN, "--dtype", ""),
    "plan, device": (PLAN, "--device", "nope"),
    "scenes": (SCENES, "--count", "1000000000000"),
    "scenes, steps": ((*SCENES, "--count", "1"), "--steps", "1001"),
    "scenes, cfg": (SCENES, "--cfg", "-1"),
    "scenes, model": (SCENES, "--model", ""),
    "scenes, model that is not there": (SCENES, "--model", "/nowhere"),
    "scenes, device": (SCENES, "--device", "nope"),
    "attention": (("evaluate", "attention", "--json", "a/b.json"), "--model", ""),
    "score, detector": (("evaluate", "score", "run"), "--detector", ""),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_what_is_refused_leaves_nothing(run: Run, case: str) -> None:
    """Neither a folder, nor a lock, nor a file that is empty; and the refusal names the value."""
    command, option, value = NOWHERE[case]
    result = run(*command, option, value)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert (value or option) in result.stderr.replace(",", "")
    assert left() == []


@pytest.mark.parametrize("place", [LONG, "/dev/full", "pipe", "file/more", "link", "folder"])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "plan", "shapeworld", "--guidance", "none", "--device", "cpu", "--count", "1", "--out", "{}"),
        ("evaluate", "shapeworld", "--guidance", "none", "--device", "cpu", "--json", "{}"),
        ("evaluate", "attention", "--model", "shapeworld-base", "--device", "cpu", "--json", "{}"),
    ],
)
def test_files_that_cannot_be_written_are_refused_first(run: Run, command: tuple[str, ...], place: str) -> None:
    os.mkfifo("pipe")
    Path("link").symlink_to("no/such")
    Path("file").write_text("")
    Path("folder").mkdir()
    refused(run(*(part.format(place) for part in command)))
    assert left() == ["file", "folder", "link", "pipe"]


def test_a_result_with_a_number_that_is_none(run: Run) -> None:
    """Python reads NaN in JSON, which no other reader does."""
    row = {"guidance": "none", "metrics": {"clip": {"value": 1.0, "low": float("nan"), "high": 2.0}}}
    Path("a.json").write_text(json.dumps({"format": "lsregen-evaluation", "rows": [row]}))
    assert "finite" in refused(run("evaluate", "table", "a.json"))
