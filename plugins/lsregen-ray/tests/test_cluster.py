"""Ray for real, two workers on this machine: records and images as by one, and nothing lost when they are killed."""

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
from PIL import Image

from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.planning import MethodSpec, make_plan
from lsregen.evaluation.runs.run_folder import RunFolder
from lsregen.evaluation.sources import Asked, read_source
from lsregen.framework.sampling.image_to_image import fingerprint
from tests.near import same_pictures

pytestmark = [pytest.mark.ray, pytest.mark.long]

PATIENCE = 1200  # seconds that a busy machine may take
LSREGEN = "from lsregen.apps.cli import main; main()"
EAGER = {**os.environ, "RAY_worker_niceness": "0"}  # Ray's workers give way to everything else, on a busy machine for ever
RAY = ("--engine", "ray", "--engine-option", "workers=2")
GATED = """
import sys, time
from pathlib import Path
from lsregen_ray import engine

GATE = Path(sys.argv.pop())

class Gated(engine.Maker):
    def make(self, jobs):
        while jobs[0].batch >= 4 and GATE.exists():
            time.sleep(0.02)
        return super().make(jobs)

engine.Maker = Gated
from lsregen.apps.cli import main
main()
"""
"""Batches 0 to 3 are made; the others are held by the workers that they were given to, until a file is removed."""
STAND_IN = """
import os, sys
from pathlib import Path
from lsregen_ray import engine
from lsregen.evaluation.runs.worker import Made, Workshop, failed
from lsregen.evaluation.runs.run_folder import Fault, Record, RunFolder
from lsregen.evaluation.runs.runner import run
from lsregen.framework.errors import ConfigError

FOLDER, MARK = Path(sys.argv[1]), Path(sys.argv[1]) / "mark"

class StandIn:
    def __init__(self, *_):
        self.used = False
        {born}
    def make(self, jobs):
        {make}
        return [Made(Record(job.number, job.method, job.item, job.seed, "made"), b"") for job in jobs]

engine.Maker = StandIn
cluster = engine.Ray(workers=2)
try:
    outcome = run(RunFolder.open(FOLDER), lambda plan, batches: cluster.make(plan, batches, Workshop("cpu")))
    print(outcome.made, sorted(record.job for record in outcome.failed), *{{record.error for record in outcome.failed}})
except ConfigError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images in eight batches: enough to be killed in the middle."""
    specs = {"none": MethodSpec(steps=2), "layout-guidance": MethodSpec("layout-guidance", steps=3)}
    path = tmp_path_factory.mktemp("plan") / "plan.jsonl"
    make_plan(read_source("shapeworld", Asked(count=8)), specs, batch=2, device="cpu")[0].write(path)
    return path


def start(plan: Path, out: Path, *options: str, gate: Path | None = None) -> subprocess.Popen[str]:
    """The command; with a gate, by workers that wait there."""
    run = ["evaluate", "run", str(plan), "--out", str(out), "--device", "cpu", *options]
    command = [sys.executable, "-c", *([LSREGEN, *run] if gate is None else [GATED, *run, str(gate)])]
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
    """Every record but what was measured, and every picture but for rounding: processes that are laid out otherwise made them."""
    folder = RunFolder.open(out)
    for ours, theirs in zip(folder.records(), whole.records(), strict=True):
        assert {**ours.decided, "image": None} == {**theirs.decided, "image": None}
        with Image.open(folder.image_path(ours.job)) as found, Image.open(whole.image_path(ours.job)) as expected:
            assert fingerprint(found) == ours.image
            assert same_pictures([found], [expected])
    assert len(list(out.rglob("*.png"))) == len(list(out.rglob("records/*/*/*.json"))) == 16
    assert not list(out.rglob("*.part"))


def workers(out: Path, jobs: range = range(16)) -> set[int]:
    records = (record for record in RunFolder.open(out).records() if record.job in jobs)
    return {int(record.measured["worker"].rpartition(":")[2]) for record in records}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    path.touch()
    return path


def test_a_worker_killed_in_the_middle_changes_nothing(plan: Path, whole: RunFolder, tmp_path: Path, gate: Path) -> None:
    out = tmp_path / "run"
    process = start(plan, out, *RAY, gate=gate)
    wait_for(out, 8, process)
    [victim, *_] = workers(out)
    os.kill(victim, signal.SIGKILL)
    gate.unlink()
    assert finish(process) == "16 images: 0 were finished before, 16 made, 0 of them failed"
    same(out, whole)
    assert victim not in workers(out, range(8, 16))
    assert len(workers(out)) >= 2


def test_a_killed_driver_goes_on_from_what_was_finished(plan: Path, whole: RunFolder, tmp_path: Path, gate: Path) -> None:
    out = tmp_path / "run"
    process = start(plan, out, *RAY, gate=gate)
    wait_for(out, 8, process)
    process.kill()
    process.communicate()
    kept = {number: RunFolder.open(out).record_path(number).stat().st_ino for number in RunFolder.open(out).finished()}
    old = workers(out)
    assert sorted(kept) == list(range(8))
    assert finish(start(plan, out, *RAY)) == "16 images: 8 were finished before, 8 made, 0 of them failed"
    folder = RunFolder.open(out)
    assert {number: folder.record_path(number).stat().st_ino for number in kept} == kept
    same(out, whole)
    assert all(map(gone, old)), "Ray's processes outlive their driver"


FATES = {
    "as many batches as workers kill whoever makes them": (
        "pass",
        "if jobs[0].number in (2, 8): os._exit(1)",
        r"12 \[2, 3, 8, 9\] Fault\(type='WorkerDied', message='the worker died 4 times while it made this batch'\)",
        12,
    ),
    "no worker can be created": (
        "raise ImportError('no such library')",
        "pass",
        r"no worker can be created \(ImportError: no such library\), and 6 batches are not made; once that is mended, .*",
        0,
    ),
    "every worker dies while it is created": (
        "os._exit(1)",
        "pass",
        r"no worker can be created \(The actor is dead because its worker process has died.*\), and 6 batches are not made; .*",
        0,
    ),
    "one worker dies while it is created": (
        "(MARK.touch(exist_ok=False), os._exit(1)) if not MARK.exists() else None",
        "pass",
        r"12 \[\]",
        12,
    ),
    "a device breaks": (
        "pass",
        """error = Fault("AcceleratorError", "used again" if self.used else "an assertion")
        self.used = self.used or jobs[0].number == 2
        if self.used: return [failed(job, error, {}, broken=True) for job in jobs]""",
        r"12 \[2, 3\] Fault\(type='AcceleratorError', message='an assertion'\)",
        12,
    ),
}


@pytest.mark.parametrize("fate", FATES)
def test_workers_that_come_to_harm(small: Callable[..., Plan], tmp_path: Path, fate: str) -> None:
    born, make, told, finished = FATES[fate]
    RunFolder.begin(tmp_path, small(items=6)).make()
    script = STAND_IN.format(born=born, make=make)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=False, env=EAGER
    )
    assert re.fullmatch(told, done.stdout.splitlines()[-1]), done
    assert len(list(RunFolder.open(tmp_path).records())) == finished
