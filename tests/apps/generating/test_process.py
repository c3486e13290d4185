"""The command as a process, on the embedded model: the same again from the same seed, and what ends or cannot end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lsregen.apps.generating.metadata import read_metadata
from tests.apps.conftest import BOXES, PROMPT

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "lsregen.apps", "generate", "--prompt", PROMPT, *BOXES, "--device", "cpu", "--name", "x"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_pictures_on_disk_twice_the_same(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        args = [*COMMAND, "--steps", "3", "--out", folder, "--json"]
        done = subprocess.run(args, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("shapeworld-base on cpu, guidance: layout-guidance@shapeworld\n")  # no bar: nobody watches
        report = json.loads(done.stdout)
        assert report["images"][0]["energies"]
        assert report["model"]["components"]["unet"]["sha256"]
    for name in ("x-0.png", "x-0-layout.png", "x-0-attention.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert read_metadata(tmp_path / "one" / "x-0.png").config["steps"] == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_finished_images(tmp_path: Path, number: signal.Signals) -> None:
    args = [*COMMAND, "--steps", "2", "--count", "1000", "--out", "kept"]
    process = subprocess.Popen(args, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "kept" / "x-1.png").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    report = json.loads((tmp_path / "kept" / "report.json").read_text())
    kept = [image["path"] for image in report["images"]]
    assert len(kept) >= 2
    assert f"Interrupted; {len(kept)} of 1000 images were finished and are kept in kept" in stderr
    assert [line.split()[0] for line in stdout.splitlines()] == [f"kept/{name}" for name in kept]
    for name in kept:
        assert read_metadata(tmp_path / "kept" / name).own.prompt == PROMPT
    assert not list((tmp_path / "kept").glob(".*"))


@pytest.mark.long
def test_a_picture_made_again_is_the_same_to_the_last_pixel(tmp_path: Path) -> None:
    args = [*COMMAND, "--steps", "3", "--count", "3", "--batch", "3", "--out", "kept"]
    subprocess.run(args, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
    again = [*COMMAND[: COMMAND.index("generate") + 1], "--from-image", "kept/x-1.png", "--out", "again", "--name", "y"]
    result = subprocess.run(again, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    with Image.open(tmp_path / "kept" / "x-1.png") as before, Image.open(tmp_path / "again" / "y-1.png") as after:
        assert before.tobytes() == after.tobytes()
    assert read_metadata(tmp_path / "again" / "y-1.png") == read_metadata(tmp_path / "kept" / "x-1.png")


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_command_that_is_killed_and_given_again_makes_only_what_is_missing(tmp_path: Path) -> None:
    args, out = [*COMMAND, "--steps", "2", "--count", "5"], tmp_path / "killed"

    def made() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("x-?.png")}

    def kill_after(images: int) -> None:
        process = subprocess.Popen([*args, "--out", out], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while len(made()) < images and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()

    before: dict[str, int] = {}
    for images in (1, 3):
        kill_after(images)
        assert before.items() <= made().items()  # nothing is made twice
        before = made()
        assert {int(name[2]) for name in before} <= set(json.loads((out / "report.json").read_text())["seeds"])
    done = subprocess.run([*args, "--out", out], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert before.items() <= made().items()
    assert f"{len(before)} were finished before, {5 - len(before)} made" in done.stderr
    subprocess.run([*args, "--out", tmp_path / "whole"], env=ENVIRONMENT, capture_output=True, check=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.png")
    }
    report, whole = (json.loads((folder / "report.json").read_text()) for folder in (out, tmp_path / "whole"))
    timed = ("seconds", "folder", "images")
    assert {key: report[key] for key in report if key not in timed} == {key: whole[key] for key in whole if key not in timed}
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes that close so, nor a device that is full")
@pytest.mark.parametrize(("stdout", "code"), [("closed", 0), ("/dev/full", 1)])
def test_a_stdout_that_takes_no_more_does_not_end_the_images(tmp_path: Path, stdout: str, code: int) -> None:
    args = [*COMMAND, "--steps", "1", "--trace", "0", "--count", "3", "--out", tmp_path / "out"]
    reading, writing = os.pipe()
    os.close(reading)
    if stdout != "closed":
        os.close(writing)
        writing = os.open(stdout, os.O_WRONLY)
    done = subprocess.run(args, env=ENVIRONMENT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert ("Error: stdout" in done.stderr) == bool(code)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["seeds"] == [0, 1, 2]
