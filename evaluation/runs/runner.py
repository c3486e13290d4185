"""A plan being run: what is missing in its folder is made by an engine, and kept as soon as it is made.

One process writes to the folder, whatever the engine: no machine but the driver's needs to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from ...framework.errors import ConfigError
from .plan import Plan
from .run_folder import Record, RunFolder
from .worker import Made, Workshop, check_version

Making: TypeAlias = Callable[[Plan, Sequence[range]], Iterator[list[Made]]]
"""An engine with its workshop: `Engine.make` without it."""


class Engine(Protocol):
    """Where the images of a plan are made: a frozen dataclass whose fields are its options, registered by `register_engines`."""

    def make(self, plan: Plan, batches: Sequence[range], workshop: Workshop) -> Iterator[list[Made]]:
        """Makes batches, given by the numbers of their jobs, in any order; yields all jobs of a batch at once.

        It may yield an empty list before the first: it can work, and nothing will be refused any more.

        Args:
            workshop: the device and the threads of each worker, and where it finds the models.
        """
        ...


@dataclass
class Outcome:
    """What became of a run.

    `found`: how many jobs were finished before. `failed_before`: those of them that ended with an error. `made`: by it. `failed`:
    those of them that ended with an error. `unlike`: jobs of which the picture, made once more since it was lost or beside others
    of its batch, is not that of its record.
    """

    found: int = 0
    failed_before: list[Record] = field(default_factory=list[Record])
    made: int = 0
    failed: list[Record] = field(default_factory=list[Record])
    unlike: list[int] = field(default_factory=list[int])


def run(
    folder: RunFolder,
    engine: Making,
    *,
    retry_failed: bool = False,
    on_done: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Make and keep every job that is not finished. However this ends, what was finished stays.

    A new folder is made as soon as the engine can work: what is refused before leaves nothing.

    A batch of which some jobs are finished is made whole, as the plan says, and only the others are kept. Jobs whose picture is
    lost are among them. Those whose record is damaged follow at the end: to read all records of a million jobs takes minutes.

    Args:
        retry_failed: make the jobs that ended with an error again too.
        on_done: is told how many more jobs are finished, those found on disk included; less than none where one was damaged.
        say: is told in words what was lost or damaged, before it is made again.

    Raises:
        ConfigError: the plan is of another version of lsregen, another run is at work in the folder, or it cannot be written.
        LsregenError: the engine cannot work at all.
    """
    check_version(folder.plan.lsregen)
    with ExitStack() as held:

        def hold() -> None:
            held.enter_context(folder.held())
            if folder.recorded() - done:
                raise ConfigError(f"folder {folder.path}: another run began in it meanwhile; the same command goes on from there")

        if there := folder.made:
            held.enter_context(folder.held())
        done = folder.finished()
        if lost := folder.recorded() - done:
            say(f"made again, since the picture is lost: {_named(map(folder.image_path, sorted(lost)))}")
        if retry_failed:
            done -= {record.job for record in folder.failed()}
        outcome = Outcome(found=len(done))
        on_done(len(done))
        _make(folder, engine, done, outcome, on_done, hold if not there else lambda: None)
        if damaged := _read(folder, done, outcome):
            say(f"made again, since the record is damaged: {_named(map(folder.record_path, sorted(damaged)))}")
            outcome.found -= len(damaged)
            on_done(-len(damaged))
            _make(folder, engine, set(range(len(folder.plan.jobs))) - damaged, outcome, on_done)
    return outcome


def _read(folder: RunFolder, done: set[int], outcome: Outcome) -> set[int]:
    """Read what was done before; returns the jobs whose record is damaged, and notes those that ended with an error."""
    damaged = set[int]()
    for number in sorted(done):
        record = folder.intact(number)
        if record is None:
            damaged.add(number)
        elif record.error is not None:
            outcome.failed_before.append(record)
    return damaged


def _named(paths: Iterable[Path]) -> str:
    """The first of some paths, and how many more there are."""
    first, *others = paths
    return f"{first}{f' and {len(others)} more' if others else ''}"


def _make(
    folder: RunFolder,
    engine: Making,
    done: set[int],
    outcome: Outcome,
    on_done: Callable[[int], None],
    hold: Callable[[], None] = lambda: None,
) -> None:
    """Make and keep what is not done. `hold` is called once, before anything is kept."""
    batches = [numbers for numbers in folder.plan.batches() if not done.issuperset(numbers)]
    for i, made in enumerate(engine(folder.plan, batches) if batches else ()):
        if i == 0:
            hold()
        _keep(folder, made, done, outcome)
        on_done(sum(each.record.job not in done for each in made))


def _keep(folder: RunFolder, made: Sequence[Made], done: set[int], outcome: Outcome) -> None:
    for each in made:
        kept = folder.intact(each.record.job)
        if kept is not None and kept.alone == each.record.alone and kept.image not in (None, each.record.image):
            outcome.unlike.append(each.record.job)
        if each.record.job not in done:
            folder.keep(each.record, each.image)
            outcome.made += 1
            outcome.failed += [each.record] if each.record.error else []
