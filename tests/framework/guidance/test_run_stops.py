"""Stop rules and refinement, against the published loops written out, and samples of a batch that part ways by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.layout.regions import Box, Layout, Region
from tests.toys import (
    LinearDenoiser,
    Look,
    Measure,
    UNetDenoiser,
    draw,
    gradient_of,
    make_run,
    mean_square,
    relative,
    sampled,
    square,
    start,
)

Toy = Callable[[Tensor], Tensor]


# ---- stop rules ----


def scaled(*norms: float) -> Tensor:
    """Samples whose mean square is the square of their norm."""
    return torch.tensor(norms).reshape(-1, 1, 1, 1) * torch.ones(len(norms), 1, 2, 2)


def test_a_sample_below_its_threshold_gets_that_update_and_is_then_left_alone_within_the_step() -> None:
    z = scaled(0.4, 1.0, 4.0)  # mean squares .16, 1, 16; an update with gamma 1/4 halves each value: grad of the sum is 2 z
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("z"), Measure(lambda m: square(m) / 4), Schedule(gamma=1.0, repeats=5, stop_below=0.25)), run)
    first = pull.before(z, run.steps[0])
    # Values .4 -> .2 (below at once); 1 -> .5 -> .25 (below at the second, still updated); 4 -> 2 -> 1 -> .5 -> .25
    assert torch.allclose(first, scaled(0.2, 0.25, 0.25))
    assert [entry.updated for entry in pull.log] == [
        (True, True, True), (False, True, True), (False, False, True), (False, False, True),
    ]  # fmt: skip
    again = pull.before(first, run.steps[1])  # the rule starts anew
    assert torch.allclose(again, first / 2)


def test_stop_forever_ends_the_pull_of_a_sample_for_the_run_as_layout_guidance_does() -> None:
    def published(z: Tensor, steps: int, most: int, threshold: float) -> list[Tensor]:
        loss, walk = float("inf"), list[Tensor]()  # initialised once, before the time loop
        for _ in range(steps):
            iteration = 0
            while loss > threshold and iteration < most:
                loss = float(z.square().mean())
                z = z - 0.5 * z  # the gradient of the sum of squares / 4, with gamma 1
                iteration += 1
            walk.append(z)
            z = 3 * z  # the sampler walks on
        return walk

    z = scaled(0.4, 3.0, 40.0)
    run = make_run(LinearDenoiser(), z)
    schedule = Schedule(gamma=1.0, repeats=2, stop_below=0.25, stop_forever=True)
    pull = start(Term(Look("z"), Measure(lambda m: square(m) / 4), schedule), run)
    walk: list[Tensor] = []
    for step in run.steps:
        z = pull.before(z, step)
        walk.append(z)
        z = 3 * z
    for index in range(3):
        expected = published(run.z_T[index], len(run.steps), 2, 0.25)
        assert torch.allclose(torch.stack(walk)[:, index], torch.stack(expected))


@pytest.mark.parametrize("site", ["before", "after", "noise"])
def test_no_pass_is_made_once_every_sample_has_stopped_for_good(site: str) -> None:
    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    term = Term(Look("probs"), Measure(square), Schedule(site=site, stop_below=1e9, stop_forever=True))
    sampled(run, Guidance([term]))
    assert [index for index, _ in run.denoiser.observed] == [0]


@pytest.mark.parametrize("site", ["after", "noise"])
def test_stopping_for_good_works_at_the_sites_that_share_their_pass(site: str) -> None:
    z = scaled(0.1, 10.0).expand(2, 3, 2, 2).clone()
    run = make_run(LinearDenoiser(), z)
    term = Term(Look("z"), Measure(mean_square), Schedule(gamma=0.1, site=site, stop_below=0.25, stop_forever=True))
    _, pull = sampled(run, Guidance([term]), lambda report: report.step.index < 1)
    assert [entry.updated for entry in pull.log] == [(True, True), (False, True)]


# ---- refinement: Attend-and-Excite's published loop, for one sample ----


def published_step(
    z: Tensor, energy: Toy, gamma: float, threshold: float | None, most: int, refine: Toy | None = None
) -> list[Tensor]:
    """The latents of one guided step of Chefer et al.'s published code, the ordinary update included."""
    walk = [z]

    def update(by: Toy) -> None:
        walk.append(walk[-1] - gamma * gradient_of(by, walk[-1]))

    loss = energy(z)
    if threshold is not None and loss > threshold:
        iteration = 0
        while loss > threshold:  # tests the loss of before the latest update
            iteration += 1
            loss = energy(walk[-1])
            update(refine or energy)
            if iteration >= most:
                break
    update(energy)
    return walk


def toy_energy(z: Tensor) -> Tensor:
    return (1 - torch.exp(-z.square().flatten(1).mean(dim=1) / 2)).clamp(min=0)


def other_energy(z: Tensor) -> Tensor:
    return (z - 0.1).abs().flatten(1).sum(dim=1)


STARTS = {"already below": 0.05, "below after some": 1.0, "never below": 5.0}


def refine_run(z: Tensor, schedule: Schedule, refine: Toy | None = None) -> tuple[Tensor, Any]:
    run = make_run(LinearDenoiser(), z)
    first = None if refine is None else (lambda maps: refine(maps[:, 0]))
    pull = start(Term(Look("z"), Measure(lambda maps: toy_energy(maps[:, 0]), refine=first), schedule), run)
    return pull.before(z, run.steps[0]), pull


