"""How far one term is with each sample within one step: refining, in its ordinary updates, or done."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..types import Energy, Step
from .gradients import to_device
from .schedule import Schedule


class TermStep:
    """The state of one term in one step, sample by sample; every tensor is `[b]`, on the CPU."""

    def __init__(self, schedule: Schedule, step: Step, stopped: Tensor) -> None:
        refinement = schedule.refinement(step)
        self.schedule = schedule
        self.threshold, self.most = refinement or (float("inf"), 0)
        self.refining = ~stopped if refinement else torch.zeros_like(stopped)
        self.refined = torch.zeros(len(stopped), dtype=torch.long)
        self.left = torch.where(stopped, 0, schedule.repeats)  # ordinary updates still to make
        self._first = True

    @property
    def updated(self) -> Tensor:
        """Which samples the present evaluation updates."""
        return self.refining | (self.left > 0)

    @property
    def live(self) -> bool:
        return bool(self.updated.any())

    def minimised(self, energy: Energy, again: Callable[[Tensor], Energy]) -> Tensor:
        """What is minimised for each sample, zero for those that are done; on the device of the energy.

        Args:
            again: the same energy, whose gradient goes into some samples `[b]` alone. Where some samples refine and others do
                not, each sample's gradient must come from one part of the energy: zero times an infinite slope of the other part
                is not zero.
        """
        updated = to_device(self.updated, energy.value)
        if energy.refine is None or not bool(self.refining.any()):
            chosen = energy.value
        elif not self._first and bool(self.refining[self.updated].all()):
            chosen = _refined(energy)
        else:
            refining = to_device(self.refining, energy.value)
            if self._first:  # which samples are low enough already, only the device knows yet
                refining = refining & (energy.watch > self.threshold)
            chosen = torch.where(refining, _refined(again(refining)), again(updated & ~refining).value)
        return torch.where(updated, chosen, torch.zeros_like(chosen))

    def advance(self, watch: Tensor) -> Tensor:
        """Count the update just made, whose watched energy was `watch`; which samples have stopped for the rest of the run."""
        if self._first:  # a sample that was low enough already got its ordinary update from this very evaluation
            self.refining = self.refining & (watch > self.threshold)
            self._first = False
        was_refining = self.refining
        ordinary = ~was_refining & (self.left > 0)
        self.refined = self.refined + was_refining
        self.refining = was_refining & (watch > self.threshold) & (self.refined < self.most)
        if not self.schedule.final_update:
            self.left = torch.where(was_refining & ~self.refining, 0, self.left)
        self.left = self.left - ordinary.long()
        if self.schedule.stop_below is None:
            return torch.zeros_like(was_refining)
        below = ordinary & (watch <= self.schedule.stop_below)
        self.left = torch.where(below, 0, self.left)
        return below if self.schedule.stop_forever else torch.zeros_like(below)


def _refined(energy: Energy) -> Tensor:
    return energy.value if energy.refine is None else energy.refine
