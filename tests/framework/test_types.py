"""Steps, predictions, and the services of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lsregen.framework.errors import ConfigError
from lsregen.framework.types import Energy, Prediction, Step
from lsregen.samplers.ddim import DDIM
from tests.toys import LinearDenoiser, draw, make_run

STEP = Step(3, 10, 601, 0.3, 0.5)


def test_the_fraction_is_the_share_of_the_steps_made() -> None:
    assert STEP.fraction == pytest.approx(0.3)
    assert Step(0, 10, 999, 0.1, 0.2).fraction == 0


def test_a_prediction_splits_z_into_signal_and_noise_whichever_way_it_comes() -> None:
    z0, eps = draw(0, 2, 3, 4, 4, dtype=torch.float64), draw(1, 2, 3, 4, 4, dtype=torch.float64)
    z = 0.3**0.5 * z0 + 0.7**0.5 * eps
    v = 0.3**0.5 * eps - 0.7**0.5 * z0
    for prediction in (Prediction.from_eps(z, eps, STEP), Prediction.from_v(z, v, STEP)):
        assert torch.allclose(prediction.z0, z0)
        assert torch.allclose(prediction.eps, eps)


def test_a_velocity_gives_z0_even_where_no_signal_is_left() -> None:
    z, v = draw(0, 1, 3, 4, 4), draw(1, 1, 3, 4, 4)
    prediction = Prediction.from_v(z, v, Step(0, 10, 999, 0.0, 0.1))
    assert torch.equal(prediction.z0, -v)
    assert torch.equal(prediction.eps, z)


def test_an_energy_that_is_its_own_watch_is_watched_without_gradient() -> None:
    value = torch.ones(2, requires_grad=True) * 2
    energy = Energy.of(value)
    assert energy.value is value
    assert not energy.watch.requires_grad
    assert energy.refine is None


def test_noise_belongs_to_the_sample_whatever_the_batch() -> None:
    sampler = DDIM(eta=1.0)
    together = make_run(LinearDenoiser(), draw(0, 3, 3, 4, 4), sampler=sampler, seed=5)
    alone = make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4), sampler=sampler, seed=6)
    for step in together.steps:
        drawn, single = together.noise(step), alone.noise(step)
        assert drawn is not None
        assert single is not None
        assert torch.equal(drawn[1], single[0])
        assert not torch.equal(drawn[0], drawn[1])


def test_a_deterministic_sampler_draws_no_noise() -> None:
    run = make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4))
    assert run.noise(run.steps[0]) is None


def test_inversion_leads_back_to_the_latent_it_came_from() -> None:
    denoiser = LinearDenoiser(slope=0.2, offset=0.1)
    run = make_run(denoiser, draw(0, 2, 3, 4, 4, dtype=torch.float64), count=200)
    z0 = draw(1, 2, 3, 4, 4, dtype=torch.float64)
    found = run.invert(z0)
    assert sorted(found) == list(range(200))
    z = found[0]
    for step in run.steps:
        z = run.sampler.step(z, run.denoiser.predict(z, step), step, None)
    assert float((z - z0).abs().max()) < 0.02 * float(z0.abs().max())
    assert {(len(taps.wanted), taps.full) for _, taps in denoiser.observed} == {(0, True)}


def test_inversion_asks_at_the_target_timestep_about_a_latent_at_the_source_level() -> None:
    asked: list[Step] = []

    class Asked(LinearDenoiser):
        def observe(self, z: Any, step: Step, taps: Any) -> Any:
            asked.append(step)
            return super().observe(z, step, taps)

    run = make_run(Asked(), draw(0, 1, 3, 4, 4), count=4)
    run.invert(run.z_T)
    assert [(step.t, step.alpha_bar) for step in asked] == [(step.t, step.alpha_bar_prev) for step in reversed(run.steps)]


def test_a_run_without_a_pipeline_cannot_render() -> None:
    with pytest.raises(ConfigError, match="not started by a Pipeline"):
        make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4)).render({})
