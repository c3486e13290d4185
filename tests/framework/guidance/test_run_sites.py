"""The update rule at the sites that share the denoising pass, against formulas written out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lsregen.framework.errors import ConfigError
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.types import Prediction, Step
from tests.near import near
from tests.toys import LinearDenoiser, Look, Measure, draw, gradient_of, make_run, mean_square, square, start


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
    assert near(prediction.eps, plain.eps)
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
    assert near(prediction.eps, plain.eps)
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
    pull = start(guidance, run)
    prediction = pull.predict(z, step)
    gradient = 0.5 * gradient_of(lambda x: square(torch.softmax(x, dim=1)), z)
    eps = 0.4 * z + 0.1 + (1 - step.alpha_bar) ** 0.5 * gradient
    assert torch.allclose(prediction.eps, eps, rtol=1e-5, atol=1e-6)
    z0 = (z - (1 - step.alpha_bar) ** 0.5 * eps) / step.alpha_bar**0.5 - gradient
    assert torch.allclose(prediction.z0, z0, rtol=1e-4, atol=1e-5)
    assert torch.allclose(pull.after(z, step), z - gradient, rtol=1e-5, atol=1e-6)
    assert len(run.denoiser.observed) == 1