@pytest.mark.parametrize("refine", [None, other_energy], ids=["its own energy", "another energy"])
@pytest.mark.parametrize("case", STARTS)
def test_refinement_is_the_published_loop(case: str, refine: Toy | None) -> None:
    z = STARTS[case] + 0.1 * draw(3, 1, 2, 3, 3)
    gamma = 0.5 if refine is None else 0.01
    moved, pull = refine_run(z, Schedule(gamma=gamma, refine={0.0: (0.2, 30)}), refine)
    walk = published_step(z, toy_energy, gamma, 0.2, 30, refine)
    assert len(pull.log) == len(walk) - 1
    assert torch.allclose(moved, walk[-1], rtol=1e-5, atol=1e-6)
    if case == "already below":
        assert len(walk) == 2
    elif case == "never below":
        assert len(walk) == 1 + 30 + 1
    elif refine is None:
        assert 3 < len(walk) < 1 + 30 + 1  # the case is what its name says
    if case == "below after some" and refine is not None:
        own = published_step(z, toy_energy, gamma, 0.2, 30)
        assert not torch.allclose(moved, own[-1])


@pytest.mark.parametrize("case", STARTS)
def test_without_the_final_update_a_refined_sample_gets_none_and_a_low_one_its_ordinary_one(case: str) -> None:
    z = STARTS[case] + 0.1 * draw(3, 1, 2, 3, 3)
    moved, _ = refine_run(z, Schedule(gamma=0.5, refine={0.0: (0.2, 30)}, final_update=False))
    walk = published_step(z, toy_energy, 0.5, 0.2, 30)
    assert torch.allclose(moved, walk[-1] if case == "already below" else walk[-2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("final_update", [True, False])
def test_a_batch_of_samples_in_different_states_equals_single_runs(final_update: bool) -> None:
    singles = [value + 0.1 * draw(3, 1, 2, 3, 3) for value in STARTS.values()]
    schedule = Schedule(gamma=0.5, refine={0.0: (0.2, 30)}, final_update=final_update, repeats=3, stop_below=0.15)
    together, _ = refine_run(torch.cat(singles), schedule, other_energy)
    apart = torch.cat([refine_run(z, schedule, other_energy)[0] for z in singles])
    assert torch.allclose(together, apart, rtol=1e-6)


def test_refinement_happens_at_its_steps_only() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4), count=10)
    schedule = Schedule(gamma=1e-6, refine={0.0: (-1.0, 2), 0.4: (-1.0, 4)}, until=0.8)
    _, pull = sampled(run, Guidance([Term(Look("z"), Measure(square), schedule)]))
    assert [sum(entry.step == index for entry in pull.log) for index in range(10)] == [3, 1, 1, 1, 5, 1, 1, 1, 0, 0]


# ---- batches of different samples, on a real network ----

PROMPTS = ("a red ball", "one small cat and one blue hat", "green tree")
LAYOUTS = (
    Layout((Region("red ball", Box(0.1, 0.1, 0.6, 0.5)),)),
    Layout((Region("cat", Box(0.0, 0.2, 0.4, 0.9)), Region("blue hat"), Region("one blue", Box(0.5, 0.1, 0.9, 0.6)))),
    Layout((Region("green tree", Box(0.3, 0.3, 1.0, 1.0)), Region("green tree", Box(0.0, 0.0, 0.2, 0.2)))),
)


def both_pulls(low: float, high: float) -> Guidance:
    attention = CrossAttention(
        layers=("grid:coarsest",), heads="mean", combine="mean", drop="ends", renormalise="softmax", temperature=3.0,
        words="last", smooth_sigma=0.5, smooth_kernel="attend_and_excite",
    )  # fmt: skip
    return Guidance(
        [
            Term(attention, MaxToken(), Schedule(gamma=5.0, decay="sqrt_linear", refine={0.0: (high, 3)}), name="semantic"),
            Term(
                CrossAttention(),
                BoxEnergy(),
                Schedule(gamma=30.0, repeats=3, stop_below=low, stop_forever=True),
                name="layout",
            ),
        ]
    )


@pytest.mark.parametrize(("count", "steps", "tolerance"), [(5, 1, 1e-5), (5, 4, 1e-4)])
def test_a_batch_of_three_different_samples_equals_three_single_runs(count: int, steps: int, tolerance: float) -> None:
    z = draw(7, 3, 4, 8, 6)  # not square

    def walk(samples: slice, guidance: Guidance) -> tuple[Tensor, Any]:
        denoiser = UNetDenoiser(PROMPTS[samples])
        run = make_run(denoiser, z[samples], count=count, layouts=LAYOUTS[samples])
        return sampled(run, guidance, lambda report: report.step.index + 1 < steps)

    _, probe = walk(slice(0, 3), both_pulls(0.0, 1.0))
    watched = {name: sorted(next(e.energy for e in probe.log if e.term == name)) for name in ("semantic", "layout")}
    guidance = both_pulls(sum(watched["layout"][:2]) / 2, sum(watched["semantic"][1:]) / 2)  # so that samples part ways
    together, pull = walk(slice(0, 3), guidance)
    assert any(len(set(entry.updated)) == 2 for entry in pull.log)
    unguided, _ = walk(slice(0, 3), Guidance())
    for index in range(3):
        alone, single = walk(slice(index, index + 1), guidance)
        assert relative(together[index], alone[0]) < tolerance
        assert relative(unguided[index], alone[0]) > 100 * tolerance  # the pull is not a trifle
        for name in ("semantic", "layout"):
            updates = sum(entry.updated[index] for entry in pull.log if entry.term == name)
            assert updates == sum(entry.updated[0] for entry in single.log if entry.term == name)
