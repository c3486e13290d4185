"""One term in one step, sample by sample: refining, ordinary updates, done."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.guidance.term_step import TermStep
from lsregen.framework.types import Energy, Step

STEP = Step(0, 10, 999, 0.1, 0.2)


def minimised(progress: TermStep, energy: Energy) -> torch.Tensor:
    return progress.minimised(energy, lambda samples: energy)


def walk(schedule: Schedule, energies: Sequence[Sequence[float]], stopped: Sequence[bool] | None = None) -> list[list[str]]:
    """What each evaluation updates each sample by: `value`, `refine`, or nothing (`-`)."""
    progress = TermStep(schedule, STEP, torch.tensor(stopped or [False] * len(energies[0])))
    made: list[list[str]] = []
    for watch in energies:
        if not progress.live:
            break
        watched = torch.tensor(watch)
        chosen = minimised(progress, Energy(torch.ones_like(watched), watched, 2 * torch.ones_like(watched)))
        made.append([{0.0: "-", 1.0: "value", 2.0: "refine"}[float(x)] for x in chosen])
        assert [mark != "-" for mark in made[-1]] == progress.updated.tolist()
        progress.advance(watched)
    return made


def test_ordinary_updates_are_made_as_often_as_asked() -> None:
    assert walk(Schedule(repeats=3), [[1.0, 1.0]] * 9) == [["value", "value"]] * 3


def test_a_sample_gets_the_update_that_found_it_low_enough_and_no_other() -> None:
    energies = [[0.2, 0.5, 0.5], [0.9, 0.2, 0.5], [0.9, 0.9, 0.5], [0.9, 0.9, 0.2], [0.9] * 3]
    assert walk(Schedule(repeats=4, stop_below=0.2), energies) == [
        ["value", "value", "value"], ["-", "value", "value"], ["-", "-", "value"], ["-", "-", "value"],
    ]  # fmt: skip


@pytest.mark.parametrize(("forever", "expected"), [(False, [False, False]), (True, [True, False])])
def test_a_sample_stops_for_the_run_only_if_asked(forever: bool, expected: list[bool]) -> None:
    progress = TermStep(Schedule(stop_below=0.2, stop_forever=forever), STEP, torch.zeros(2, dtype=torch.bool))
    watch = torch.tensor([0.1, 0.5])
    minimised(progress, Energy(watch, watch))
    assert progress.advance(watch).tolist() == expected


def test_refinement_ends_after_the_update_that_found_the_energy_reached_or_at_its_limit() -> None:
    energies = [[0.1, 0.9, 0.9], [0.9, 0.5, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]
    assert walk(Schedule(refine={0.0: (0.5, 3)}), energies) == [
        ["value", "refine", "refine"], ["-", "refine", "refine"], ["-", "value", "refine"], ["-", "-", "value"],
    ]  # fmt: skip
    assert walk(Schedule(refine={0.0: (0.5, 3)}, final_update=False), energies) == [
        ["value", "refine", "refine"], ["-", "refine", "refine"], ["-", "-", "refine"],
    ]  # fmt: skip


def test_refining_does_not_stop_a_sample_for_the_run() -> None:
    schedule = Schedule(refine={0.0: (0.5, 3)}, stop_below=0.6, stop_forever=True)
    progress = TermStep(schedule, STEP, torch.zeros(1, dtype=torch.bool))
    for watch, stopped in ((0.9, False), (0.4, False), (0.4, True)):
        minimised(progress, Energy(torch.tensor([watch]), torch.tensor([watch])))
        assert progress.advance(torch.tensor([watch])).tolist() == [stopped]
    assert not progress.live


def test_a_stopped_sample_is_neither_refined_nor_updated() -> None:
    assert walk(Schedule(refine={0.0: (0.5, 2)}), [[0.9, 0.9]] * 9, [True, False]) == [
        ["-", "refine"], ["-", "refine"], ["-", "value"],
    ]  # fmt: skip
    assert walk(Schedule(), [[0.9]], [True]) == []
