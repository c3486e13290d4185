"""Ray for real, two workers on this machine: the same records and pixels as by one, and nothing lost when they are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lsregen.evaluation.protocol.plan import Plan
from lsregen.evaluation.protocol.planning import MethodSpec, make_plan
from lsregen.evaluation.protocol.run_folder import RunFolder
from lsregen.evaluation.protocol.sources import Asked, read_source

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

PATIENCE = 1200  # seconds that a busy machine may take
LSREGEN = "from lsregen.apps.cli import main; main()"
EAGER = {**os.environ, "RAY_worker_niceness": "0"}  # Ray's workers give way to everything else, on a busy machine for ever
RAY = ("--engine", "ray", "--workers", "2")
POISON = """
import os, sys
from pathlib import Path
from lsregen.evaluation.protocol import engine_ray
from lsregen.evaluation.protocol.maker import Made, Workshop
from lsregen.evaluation.protocol.run_folder import Record, RunFolder
from lsregen.evaluation.protocol.runner import run

class Poisoned:
    def __init__(self, *_): pass
    def make(self, jobs):
        if jobs[0].number == 2:
            os._exit(1)
        return [Made(Record(job.number, job.method, job.item, job.seed, "made"), b"") for job in jobs]

engine_ray.Maker = Poisoned
folder = RunFolder.open(Path(sys.argv[1]))
cluster = engine_ray.Cluster(workers=2)
outcome = run(folder, lambda plan, batches: engine_ray.make(plan, batches, Workshop("cpu"), cluster))
print(outcome.made, [record.job for record in outcome.failed], outcome.failed[0].error)
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images in eight batches: enough to be killed in the middle."""
    specs = {"none": MethodSpec(steps=2), "layout-guidance": MethodSpec("layout-guidance", steps=3)}
    path = tmp_path_factory.mktemp("plan") / "plan.jsonl"
    make_plan(read_source("shapeworld", Asked(count=8)), specs, batch=2, device="cpu")[0].write(path)
    return path


def start(plan: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LSREGEN, "evaluate", "run", str(plan), "--out", str(out), "--device", "cpu", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=EAGER)


def finish(process: subprocess.Popen[str]) -> str:
    """What the command says at last; Ray may have spoken before."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output.splitlines()[-1]


@pytest.fixture(scope="module")
def whole(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("local") / "run"
    assert finish(start(plan, out)) == "16 images: 0 were finished before, 16 made, 0 of them failed"
    return RunFolder.open(out)


def wait_for(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many jobs are finished."""
    deadline = time.monotonic() + PATIENCE
    while len(list(out.rglob("records/*/*/*.json"))) < count:
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"not made in time: {process.communicate()}")
        time.sleep(0.02)


def same(out: Path, whole: RunFolder) -> None:
    """Every record but what was measured, and every byte of every picture."""
    folder = RunFolder.open(out)
    assert [record.decided for record in folder.records()] == [record.decided for record in whole.records()]
    assert all(folder.image_path(job).read_bytes() == whole.image_path(job).read_bytes() for job in whole.plan.jobs)
    assert len(list(out.rglob("*.png"))) == len(list(out.rglob("records/*/*/*.json"))) == 16
    assert not list(out.rglob("*.part"))


def workers(out: Path) -> set[int]:
    return {int(record.measured["worker"].rpartition(":")[2]) for record in RunFolder.open(out).records()}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_worker_killed_in_the_middle_changes_nothing(plan: Path, whole: RunFolder, tmp_path: Path) -> None:
    process = start(plan, tmp_path / "run", *RAY)
    wait_for(tmp_path / "run", 2, process)
    before = len(list(RunFolder.open(tmp_path / "run").records()))
    [victim, *_] = workers(tmp_path / "run")
    os.kill(victim, signal.SIGKILL)
    assert finish(process) == "16 images: 0 were finished before, 16 made, 0 of them failed"
    assert before < 16
    same(tmp_path / "run", whole)
    assert len(workers(tmp_path / "run")) >= 2


def test_a_killed_driver_goes_on_from_what_was_finished(plan: Path, whole: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(plan, out, *RAY)
    wait_for(out, 4, process)
    process.kill()
    process.communicate()
    kept = {number: RunFolder.open(out).record_path(number).stat().st_ino for number in RunFolder.open(out).finished()}
    old = workers(out)
    told = finish(start(plan, out, *RAY))
    assert 4 <= len(kept) < 16
    assert told == f"16 images: {len(kept)} were finished before, {16 - len(kept)} made, 0 of them failed"
    folder = RunFolder.open(out)
    assert {number: folder.record_path(number).stat().st_ino for number in kept} == kept
    same(out, whole)
    assert all(map(gone, old)), "Ray's processes outlive their driver"


def test_a_batch_that_kills_every_worker_is_the_error_of_its_jobs(small: Callable[..., Plan], tmp_path: Path) -> None:
    RunFolder.begin(tmp_path, small(items=6))
    done = subprocess.run(
        [sys.executable, "-c", POISON, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=False, env=EAGER
    )
    told = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"12 \[2, 3\] Fault\(type='WorkerDied', message='the worker died 4 times .*'\)", told), done
    assert len(list(RunFolder.open(tmp_path).records())) == 12
