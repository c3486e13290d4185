"""The engine that needs nothing: one worker, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .maker import Made, Maker, Workshop
from .plan import Plan


def make(plan: Plan, batches: Iterable[range], workshop: Workshop) -> Iterator[list[Made]]:
    """The jobs of each batch, batch after batch. Raises as `Maker.make`."""
    maker = Maker.of(plan, workshop)
    for numbers in batches:
        yield maker.make([plan.jobs[number] for number in numbers])
