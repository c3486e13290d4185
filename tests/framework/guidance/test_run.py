"""The update rule ahead of the denoising pass, its norms, and how terms add up, against formulas written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lsregen.distances.l2 import L2
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from tests.toys import LinearDenoiser, Look, Measure, draw, gradient_of, make_run, mean_square, relative, sampled, square, start

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
    pull = start(terms, run)
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
    sampled(run, Guidance([Term(Look("z0"), Measure(square), Schedule(gamma=0.01, from_=0.3, until=0.6))]))
    assert [index for index, _ in run.denoiser.observed] == [3, 4, 5]


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
    moved = start(terms, run).before(z, run.steps[0])
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


# ---- names ----


def test_terms_add_up_as_guidances_do() -> None:
    term = Term(Look("z"), L2())
    assert Guidance(term) == Guidance([term])
    assert Guidance(term) + term == Guidance([term, term])


def test_guidances_add_up_and_every_term_keeps_a_name_of_its_own() -> None:
    one = Guidance([Term(Look("z"), L2())])
    named = Guidance([Term(Look("z"), L2(), name="L2#2")])
    three = one + named + one + one
    names = [term.name for term in three.terms]
    assert len(set(names)) == 4
    assert names[:2] == ["L2", "L2#2"]


@pytest.mark.parametrize("normalise", ["none", "rms"])
def test_a_negative_gamma_pushes_away(normalise: str) -> None:
    z = draw(0, 2, 4, 3, 3)
    run = make_run(LinearDenoiser(), z)
    pull, push = (
        start(Term(Look(), Measure(square), Schedule(gamma=gamma, normalise=normalise)), run).before(z, run.steps[0])
        for gamma in (0.1, -0.1)
    )
    assert torch.allclose(pull - z, z - push)
    assert bool((square(pull[:, None]) < square(z[:, None])).all())
    assert bool((square(push[:, None]) > square(z[:, None])).all())
