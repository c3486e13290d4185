"""The command as a process, on the embedded model: pictures on disk, the same again from the same seed, and Ctrl-C."""

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

from lsregen.apps.metadata import read_metadata

from .conftest import BOXES, PROMPT

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "lsregen.apps", "generate", "--prompt", PROMPT, *BOXES, "--device", "cpu", "--name", "x"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_pictures_on_disk_twice_the_same(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        args = [*COMMAND, "--steps", "3", "--out", folder, "--json"]
        done = subprocess.run(args, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("shapeworld-base on cpu, guidance: layout-guidance\n")  # no bar: nobody watches
        report = json.loads(done.stdout)
        assert report["images"][0]["energies"]
        assert report["model"]["components"]["unet"]["sha256"]
    for name in ("x-0.png", "x-0-layout.png", "x-0-attention.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert read_metadata(tmp_path / "one" / "x-0.png").config["steps"] == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_finished_images(tmp_path: Path) -> None:
    args = [*COMMAND, "--steps", "2", "--count", "1000", "--out", "kept"]
    process = subprocess.Popen(args, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "kept" / "x-1.png").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
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
