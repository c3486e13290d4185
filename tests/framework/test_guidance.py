"""The update rule at its four sites, its stop rules, its norms and its errors, against formulas written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework.checking import remedies
from lsregen.framework.errors import ConfigError, NonFiniteError
from lsregen.framework.guidance import Guidance, Term
from lsregen.framework.layout import Box, Layout, Region
from lsregen.framework.loop import sample
from lsregen.framework.schedule import Schedule
from lsregen.framework.types import Energy, Prediction, Run, Step, View

from ..toys import LinearDenoiser, Look, Measure, UNetDenoiser, draw, make_run, mean_square, square

Toy = Callable[[Tensor], Tensor]


def start(term: Term, run: Run) -> Any:
    return Guidance([term]).start(run)


def gradient_of(energy: Toy, z: Tensor) -> Tensor:
    leaf = z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf)
    return gradient


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ---- site `before` ----


def test_before_repeats_on_the_latent_and_runs_no_network_for_terms_that_look_at_z() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("z"), Measure(square), Schedule(gamma=0.1, repeats=3)), run)
    assert torch.allclose(pull.before(z, run.steps[0]), 0.8**3 * z, rtol=1e-6)
    assert run.denoiser.observed == []
    assert pull.passes == 0
    assert [entry.updated for entry in pull.log] == [(True, True)] * 3


def test_before_differentiates_through_the_prediction() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4, offset=0.3), z)
    step = run.steps[1]
    pull = start(Term(Look("z0"), Measure(square), Schedule(gamma=0.05)), run)
    slope = (1 - (1 - step.alpha_bar) ** 0.5 * 0.4) / step.alpha_bar**0.5  # of z0 in z
    z0 = slope * z - (1 - step.alpha_bar) ** 0.5 * 0.3 / step.alpha_bar**0.5
    assert torch.allclose(pull.before(z, step), z - 0.05 * 2 * z0 * slope, rtol=1e-5, atol=1e-6)
    assert pull.passes == 1


def test_latents_reach_their_target_with_gamma_one_half_and_the_squared_distance() -> None:
    z, aim = draw(1, 2, 3, 4, 4), draw(2, 2, 1, 3, 4, 4)
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("z", aim=aim), L2(), Schedule(gamma=0.5)), run)
    assert torch.allclose(pull.before(z, run.steps[0]), aim[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("gamma", "repeats"), [(0.1, 1), (0.1, 4), (0.3, 5), (0.5, 2), (0.7, 3)])
def test_k_repeats_leave_one_minus_two_gamma_to_the_k_of_the_residual(gamma: float, repeats: int) -> None:
    z, aim = draw(1, 2, 3, 4, 4), draw(2, 2, 1, 3, 4, 4)
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("z", aim=aim), L2(), Schedule(gamma=gamma, repeats=repeats)), run)
    residual = (1 - 2 * gamma) ** repeats * (z - aim[:, 0])
    assert torch.allclose(pull.before(z, run.steps[0]) - aim[:, 0], residual, rtol=1e-4, atol=2e-6)


def test_all_terms_of_one_step_share_one_pass_and_are_added_up() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4), z)
    step = run.steps[0]
    terms = [
        Term(Look("z0"), Measure(mean_square), Schedule(gamma=0.2, repeats=2), name="once more"),
        Term(Look("probs"), Measure(square), Schedule(gamma=3.0), name="probs"),
        Term(Look("z"), Measure(square), Schedule(gamma=0.1), name="z"),
        Term(Look("image"), Measure(mean_square), Schedule(gamma=5.0, from_=0.5), name="later"),
    ]
    pull = Guidance(terms).start(run)
    moved = pull.before(z, step)

    def probs(x: Tensor) -> Tensor:
        return square(torch.softmax(x, dim=1))

    def z0(x: Tensor) -> Tensor:
        return mean_square(run.denoiser.conditional(x, step).z0)

    first = z - 0.2 * gradient_of(z0, z) - 3 * gradient_of(probs, z) - 0.1 * 2 * z
    assert torch.allclose(moved, first - 0.2 * gradient_of(z0, first), rtol=1e-4, atol=1e-6)
    assert [(len(taps.wanted), taps.full) for _, taps in run.denoiser.observed] == [(1, True), (0, True)]
    assert pull.passes == 2


def test_maps_alone_end_the_pass_early() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    pull = start(Term(Look("probs"), Measure(square)), run)
    pull.before(run.z_T, run.steps[0])
    assert [taps.full for _, taps in run.denoiser.observed] == [False]


def test_only_the_steps_of_the_window_are_observed() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4), count=10)
    sample(run, Guidance([Term(Look("z0"), Measure(square), Schedule(gamma=0.01, from_=0.3, until=0.6))]))
    assert [index for index, _ in run.denoiser.observed] == [3, 4, 5]


# ---- sites that share the pass ----


def test_after_shifts_the_next_latent_by_the_gradient_at_this_one_and_shares_the_pass() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4, cfg=2.0), z)
    step = run.steps[1]
    pull = start(Term(Look("probs"), Measure(square), Schedule(gamma=0.7, site="after")), run)
    prediction = pull.predict(z, step)
    assert torch.allclose(prediction.eps, 2 * (0.4 * z + 0.1))  # itself untouched, guidance scale applied
    z_next = run.sampler.step(z, prediction, step, None)
    shift = 0.7 * gradient_of(lambda x: square(torch.softmax(x, dim=1)), z)
    assert torch.allclose(pull.after(z_next, step), z_next - shift, rtol=1e-5, atol=1e-6)
    assert torch.equal(pull.after(z_next, step), z_next)  # once
    assert len(run.denoiser.observed) == 1
    assert run.denoiser.observed[0][1].full
    (conditional,) = run.denoiser.predicted
    assert conditional is not None
    assert torch.allclose(conditional.eps, 0.4 * z + 0.1)
    assert not conditional.eps.requires_grad


def test_noise_is_classifier_guidance() -> None:
    # Dhariwal & Nichol 2021, algorithm 2, with log p = -gamma D: eps - sqrt(1 - alpha_bar) grad log p, then a plain DDIM step.
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4, cfg=2.0), z)
    step = run.steps[2]
    pull = start(Term(Look("z0"), Measure(mean_square), Schedule(gamma=4.0, site="noise")), run)
    prediction = pull.predict(z, step)
    gradient = 4 * gradient_of(lambda x: mean_square(run.denoiser.conditional(x, step).z0), z)
    eps = 2 * (0.4 * z + 0.1) + (1 - step.alpha_bar) ** 0.5 * gradient
    assert torch.allclose(prediction.eps, eps, rtol=1e-5, atol=1e-6)
    z0 = (z - (1 - step.alpha_bar) ** 0.5 * eps) / step.alpha_bar**0.5
    assert torch.allclose(prediction.z0, z0, rtol=1e-4, atol=1e-5)
    assert len(run.denoiser.observed) == 1


def test_noise_cannot_be_moved_where_there_is_nothing_else() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    pull = start(Term(Look("z"), Measure(square), Schedule(site="noise")), run)

    class Observed(LinearDenoiser):
        def conditional(self, z: Tensor, step: Step) -> Prediction:
            return Prediction(z, z)

    pull.run = replace(run, denoiser=Observed())
    pull.run.denoiser.predict = lambda z, step, conditional=None: Prediction(z, z)
    with pytest.raises(ConfigError, match="noise alone"):
        pull.predict(run.z_T, replace(run.steps[0], alpha_bar=0.0))


def test_z0_moves_and_keeps_the_noise_without_any_pass_and_may_repeat() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4, cfg=2.0), z)
    step = run.steps[1]
    pull = start(Term(Look("z0"), Measure(square), Schedule(gamma=0.1, repeats=3, site="z0")), run)
    plain = run.denoiser.predict(z, step)
    prediction = pull.predict(z, step)
    assert torch.equal(prediction.eps, plain.eps)
    assert torch.allclose(prediction.z0, 0.8**3 * plain.z0, rtol=1e-5)
    assert run.denoiser.observed == []
    assert pull.passes == 0


def test_z0_can_be_pulled_by_the_decoded_image() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("image"), Measure(square), Schedule(gamma=0.3, site="z0")), run)
    plain = run.denoiser.predict(z, run.steps[1])
    expected = plain.z0 - 0.3 * gradient_of(lambda x: square(torch.sigmoid(x)), plain.z0)
    assert torch.allclose(pull.predict(z, run.steps[1]).z0, expected, rtol=1e-5, atol=1e-6)
    assert run.denoiser.observed == []


def test_z0_with_maps_takes_its_gradient_at_z_in_the_shared_pass() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4), z)
    step = run.steps[1]
    pull = start(Term(Look("probs"), Measure(square), Schedule(gamma=0.6, site="z0")), run)
    plain = run.denoiser.predict(z, step)
    expected = plain.z0 - 0.6 * gradient_of(lambda x: square(torch.softmax(x, dim=1)), z)
    prediction = pull.predict(z, step)
    assert torch.equal(prediction.eps, plain.eps)
    assert torch.allclose(prediction.z0, expected, rtol=1e-5, atol=1e-6)
    assert len(run.denoiser.observed) == 1


def test_z0_with_maps_cannot_repeat() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    with pytest.raises(ConfigError, match="repeats and refine need site 'before'"):
        start(Term(Look("probs"), Measure(square), Schedule(site="z0", repeats=2)), run)


def test_the_sites_of_one_step_share_one_pass() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(slope=0.4), z)
    step = run.steps[1]
    sites = ("after", "noise", "z0")
    guidance = Guidance([Term(Look("probs"), Measure(square), Schedule(gamma=0.5, site=site), name=site) for site in sites])
    pull = guidance.start(run)
    prediction = pull.predict(z, step)
    gradient = 0.5 * gradient_of(lambda x: square(torch.softmax(x, dim=1)), z)
    eps = 0.4 * z + 0.1 + (1 - step.alpha_bar) ** 0.5 * gradient
    assert torch.allclose(prediction.eps, eps, rtol=1e-5, atol=1e-6)
    z0 = (z - (1 - step.alpha_bar) ** 0.5 * eps) / step.alpha_bar**0.5 - gradient
    assert torch.allclose(prediction.z0, z0, rtol=1e-4, atol=1e-5)
    assert torch.allclose(pull.after(z, step), z - gradient, rtol=1e-5, atol=1e-6)
    assert len(run.denoiser.observed) == 1


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


def test_no_pass_is_made_once_every_sample_has_stopped_for_good() -> None:
    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    term = Term(Look("probs"), Measure(square), Schedule(stop_below=1e9, stop_forever=True))
    sample(run, Guidance([term]))
    assert [index for index, _ in run.denoiser.observed] == [0]


@pytest.mark.parametrize("site", ["after", "noise"])
def test_stopping_for_good_works_at_the_sites_that_share_their_pass(site: str) -> None:
    z = scaled(0.1, 10.0).expand(2, 3, 2, 2).clone()
    run = make_run(LinearDenoiser(), z)
    term = Term(Look("z"), Measure(mean_square), Schedule(gamma=0.1, site=site, stop_below=0.25, stop_forever=True))
    _, pull = sample(run, Guidance([term]), lambda report: report.step.index < 1)
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
    _, pull = sample(run, Guidance([Term(Look("z"), Measure(square), schedule)]))
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
        return sample(run, guidance, lambda report: report.step.index + 1 < steps)

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


# ---- strength ----


@pytest.mark.parametrize("gamma", [0.3, -0.3])
@pytest.mark.parametrize("normalise", ["linf", "rms"])
def test_a_normalised_gradient_has_size_gamma_in_every_sample_and_none_where_there_is_none(normalise: str, gamma: float) -> None:
    z = torch.cat([draw(1, 1, 3, 4, 4), 1e-6 * draw(2, 1, 3, 4, 4), torch.zeros(1, 3, 4, 4), 1e6 * draw(4, 1, 3, 4, 4)])
    run = make_run(LinearDenoiser(), z)
    pull = start(Term(Look("z"), Measure(square), Schedule(gamma=gamma, normalise=normalise)), run)
    shift = z.double() - pull.before(z, run.steps[0]).double()
    assert torch.equal(shift[2], torch.zeros(3, 4, 4).double())
    for index, tolerance in ((0, 1e-5), (1, 1e-5), (3, 0.2)):  # beside a million, fp32 keeps .06 of a shift
        size = shift[index].abs().max() if normalise == "linf" else shift[index].square().mean().sqrt()
        assert float(size) == pytest.approx(abs(gamma), rel=tolerance)
    assert bool((shift[:2] * z[:2] * gamma >= 0).all())


def test_terms_with_and_without_normalisation_pull_together() -> None:
    z = draw(1, 2, 3, 4, 4)
    run = make_run(LinearDenoiser(), z)
    other = Measure(lambda maps: maps.flatten(1).sum(dim=1))
    terms = [
        Term(Look("probs"), Measure(square), Schedule(gamma=2.0, normalise="linf"), name="linf"),
        Term(Look("z"), Measure(square), Schedule(gamma=0.1), name="first"),
        Term(Look("probs"), Measure(square), Schedule(gamma=-3.0, normalise="rms"), name="rms"),
        Term(Look("z"), other, Schedule(gamma=0.5), name="second"),
    ]
    moved = Guidance(terms).start(run).before(z, run.steps[0])
    g = gradient_of(lambda x: square(torch.softmax(x, dim=1)), z)
    linf = g / g.abs().amax(dim=(1, 2, 3), keepdim=True)
    rms = g / g.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    assert torch.allclose(moved, z - 2 * linf + 3 * rms - 0.1 * 2 * z - 0.5, rtol=1e-5, atol=1e-5)


def test_the_step_of_layout_guidance_is_its_published_step_in_a_variance_exploding_sampler() -> None:
    z = draw(5, 2, 3, 6, 6)
    run = make_run(LinearDenoiser(), z, count=50)

    def energy(x: Tensor) -> Tensor:
        return (1 - torch.softmax(x, dim=1)[:, 0, :3, :3].sum(dim=(1, 2)) / torch.softmax(x, dim=1)[:, 0].sum(dim=(1, 2))) ** 2

    pull = start(Term(Look("z"), Measure(lambda maps: energy(maps[:, 0])), Schedule(gamma=30, decay="one_minus_alpha_bar")), run)
    for step in run.steps[:10:3]:
        variance = (1 - step.alpha_bar) / step.alpha_bar  # sigma^2
        x = z * (1 + variance) ** 0.5
        published = x - variance * gradient_of(lambda v, s=variance: 30 * energy(v / (1 + s) ** 0.5), x)
        expected = published / (1 + variance) ** 0.5 - z
        assert relative(pull.before(z, step) - z, expected) < 1e-5


# ---- errors, names ----


class Constant(Measure):
    def __call__(self, current: Any, target: Any) -> Any:
        return super().__call__(replace(current, maps=(current.maps[0].detach(),)), target)


def test_an_energy_that_does_not_depend_on_the_latent_is_refused_even_beside_one_that_does() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    stuck = Term(Look("z"), Constant(square), name="stuck")
    for terms in ([stuck], [Term(Look("z"), Measure(square), name="fine"), stuck]):
        with pytest.raises(ConfigError, match=r"term 'stuck': its energy does not depend on the latent"):
            Guidance(terms).start(run).before(run.z_T, run.steps[0])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda e: e.value, "a Tensor of shape [2]"),
        (lambda _: None, "None"),
        (lambda e: Energy.of(e.value.sum()), "an Energy whose value is a Tensor of shape []"),
        (lambda e: replace(e, watch=e.watch[:, None]), "an Energy whose watch is a Tensor of shape [2, 1]"),
        (lambda e: replace(e, watch=0.5), "an Energy whose watch is a float"),
        (lambda e: replace(e, refine=e.value[:1]), "an Energy whose refine is a Tensor of shape [1]"),
    ],
)
def test_a_distance_that_returns_no_energy_of_each_sample_is_refused(returned: Callable[[Energy], Any], said: str) -> None:
    class Mine(Measure):
        def __call__(self, current: Any, target: Any) -> Any:
            return returned(super().__call__(current, target))

    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    with pytest.raises(ConfigError) as caught:
        start(Term(Look("z"), Mine(square), name="mine"), run).before(run.z_T, run.steps[0])
    assert str(caught.value) == (
        f"term 'mine': distance Mine returned {said}; expected an Energy of tensors [b], one value for each sample, here [2]; "
        "lsregen.framework.testing.check_distance(Mine(...)) finds this"
    )


def test_an_extractor_that_returns_no_features_is_refused() -> None:
    class Mine(Look):
        def current(self, view: View, state: Any) -> Any:
            return view.z

    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    expected = (
        r"^term 'mine': current of extractor Mine returned a Tensor of shape \[2, 3, 4, 4\]; expected a Features; .*finds this$"
    )
    with pytest.raises(ConfigError, match=expected):
        start(Term(Mine("z"), Measure(square), name="mine"), run).before(run.z_T, run.steps[0])


@pytest.mark.parametrize(("dtype", "said"), [(torch.float16, "try --dtype fp32 or less"), (torch.float32, "try less")])
def test_a_wider_dtype_is_advised_only_where_there_is_one(dtype: torch.dtype, said: str) -> None:
    assert remedies(dtype, "less") == said


def test_an_energy_that_is_not_finite_is_refused_by_name_and_step() -> None:
    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    bad = Term(Look("z"), Measure(lambda maps: square(maps) * torch.tensor([1.0, float("nan")])), name="bad")
    for site in ("before", "after"):
        pull = start(replace(bad, schedule=Schedule(site=site)), run)
        with pytest.raises(NonFiniteError, match=r"term 'bad' at step 1 \(t=\d+\): its energy .*nan.* network in torch\.float32"):
            pull.before(run.z_T, run.steps[1]) if site == "before" else pull.predict(run.z_T, run.steps[1])


@pytest.mark.parametrize("normalise", ["none", "linf", "rms"])
def test_a_gradient_that_is_not_finite_is_refused_by_name_and_step(normalise: str) -> None:
    run = make_run(LinearDenoiser(), torch.zeros(1, 3, 2, 2))
    steep = Measure(lambda maps: maps.abs().sqrt().flatten(1).sum(dim=1))  # at 0: an energy of 0, a slope without bound
    with pytest.raises(
        NonFiniteError, match=r"term 'steep' at step 2 .*gradient is not finite, with the network in torch\.float32"
    ):
        start(Term(Look("z"), steep, Schedule(normalise=normalise), name="steep"), run).before(run.z_T, run.steps[2])


def test_a_distance_that_needs_a_target_names_the_extractor_that_has_none() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    pull = start(Term(Look("z", aim=None), L2(), name="pull"), run)
    with pytest.raises(ConfigError, match=r"'pull'.*L2 needs a target.*Look"):
        pull.before(run.z_T, run.steps[0])


PLACED = Region("cat", Box(0, 0, 0.5, 0.5))


@pytest.mark.parametrize(
    ("distance", "bare", "said"),
    [
        (
            BoxEnergy(),
            Layout((Region("cat"),)),
            "BoxEnergy needs a target, and extractor CrossAttention has none for the image of",
        ),
        (MaxToken(), Layout(), "extractor CrossAttention has nothing to look at in the image of"),
    ],
)
def test_what_an_image_lacks_alone_it_lacks_in_a_batch(distance: Any, bare: Layout, said: str) -> None:
    term = Term(CrossAttention(layers=("mid",)), distance, name="pull")
    prompts, z = ("a cat", "a cat"), draw(1, 2, 12, 4, 4)
    run = make_run(LinearDenoiser(prompts=prompts), z, layouts=[Layout((PLACED,)), bare], seed=5)
    with pytest.raises(ConfigError, match=f"term 'pull': .*{said} seed 6; give it"):
        start(term, run).before(z, run.steps[0])
    run = make_run(LinearDenoiser(prompts=prompts), z, layouts=[Layout((PLACED, Region("a"))), Layout((PLACED,))])
    start(term, run).before(z, run.steps[0])  # a phrase without a place beside one that has one is left out


def test_a_distance_that_does_not_accept_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MaxToken accepts features of kind attention, probability.*Look gives latent"):
        Term(Look("z"), MaxToken())


@pytest.mark.parametrize(
    ("extractor", "distance"),
    [(CrossAttention(), BoxEnergy()), (CrossAttention(), L2()), (Look("z"), L2(reduction="mean"))],
    ids=["no square", "no latents", "a mean"],
)
def test_a_blend_of_what_does_not_blend_is_refused(extractor: Any, distance: Any) -> None:
    with pytest.raises(ConfigError, match=r"term pull: blend 0.5: only a squared distance between latents"):
        Term(extractor, distance, Schedule(blend=0.5), "pull")


@pytest.mark.parametrize(
    ("looks", "site", "right"),
    [("z", "after", "before"), ("z", "noise", "before"), ("z0", "before", "z0"), ("z0", "noise", "z0")],
)
def test_a_blend_where_it_would_not_be_the_share_that_is_moved_is_refused(looks: str, site: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"term pull: blend 0.5 at site '{site}': .* only at site '{right}'"):
        Term(Look(looks), L2(), Schedule(blend=0.5, site=site), "pull")
    Term(Look(looks), L2(), Schedule(blend=0.5, site=right), "pull")


def test_a_pull_of_the_clean_estimate_by_what_looks_at_z_alone_is_refused_before_it_runs() -> None:
    with pytest.raises(ConfigError, match="term pull: extractor Look looks at z alone"):
        Term(Look("z"), L2(), Schedule(site="z0"), "pull")


def test_a_raster_rule_that_does_not_exist_is_refused_when_the_term_is_made() -> None:
    with pytest.raises(ConfigError, match=r"term pull: distance Measure: raster: 'aera' is not one of area"):
        Term(Look("z"), Measure(square, raster="aera"), name="pull")


def test_asking_a_view_for_what_the_pass_did_not_make_says_how_to_declare_it() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    view = View(run.z_T, run.steps[0], run.denoiser.observe(run.z_T, run.steps[0], pull_nothing()).taps)
    with pytest.raises(ConfigError, match="prediction=True"):
        _ = view.eps
    with pytest.raises(ConfigError, match="image=True"):
        view.image()


def pull_nothing() -> Any:
    from lsregen.framework.taps import Taps

    return Taps(())


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((L2(), Look("z")), "extractor: L2 is no extractor; the extractor comes first: Term(extractor, distance)"),
        (
            (CrossAttention, BoxEnergy),
            "extractor: the class CrossAttention is no extractor; write CrossAttention(...)",
        ),
        ((CrossAttention(), BoxEnergy), "distance: the class BoxEnergy is no distance; write BoxEnergy(...)"),
        (("cross_attention", L2()), "extractor: str is no extractor"),
        ((Look("z"), L2(), 3.0), "schedule: 3.0 is no schedule; write Schedule(gamma=...)"),
    ],
)
def test_what_no_term_is_made_of_is_refused(parts: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Term(*parts)
    assert str(caught.value) == f"term ?: {said}"


def test_terms_add_up_as_guidances_do() -> None:
    term = Term(Look("z"), L2())
    assert Guidance(term) == Guidance([term])
    assert Guidance(term) + term == Guidance([term, term])


def test_what_is_no_guidance_is_not_added() -> None:
    one: Any = Guidance(Term(Look("z"), L2()))
    expected = (
        r"guidance: 'layout-guidance' is no term; expected Term\(extractor, distance\), or a list of them; a preset's: pipeline"
    )
    with pytest.raises(ConfigError, match=expected):
        _ = one + "layout-guidance"
    with pytest.raises(ConfigError, match=r"guidance: 3 is no term; expected Term\(extractor, distance\), or a list of them$"):
        one.__add__([*one.terms, 3])


def test_guidances_add_up_and_every_term_keeps_a_name_of_its_own() -> None:
    one = Guidance([Term(Look("z"), L2())])
    named = Guidance([Term(Look("z"), L2(), name="L2#2")])
    three = one + named + one + one
    names = [term.name for term in three.terms]
    assert len(set(names)) == 4
    assert names[:2] == ["L2", "L2#2"]
