"""Killed at random moments and repeated: nothing that was finished is lost, and nothing is made twice.

`LSREGEN_KILLS` says at how many moments each command is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lsregen.apps.cli import cli
from lsregen.apps.generating.metadata import read_metadata

KILLS = int(os.environ.get("LSREGEN_KILLS", "4"))
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
MOST = 3
"""Images that a process makes at most before it is killed."""
PROMPT = "a red circle and a blue square"
Finished = Mapping[str, tuple[int, int]]

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")]


def stamps(paths: list[Path]) -> Finished:
    """Files by their paths, each with what changes when it is written again."""
    return {str(path): ((status := path.stat()).st_ino, status.st_mtime_ns) for path in sorted(paths)}


def start(args: tuple[str, ...], folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lsregen.apps", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def kill(process: subprocess.Popen[str], finished: Callable[[], Finished], more: int, delay: float) -> None:
    """Kill a process so long after it has finished `more` images; at once where it ends before."""
    wanted = len(finished()) + more
    while process.poll() is None and len(finished()) < wanted:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def killed_and_repeated(
    args: tuple[str, ...], folder: Path, finished: Callable[[], Finished], check: Callable[[Finished], None]
) -> str:
    """Kill a command at random moments, each time as far as it has come, and let it end; what it said at last.

    `check` looks at what a killed process has left.
    """
    chance = random.Random(0)
    for _ in range(KILLS):
        before = finished()
        kill(start(args, folder), finished, chance.randint(0, MOST), chance.uniform(0, 0.3))
        after = finished()
        assert {path: after.get(path) for path in before} == before, "finished files were lost, or made again"
        check(after)
    before = finished()
    process = start(args, folder)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    after = finished()
    assert {path: after[path] for path in before} == before
    return stdout


def test_a_run_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = KILLS * MOST + 2
    plan = ("evaluate", "plan", "shapeworld", "--count", str(scenes), "--guidance", "none", "--steps", "2", "--batch", "1")
    assert CliRunner().invoke(cli, [*plan, "--out", "plan.jsonl", "--device", "cpu"]).exit_code == 0
    images, records = tmp_path / "run" / "images", tmp_path / "run" / "records"

    def finished() -> Finished:
        done = [path for path in records.rglob("*.json") if not path.name.startswith(".")]
        return stamps([*done, *(images / path.relative_to(records).with_suffix(".png") for path in done)])

    def check(found: Finished) -> None:
        for path in map(Path, found):
            if path.suffix == ".json":
                assert json.loads(path.read_text())["error"] is None
            else:
                with Image.open(path) as image:
                    image.load()

    said = killed_and_repeated(("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu"), tmp_path, finished, check)
    assert len(finished()) == 2 * scenes
    assert f"{scenes} images: " in said
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".part", ".tmp")]


def test_generate_that_is_killed(tmp_path: Path) -> None:
    count = KILLS * MOST + 2
    lines = [json.dumps({"prompt": PROMPT, "seed": seed, "name": f"image-{seed}"}) + "\n" for seed in range(count)]
    (tmp_path / "prompts.jsonl").write_text("".join(lines))
    out = tmp_path / "made"

    def finished() -> Finished:
        return stamps([path for path in out.glob("*.png") if not path.name.startswith(".")])

    def check(found: Finished) -> None:
        for path in map(Path, found):
            assert read_metadata(path).own.prompt == PROMPT
        if found:
            kept = {image["path"] for image in json.loads((out / "report.json").read_text())["images"]}
            assert {Path(path).name for path in found} <= kept
            assert len(kept) <= len(found) + 1  # killed between the line of the report and its image

    args = ("generate", "--prompts", "prompts.jsonl", "--out", "made", "--steps", "2", "--trace", "0", "--device", "cpu")
    killed_and_repeated(args, tmp_path, finished, check)
    report = json.loads((out / "report.json").read_text())
    assert len(finished()) == len(report["images"]) == count
    assert {path.name for path in out.iterdir()} == {*(Path(path).name for path in finished()), "report.json"}
