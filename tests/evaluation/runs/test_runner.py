"""Runs by stand-in engines: what is kept, and what is made again."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.runs import worker as maker
from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import Fault, Record, RunFolder
from lsregen.evaluation.runs.runner import run
from lsregen.evaluation.runs.worker import Made
from lsregen.framework.errors import ConfigError
from lsregen.framework.pipeline import report as reports

Small = Callable[..., Plan]


class StandIn:
    """An engine that makes each job's number into a picture; it ends after so many batches, or fails some jobs."""

    def __init__(self, stop_after: int | None = None, fail: Sequence[int] = (), other: str = "") -> None:
        self.asked: list[range] = []
        self.stop_after, self.fail, self.other = stop_after, fail, other

    def __call__(self, plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        self.asked = list(batches)
        for i, numbers in enumerate(batches):
            if i == self.stop_after:
                raise KeyboardInterrupt
            yield [self.made(plan.jobs[number]) for number in numbers]

    def made(self, job: Job) -> Made:
        if job.number in self.fail:
            return maker.failed(job, Fault("NonFiniteError", "nan"), {})
        return Made(Record(job.number, job.method, job.item, job.seed, f"{self.other}{job.number}"), str(job.number).encode())


def test_everything_is_made_once(tmp_path: Path, small: Small) -> None:
    plan, told = small(), list[int]()
    folder = RunFolder.begin(tmp_path, plan)
    outcome = run(folder, StandIn(), on_done=told.append)
    assert (outcome.found, outcome.made, outcome.failed, outcome.unlike) == (0, 6, [], [])
    assert [record.job for record in folder.records()] == list(range(6))
    assert [folder.image_path(job).read_bytes() for job in plan.jobs] == [str(i).encode() for i in range(6)]
    assert sum(told) == 6
    again = StandIn()
    assert run(folder, again).found == 6
    assert again.asked == []


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    with pytest.raises(KeyboardInterrupt):
        run(folder, StandIn(stop_after=2))
    assert folder.missing() == [3, 4, 5]
    engine = StandIn()
    assert run(folder, engine).made == 3
    assert engine.asked == [range(3, 5), range(5, 6)]


def test_a_batch_is_made_whole_and_only_the_missing_kept(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    run(folder, StandIn())
    folder.record_path(1).unlink()
    before = folder.record_path(0).stat()
    engine = StandIn()
    outcome = run(folder, engine)
    assert (engine.asked, outcome.found, outcome.made, outcome.unlike) == ([range(0, 2)], 5, 1, [])
    after = folder.record_path(0).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_picture_unlike_the_one_that_was_kept_is_told(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    run(folder, StandIn())
    folder.record_path(1).unlink()
    assert run(folder, StandIn(other="another ")).unlike == [0]
    assert folder.record(0).image == "0"


def test_what_was_lost_or_damaged_is_made_again(tmp_path: Path, small: Small) -> None:
    folder, told = RunFolder.begin(tmp_path, small()), list[int]()
    run(folder, StandIn(fail=[4]))
    whole = {number: folder.record_path(number).read_bytes() for number in range(6)}
    said = list[str]()
    for number in (1, 5):
        folder.image_path(number).unlink()
    folder.record_path(0).write_text("{")
    engine = StandIn()
    outcome = run(folder, engine, on_done=told.append, say=said.append)
    assert said == [
        f"made again, since the picture is lost: {folder.image_path(1)} and 1 more",
        f"made again, since the record is damaged: {folder.record_path(0)}",
    ]
    assert (outcome.found, outcome.made, outcome.unlike, sum(told)) == (3, 3, [], 6)
    assert engine.asked == [range(0, 2)]
    assert {number: folder.record_path(number).read_bytes() for number in range(6)} == whole
    assert folder.image_path(5).read_bytes() == b"5"


def test_a_lost_picture_that_comes_out_otherwise_is_told(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    run(folder, StandIn())
    folder.image_path(5).unlink()
    assert run(folder, StandIn(other="another ")).unlike == [5]
    assert folder.record(5).image == "another 5"


def test_jobs_of_which_the_record_is_damaged_are_not_those_that_failed(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    run(folder, StandIn(fail=[1, 4]))
    folder.record_path(1).write_text("")
    outcome = run(folder, StandIn(), retry_failed=True)
    assert (outcome.found, outcome.made, folder.failed(), folder.missing()) == (4, 2, [], [])


def test_failed_jobs_do_not_stop_the_rest_and_are_made_again_on_demand(tmp_path: Path, small: Small) -> None:
    folder = RunFolder.begin(tmp_path, small())
    outcome = run(folder, StandIn(fail=[1, 4]))
    assert [record.job for record in outcome.failed] == [1, 4]
    assert folder.missing() == []
    again = run(folder, StandIn())
    assert (again.made, again.failed, [record.job for record in again.failed_before]) == (0, [], [1, 4])
    engine = StandIn()
    outcome = run(folder, engine, retry_failed=True)
    assert (engine.asked, outcome.found, outcome.made) == ([range(0, 2), range(3, 5)], 4, 2)
    assert outcome.failed_before == folder.failed() == []


def test_a_plan_of_another_version_is_not_run(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.begin(tmp_path, small())
    monkeypatch.setattr(reports, "versions", lambda: {"lsregen": "9.9"})
    with pytest.raises(ConfigError, match=r"made by lsregen .*, and this is 9.9; make the plan again, or use that version"):
        run(folder, StandIn())
    assert folder.finished() == set()


def test_a_folder_is_made_when_the_engine_can_work(tmp_path: Path, small: Small) -> None:
    """And not before: what is refused leaves nothing."""

    def refusing(plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        raise ConfigError("no such model")
        yield []

    seen = list[bool]()

    def ready(plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        seen.append(folder.path.exists())
        yield []
        seen.append(folder.made)
        yield from StandIn()(plan, batches)

    folder = RunFolder.begin(tmp_path / "a" / "run", small())
    with pytest.raises(ConfigError, match="no such model"):
        run(folder, refusing)
    assert list(tmp_path.iterdir()) == []
    assert run(folder, ready).made == 6
    assert seen == [False, True]


def test_of_two_runs_that_begin_at_once_one_goes_on(tmp_path: Path, small: Small) -> None:
    """Both find no folder. While the second gets ready, the first is at work, or has been, or makes another plan there."""
    first, second = RunFolder.begin(tmp_path / "run", small()), RunFolder.begin(tmp_path / "run", small())

    def slow(plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        run(first, StandIn(stop_after=None))
        yield from StandIn(other="another ")(plan, batches)

    with pytest.raises(ConfigError, match="another run began in it meanwhile"):
        run(second, slow)
    assert [record.image for record in first.records()] == [str(number) for number in range(6)]
    other = RunFolder.begin(tmp_path / "other", small(items=2))

    def of_another_plan(plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        run(RunFolder.begin(tmp_path / "other", small()), StandIn())
        yield from StandIn()(plan, batches)

    with pytest.raises(ConfigError, match="the run of another plan"):
        run(other, of_another_plan)
    third = RunFolder.begin(tmp_path / "third", small())

    def beside(plan: Plan, batches: Sequence[range]) -> Iterator[list[Made]]:
        with RunFolder.begin(tmp_path / "third", small()).held():
            yield from StandIn()(plan, batches)

    with pytest.raises(ConfigError, match="another run is at work"):
        run(third, beside)


def _killed_before(path: str, step: int) -> None:
    """A run that is killed before its so many-th step on the disk: a file or folder forced there, or a file renamed."""
    steps = itertools.count()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given)

        return counting

    os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
    run(RunFolder.open(Path(path)), StandIn())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child makes no use of torch's threads
def test_kill_9_between_any_two_steps_loses_nothing_and_doubles_nothing(tmp_path: Path, small: Small) -> None:
    plan, context, found = small(), multiprocessing.get_context("fork"), set[int]()
    for step in range(24):  # of the first three jobs
        folder = RunFolder.begin(tmp_path / str(step), plan).make()
        process = context.Process(target=_killed_before, args=(str(folder.path), step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kept = {number: folder.record_path(number).stat().st_ino for number in folder.finished()}
        assert [record.image for record in folder.records()] == [str(number) for number in range(len(kept))]
        assert all(folder.image_path(number).read_bytes() == str(number).encode() for number in kept)
        outcome = run(folder, StandIn())
        assert (outcome.found, outcome.made, outcome.unlike, folder.missing()) == (len(kept), 6 - len(kept), [], [])
        assert {number: folder.record_path(number).stat().st_ino for number in kept} == kept, "a finished job was made again"
        assert not list(folder.path.rglob("*.part"))
        found.add(len(kept))
    assert found == {0, 1, 2, 3}
