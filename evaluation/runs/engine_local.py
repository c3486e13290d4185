"""The engine that needs nothing: one worker, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...framework.errors import ConfigError
from .plan import Plan
from .worker import Made, Maker, Workshop


@dataclass(frozen=True)
class Local:
    """One worker, in this process."""

    def make(self, plan: Plan, batches: Iterable[range], workshop: Workshop) -> Iterator[list[Made]]:
        """The jobs of each batch, batch after batch; before the first an empty list, once its model is loaded.

        Raises:
            ConfigError: a job broke the device, which only another process can use again; its batch has been given before.
            LsregenError: as `Maker.make`.
        """
        maker = Maker.of(plan, workshop)
        for i, numbers in enumerate(batches):
            if i == 0:
                maker.prepare(plan.jobs[numbers.start].method)
                yield []
            made = maker.make([plan.jobs[number] for number in numbers])
            yield made
            if made[-1].broken and (error := made[-1].record.error):
                raise ConfigError(
                    f"jobs {numbers.start} to {numbers.stop - 1} broke the device ({error.message.splitlines()[0]}): those of "
                    "them that are not made are recorded as failed; the same command goes on with the others"
                )
