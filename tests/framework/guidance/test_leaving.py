"""Samples that are done leave the pass once they are half of the batch, and nobody's picture changes by it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework.guidance.observing import scatter_live
from lsregen.framework.guidance.run import Guidance, GuidanceRun, Term
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.layout.regions import Layout
from lsregen.framework.sampling.taps import Taps
from lsregen.framework.types import Prediction, Step, View
from tests.near import near
from tests.toys import LinearDenoiser, Look, Measure, ToyModel, UNetDenoiser, draw, make_run, mean_square, sampled, start

PROMPTS = ("a cat and a dog", "a dog", "one red car", "a small cat")
LAYOUTS = tuple(
    Layout.from_boxes({phrase: box})
    for phrase, box in (
        ("cat", (0.0, 0.0, 0.5, 0.5)),
        ("dog", (0.0, 0.0, 1.0, 1.0)),  # met from the start
        ("red car", (0.5, 0.5, 1.0, 1.0)),
        ("cat", (0.0, 0.0, 1.0, 1.0)),
    )
)
Z = draw(3, 4, 4, 8, 8)


class Counting(UNetDenoiser):
    """Writes down the number of samples in every pass."""

    sizes: list[int]

    def observe(self, z: Tensor, step: Step, taps: Taps) -> View:
        self.sizes.append(len(z))
        return super().observe(z, step, taps)


def guided(samples: list[int], schedule: Schedule) -> tuple[Tensor, GuidanceRun, list[int]]:
    denoiser: Any = Counting([PROMPTS[i] for i in samples])
    denoiser.sizes = []
    run = make_run(denoiser, Z[samples], layouts=[LAYOUTS[i] for i in samples])
    z, pull = sampled(run, Guidance([Term(CrossAttention(layers=("all",)), BoxEnergy(), schedule)]))
    return z, pull, denoiser.sizes


@pytest.mark.parametrize("forever", [True, False])
def test_half_of_the_samples_go_on_alone(forever: bool) -> None:
    schedule = Schedule(gamma=5, until=0.6, repeats=3, stop_below=1e-3, stop_forever=forever)
    z, pull, sizes = guided([0, 1, 2, 3], schedule)
    assert sizes == ([4, 2, 2] + 2 * [2, 2, 2] if forever else 3 * [4, 2, 2])
    for i in range(4):
        alone, single, _ = guided([i], schedule)
        assert torch.allclose(z[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        of_batch = [entry.energy[i] for entry in pull.log if entry.updated[i]]
        assert of_batch == pytest.approx([entry.energy[0] for entry in single.log if entry.updated[0]], rel=1e-3, abs=1e-6)


def test_the_energy_of_a_sample_that_left_is_not_made_up() -> None:
    _, pull, _ = guided([0, 1, 2, 3], Schedule(gamma=5, until=0.6, repeats=3, stop_below=1e-3, stop_forever=True))
    first, later = pull.log[0], pull.log[1:]
    assert all(math.isfinite(energy) for energy in first.energy)
    assert all([math.isnan(energy) for energy in entry.energy] == [False, True, False, True] for entry in later)
    assert pull.energies["BoxEnergy"].tolist()[1::2] == pytest.approx(first.energy[1::2]), "the last one that was measured stays"


def test_more_than_half_stay_together() -> None:
    _, _, sizes = guided([0, 1, 2], Schedule(gamma=5, until=0.2, repeats=3, stop_below=1e-3))
    assert sizes == [3, 3, 3]


def test_a_term_that_needs_the_prediction_may_go_on_with_some() -> None:
    class Noise(CrossAttention):
        @property
        def needs(self) -> Any:
            return replace(super().needs, prediction=True)

        def current(self, view: View, state: Any) -> Any:
            assert isinstance(view.prediction, Prediction)
            assert len(view.eps) == len(view.z) == 4
            return super().current(view, state)

    denoiser: Any = Counting(PROMPTS)
    denoiser.sizes = []
    run = make_run(denoiser, Z, layouts=LAYOUTS)
    schedule = Schedule(gamma=5, until=0.2, repeats=2, stop_below=1e-3)
    sampled(run, Guidance([Term(Noise(layers=("all",)), BoxEnergy(), schedule)]))
    assert denoiser.sizes == [4, 2]


def norm(maps: Tensor) -> Tensor:
    """Its slope at 0, where it sends a sample, is infinite."""
    return maps.square().flatten(1).sum(dim=1).sqrt()


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_the_slope_of_a_sample_that_is_done_is_nobodys_affair(policy: str) -> None:
    guidance = Guidance([Term(Look(), Measure(norm), Schedule(gamma=1, repeats=3, stop_below=1, non_finite=policy))])
    z = torch.tensor([1.0, 10.0, 10.0]).reshape(3, 1, 1, 1)
    run = make_run(LinearDenoiser(), z)
    pull = start(guidance, run)
    together = pull.before(z, run.steps[0])
    assert together.flatten().tolist() == [0, 7, 7]
    assert pull.skipped == 0
    assert [entry.updated for entry in pull.log] == [(True, True, True), (False, True, True), (False, True, True)]
    alone = make_run(LinearDenoiser(), z[:1])
    assert near(start(guidance, alone).before(z[:1], alone.steps[0]), together[:1])


def test_what_is_made_up_for_a_sample_that_left_reaches_nobody() -> None:
    value = torch.tensor([[2.0], [3.0]], requires_grad=True)
    copies = scatter_live(value, torch.tensor([True, False, True, False]))
    assert copies.flatten().tolist() == [2, 2, 3, 3]
    copies.backward(torch.tensor([[1.0], [math.nan], [1.0], [math.nan]]))
    assert value.grad is not None
    assert value.grad.flatten().tolist() == [1, 1]


def test_only_those_that_go_on_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = ToyModel.decode
    monkeypatch.setattr(ToyModel, "decode", lambda self, z: decoded.append(len(z)) or decode(self, z))
    z = draw(3, 4, 3, 2, 2)
    z[1:] = -9  # dark already
    guidance = Guidance([Term(Look("image"), Measure(mean_square), Schedule(gamma=1, repeats=3, stop_below=0.01))])
    run = make_run(LinearDenoiser(prompts=("toy",) * 4), z)
    moved = start(guidance, run).before(z, run.steps[0])
    assert decoded == [4, 1, 1]
    alone = make_run(LinearDenoiser(), z[:1])
    torch.testing.assert_close(start(guidance, alone).before(z[:1], alone.steps[0]), moved[:1])
