"""A plan being run: what is missing in its folder is made by an engine, and kept as soon as it is made.

One process writes to the folder, whatever the engine: no machine but the driver's needs to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .maker import Made, check_version
from .plan import Plan
from .run_folder import Record, RunFolder

Engine: TypeAlias = Callable[[Plan, Sequence[range]], Iterator[list[Made]]]
"""Makes batches, given by the numbers of their jobs, in any order; yields all jobs of a batch at once."""


@dataclass
class Outcome:
    """What became of a run.

    `found`: how many jobs were finished before. `made`: by it. `failed`: those of them that ended with an error. `unlike`: jobs
    finished before of which the picture, made once more beside others of its batch, is not the one that was kept.
    """

    found: int = 0
    made: int = 0
    failed: list[Record] = field(default_factory=list[Record])
    unlike: list[int] = field(default_factory=list[int])


def run(
    folder: RunFolder,
    engine: Engine,
    *,
    retry_failed: bool = False,
    on_done: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Make and keep every job that is not finished. However this ends, what was finished stays.

    A batch of which some jobs are finished is made whole, as the plan says, and only the others are kept.

    Args:
        retry_failed: make the jobs that ended with an error again too.
        on_done: is told how many more jobs are finished, those found on disk included.

    Raises:
        ConfigError: the plan is of another version of lsregen, another run is at work in the folder, or it cannot be written.
        LsregenError: the engine cannot work at all.
    """
    check_version(folder.plan.lsregen)
    with folder.held():
        done = folder.finished()
        if retry_failed:
            done -= {record.job for record in folder.failed()}
        outcome = Outcome(found=len(done))
        on_done(len(done))
        batches = [numbers for numbers in folder.plan.batches() if not done.issuperset(numbers)]
        for made in engine(folder.plan, batches) if batches else ():
            _keep(folder, made, done, outcome)
            on_done(sum(each.record.job not in done for each in made))
    return outcome


def _keep(folder: RunFolder, made: Sequence[Made], done: set[int], outcome: Outcome) -> None:
    for each in made:
        if each.record.job not in done:
            folder.keep(each.record, each.image)
            outcome.made += 1
            outcome.failed += [each.record] if each.record.error else []
        elif (kept := folder.record(each.record.job)).alone == each.record.alone and kept.image not in (None, each.record.image):
            outcome.unlike.append(each.record.job)
