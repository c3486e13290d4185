"""What a command says and nobody can take: a full disk, a reader that is gone, a character that the terminal does not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "lsregen.apps"]
FULL = Path("/dev/full")


def ended(*args: str, stdout: int, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    run = subprocess.run([*COMMAND, *args], stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False, text=True)
    assert "Traceback" not in run.stderr, run.stderr
    return run


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("args", [("--help",), ("--version",), ("presets", "--json"), ("layout", "--help")], ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_line_and_an_exit_code(args: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        run = ended(*args, stdout=full.fileno())
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert "stdout" in run.stderr


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
def test_an_error_behind_a_full_disk_keeps_its_exit_code() -> None:
    with FULL.open("wb") as full:
        assert ended("presets", "nothing-of-that-name", stdout=full.fileno()).returncode == 2
    with FULL.open("wb") as full:  # stderr is full, and stdout is not
        run = subprocess.run([*COMMAND, "presets", "nope"], stdout=subprocess.PIPE, stderr=full.fileno(), check=False)
    assert (run.returncode, run.stdout) == (2, b"")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        run = ended("presets", "--json", stdout=writing)
    finally:
        os.close(writing)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_characters_that_the_encoding_does_not_have_are_escaped(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"prompt": "a 猫", "boxes": {"猫": [0.1, 0.1, 0.5, 0.5]}}), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    run = subprocess.run([*COMMAND, "layout", "show", str(path)], capture_output=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert rb"\u732b" in run.stdout
