"""Tries cases in processes of their own, and ends those that hang."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests.bad_input.case import HANG, TRACEBACK, Case, Outcome
from tests.bad_input.worker import Bench, judged, state

LIMIT = 60.0
"""Seconds of computing, or of waiting for nothing, after which a case hangs: a hundred times what one takes."""
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Worker:
    """A process of `worker.py`, started again after a case that it did not survive."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.command = [sys.executable, "-m", "tests.bad_input.worker", str(template), str(folder)]
        self.process: subprocess.Popen[str] | None = None

    def attempt(self, case: str) -> Outcome:
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=ENVIRONMENT,
                cwd=ROOT,  # whatever folder the tests before have left this process in
                start_new_session=True,
            )
        process = self.process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a worker without pipes")
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        ready = answered(process, process.stdout)
        line = process.stdout.readline() if ready else ""
        if line:
            return Outcome(**json.loads(line))
        self.end()
        if not ready:
            return Outcome(case, HANG, f"no end within {LIMIT:.0f} s")
        return Outcome(case, TRACEBACK, f"the process ended with {process.returncode}")

    def end(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it has started: a child that lives on would keep the pipes open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def answered(process: subprocess.Popen[Any], stream: IO[Any]) -> bool:
    """Whether a process writes or ends before it hangs: on a busy machine that is a matter of the time that it was given."""
    begun = last = seconds_of(process.pid)
    moved = time.monotonic()
    while not select.select([stream], [], [], 1.0)[0]:
        now = seconds_of(process.pid)
        if now > last:
            last, moved = now, time.monotonic()
        if now - begun > LIMIT or time.monotonic() - moved > LIMIT:
            return False
    return True


def seconds_of(pid: int) -> float:
    """What a process has computed so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def attempt_all(
    cases: Sequence[str], template: Path, folder: Path, workers: int, on_done: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """The outcomes of cases, by their ids, in their order."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    found: dict[str, Outcome] = {}

    def work(number: int) -> None:
        worker = Worker(template, folder / f"worker-{number}")
        try:
            while True:
                outcome = worker.attempt(waiting.get_nowait())
                found[outcome.case] = outcome
                on_done(outcome)
        except queue.Empty:
            return
        finally:
            worker.end()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[case] for case in cases]


def attempt_as_process(case: Case, bench: Bench) -> Outcome:
    """The same of a command as a process of its own, as a shell starts it."""
    if case.damage is not None:
        bench.damage(*case.damage)
    bench.before = state(bench.folder)
    args = [os.fsencode(arg) for arg in (sys.executable, "-m", "lsregen.apps", *case.args)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(args, cwd=bench.folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, start_new_session=True)
    if process.stdout is None or not answered(process, process.stdout):
        end(process)
        bench.fresh()
        return Outcome(case.id, HANG, f"no end within {LIMIT:.0f} s")
    said = [stream.decode("utf-8", "backslashreplace") for stream in process.communicate()]
    verdict, text = judged(case, process.returncode, *said)
    changed = bench.changed()
    if changed or case.damage is not None:
        bench.fresh()
    return Outcome(case.id, "written" if changed else verdict, f"{changed}: {text}" if changed else text)
