"""From the energies of terms at one latent to the shift of it: gradients, and what is written down of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..errors import ConfigError, NonFiniteError
from ..events import LogEntry
from ..plugins.calls import calling
from ..protocols import Run
from ..reductions import listed
from ..types import Energy, Latents, Step
from .contracts import remedies
from .gradients import Backward, Summed, normalised, to_device
from .observing import Observation, Pending
from .schedule import Schedule
from .term import ActiveTerm
from .term_step import TermStep


@dataclass(frozen=True)
class Pull:
    """One term at one latent: its energy, the part of it that is minimised now `[b]`, zero for samples that are done; and which
    samples were `seen` (on the CPU)."""

    active: ActiveTerm
    progress: TermStep
    energy: Energy
    minimised: Tensor
    seen: Tensor

    @property
    def name(self) -> str:
        return self.active.term.name

    @property
    def schedule(self) -> Schedule:
        return self.active.term.schedule


@dataclass(frozen=True)
class Group:
    """Pulls of one site that share a backward: all that use their gradient as it is, or one that normalises it."""

    site: str
    pulls: tuple[Pull, ...]

    @property
    def names(self) -> str:
        return ", ".join(repr(pull.name) for pull in self.pulls)

    def summed(self, step: Step) -> Summed:
        """The energies `[b]` times their strengths, or one energy to be normalised.

        Raises:
            ConfigError: one of them does not depend on the latent.
        """
        with torch.enable_grad():  # samples never mix: each one's energy depends on its own latent alone
            scaled = [p.minimised * (p.schedule.strength(step) if p.schedule.normalise == "none" else 1.0) for p in self.pulls]
            energies = torch.stack(scaled).sum(dim=0)  # [b]
        check_moved(", ".join(repr(p.name) for p, energy in zip(self.pulls, scaled, strict=True) if not energy.requires_grad))
        return Summed(energies, partial(self._calling, step))

    def _calling(self, step: Step) -> AbstractContextManager[None]:
        distance = self.pulls[0].active.term.distance
        return calling(f"term {self.names} at step {step.index}", "gradient, by distance", distance)


def grouped(pulls: Sequence[Pull]) -> Iterator[Group]:
    """The pulls, site by site, in the order of their backwards."""
    for site in dict.fromkeys(pull.schedule.site for pull in pulls):
        there = [pull for pull in pulls if pull.schedule.site == site]
        if plain := tuple(pull for pull in there if pull.schedule.normalise == "none"):
            yield Group(site, plain)
        yield from (Group(site, (pull,)) for pull in there if pull.schedule.normalise != "none")


def check_moved(names: str) -> None:
    """Refuse terms whose energy does not depend on the latent; `names` is empty if there are none."""
    if names:
        raise ConfigError(f"term {names}: its energy does not depend on the latent, so there is nothing to pull")


class Descent:
    """The gradients of one run. `log` and `energies` are as `GuidanceRun` has them; `skipped` counts updates left out."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.log: list[LogEntry] = []
        self.energies: dict[str, Tensor] = {}
        self.skipped = 0
        self._backward = Backward(run.model.dtype)

    def pulls(self, observation: Observation, pending: Sequence[Pending]) -> list[Pull]:
        """What each term makes of an observation; its graph is alive."""
        made: list[Pull] = []
        for active, progress in pending:
            measured = active.measured(observation.view, progress.updated)
            energy = measured.energy()
            chosen = progress.minimised(energy, measured.energy)
            made.append(Pull(active, progress, energy, chosen, observation.samples))
        return made

    def evaluated(self, pulls: Sequence[Pull], leaf: Latents, step: Step) -> tuple[dict[str, Tensor], list[LogEntry]]:
        """`sum_i gamma_i * g_i` by site, and the log of it. The one transfer to the CPU is in here; the graph is gone after it.

        Raises:
            NonFiniteError: an energy, or a gradient that must not be skipped.
            ConfigError: an energy that does not depend on the latent.
        """
        groups = list(grouped(pulls))
        watched = [value for pull in pulls for value in (pull.energy.value, pull.energy.watch)]
        found = self._backward([group.summed(step) for group in groups], leaf, watched)
        values, watches = found.beside[::2], found.beside[1::2]
        for pull, value, watch in zip(pulls, values, watches, strict=True):
            self._check_energy(pull, value, watch, step)
        shifts: dict[str, Tensor] = {}
        broken_of: dict[str, Tensor] = {}
        for group, gradient, broken in zip(groups, found.values, found.broken, strict=True):
            if gradient is None:
                check_moved(group.names)
                continue
            moved = torch.stack([pull.progress.updated for pull in group.pulls]).any(dim=0)
            self._check_gradient(group, broken & moved, step)
            broken_of.update((pull.name, broken & moved) for pull in group.pulls)
            # Zero times an infinite slope is not zero: the gradient of a sample that is done may be anything.
            kept = to_device((moved & ~broken).reshape(-1, 1, 1, 1), gradient)
            gradient = torch.where(kept, gradient, torch.zeros_like(gradient))
            before = shifts.get(group.site, torch.zeros_like(leaf))
            shifts[group.site] = before + normalised(gradient, group.pulls[0].schedule, step)
        entries = [self._noted(pull, watch, broken_of[pull.name], step) for pull, watch in zip(pulls, watches, strict=True)]
        return shifts, entries

    def _noted(self, pull: Pull, watch: Tensor, broken: Tensor, step: Step) -> LogEntry:
        """Write down an update, and let the stop rules look at it."""
        updated = pull.progress.updated & ~broken
        self.energies[pull.name] = torch.where(pull.seen, watch, self.energies.get(pull.name, watch))
        energy = listed(torch.where(pull.seen, watch, torch.nan))
        entry = LogEntry(step.index, pull.name, tuple(energy), tuple(listed(updated)), pull.schedule.strength(step))
        self.log.append(entry)
        pull.active.stopped |= pull.progress.advance(watch)
        return entry

    def _check_energy(self, pull: Pull, value: Tensor, watch: Tensor, step: Step) -> None:
        counted = pull.seen & pull.progress.updated
        if not bool((torch.isfinite(value) & torch.isfinite(watch))[counted].all()):
            raise NonFiniteError(
                f"term {pull.name!r} at step {step.index} (t={step.t}): its energy is {listed(value)}, with the network in "
                f"{self.run.model.dtype}; {remedies(self.run.model, 'a lower gamma', pulled=bool(self.log))}"
            )

    def _check_gradient(self, group: Group, broken: Tensor, step: Step) -> None:
        if bool(broken.any()) and any(pull.schedule.non_finite == "error" for pull in group.pulls):
            cures = remedies(self.run.model, "a lower gamma", "non_finite: skip", pulled=bool(self.log))
            raise NonFiniteError(
                f"term {group.names} at step {step.index} (t={step.t}): the gradient is not finite, with the network in "
                f"{self.run.model.dtype}; {cures}"
            )
        self.skipped += int(broken.sum())
