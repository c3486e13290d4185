"""The output folder of `lsregen generate`: made late, one command at a time, and gone or read-only before the end."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lsregen.apps.generating import run_report, work
from lsregen.apps.output import sole, write_file
from lsregen.framework import files
from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.pipeline.pipeline import Pipeline
from tests.apps.conftest import BOXES, StandIn

Call = Callable[..., Result]


def test_a_refusal_of_the_model_leaves_no_folder(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("generate", "--size", "33x16").exit_code == 2
    for error in (ConfigError("device 'nope'"), CheckpointError("damaged")):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(Pipeline, "load", refuse)
        assert run("generate", "--out", "deep/er").exit_code == 2
    assert list(Path().iterdir()) == []


def test_a_second_command_in_the_same_folder_is_refused(run: Call, stand_in: StandIn) -> None:
    inner: list[Result] = []
    stand_in.before_batch = lambda batch: inner.append(run("generate", "--name", "y")) if batch == 0 else None
    assert run("generate", *BOXES, "--name", "x").exit_code == 0
    assert inner[0].exit_code == 2
    assert "outputs: another command is making images there" in inner[0].stderr
    assert {path.name for path in Path("outputs").iterdir()} == {
        "x-0.png", "x-0-layout.png", "x-0-attention.png", "report.json",
    }  # fmt: skip
    with sole(Path("outputs")):
        assert run("generate", "--out", "elsewhere").exit_code == 0


def test_a_folder_that_is_removed_meanwhile_is_not_said_to_keep_anything(run: Call, stand_in: StandIn) -> None:
    stand_in.before_batch = lambda batch: shutil.rmtree("outputs") if batch == 2 else None
    result = run("generate", "--count", "5")
    assert result.exit_code == 2
    assert "2 of the 2 finished images are no longer in outputs" in result.stderr
    assert "Failed; 0 of 5 images" in result.stderr
    assert "Error: outputs: the folder is no longer there" in result.stderr
    assert not Path("outputs").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_no_more_keeps_what_is_finished_with_its_report(
    run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, "no more", str(path))

    with monkeypatch.context() as patch:

        def fail(batch: int) -> None:
            if batch == 2:
                patch.setattr(Path, "replace", refuse)
                patch.setattr(Path, "unlink", refuse)

        stand_in.before_batch = fail
        result = run("generate", *BOXES, "--count", "4", "--name", "x")
    assert result.exit_code == 2
    assert "Failed; 2 of 4 images were finished and are kept in outputs, with report.json." in result.stderr
    assert "no more" in result.stderr.splitlines()[-1]
    assert json.loads(Path("outputs/report.json").read_text())["seeds"] == [0, 1]


def test_an_error_is_told_before_the_reports_own(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise work.OutputError(f"{path.name}: no room")

    def fail(batch: int) -> None:
        if batch == 1:
            monkeypatch.setattr(run_report, "write_file", full)
            monkeypatch.setattr(work, "write_file", full)

    assert write_file is not full
    stand_in.before_batch = fail
    result = run("generate", "--count", "2", "--name", "x")
    assert result.stderr.splitlines()[-1] == "Error: x-1.png: no room"


def test_a_lock_file_that_is_removed_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, "taken", keep=False):
        assert path.exists()
        path.unlink()
        with files.locked(path, "taken", keep=False), pytest.raises(ConfigError, match="taken"), files.locked(path, "taken"):
            pass
    assert not path.exists()
