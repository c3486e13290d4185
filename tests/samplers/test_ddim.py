"""DDIM against diffusers' DDIM and inverse DDIM, against numbers worked by hand, and against itself."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from lsregen.framework.errors import ConfigError
from lsregen.framework.types import NoiseSchedule, Prediction, Step
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.timesteps import alpha_bars

SHAPE = (2, 4, 6, 5)
COUNT = 10
Split = Callable[[Tensor, Tensor, Step], Prediction]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


MIX = draw(7, 4, 4) / 2


def network(z: Tensor, t: int) -> Tensor:
    """A stand-in for a trained network: bounded, nonlinear, aware of the timestep."""
    return torch.tanh(torch.einsum("dc,bchw->bdhw", MIX, z) + t / 1000)


def settings(noise: NoiseSchedule, prediction_type: str, **more: Any) -> dict[str, Any]:
    return {
        "num_train_timesteps": noise.train_steps,
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "beta_schedule": noise.beta_schedule,
        "timestep_spacing": noise.spacing,
        "steps_offset": noise.steps_offset,
        "set_alpha_to_one": noise.final_alpha_one,
        "rescale_betas_zero_snr": noise.zero_terminal_snr,
        "prediction_type": prediction_type,
        "clip_sample": False,
        **more,
    }


def walk(sampler: DDIM, noise: NoiseSchedule, split: Split, z: Tensor, count: int = COUNT) -> list[Tensor]:
    trajectory = [z]
    for step in sampler.schedule(noise, count):
        z = sampler.step(z, split(z, network(z, step.t), step), step, draw(step.index))
        trajectory.append(z)
    return trajectory


def oracle_walk(scheduler: DDIMScheduler, eta: float, z: Tensor, count: int = COUNT, first: int = 0) -> list[Tensor]:
    """What diffusers makes of `z`, from the step `first` on."""
    scheduler.set_timesteps(count)
    trajectory = [z]
    for index, t in list(enumerate(scheduler.timesteps.tolist()))[first:]:
        z = scheduler.step(network(z, t), t, z, eta=eta, variance_noise=draw(index) if eta else None).prev_sample
        trajectory.append(z)
    return trajectory


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative difference over a trajectory."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("final_alpha_one", [False, True])
def test_trajectory_equals_diffusers(eta: float, spacing: str, final_alpha_one: bool) -> None:
    noise = NoiseSchedule(spacing=spacing, final_alpha_one=final_alpha_one)
    ours = walk(DDIM(eta), noise, Prediction.from_eps, draw(99))
    theirs = oracle_walk(DDIMScheduler(**settings(noise, "epsilon")), eta, draw(99))
    assert worst(ours, theirs) <= 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("count", [1, 3, 7, 30])
def test_counts_that_do_not_divide_the_schedule_equal_diffusers(count: int) -> None:
    noise = NoiseSchedule(spacing="trailing")
    ours = walk(DDIM(), noise, Prediction.from_eps, draw(99), count)
    theirs = oracle_walk(DDIMScheduler(**settings(noise, "epsilon")), 0.0, draw(99), count)
    assert worst(ours, theirs) <= 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_zero_terminal_snr_with_v_prediction_equals_diffusers(eta: float) -> None:
    """At eta 1 from the second step on.

    Out of noise alone the share of eps is exactly zero at eta 1. diffusers computes it as the root of a difference in float32, so
    of a rounding error: up to 3e-4 instead of 0, or NaN. That step is tested against exact arithmetic below.
    """
    noise = NoiseSchedule(spacing="trailing", zero_terminal_snr=True)
    first = 1 if eta == 1 else 0
    ours = walk(DDIM(eta), noise, Prediction.from_v, draw(99))[first:]
    theirs = oracle_walk(DDIMScheduler(**settings(noise, "v_prediction")), eta, ours[0], first=first)
    assert DDIM().schedule(noise, COUNT)[0].alpha_bar == 0.0
    assert worst(ours, theirs) <= 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("count", [1, COUNT, 1000])
def test_no_digits_are_lost_beside_exact_arithmetic(eta: float, zero_terminal_snr: bool, count: int) -> None:
    """Equations 12 and 16 in fractions, rounded once: what a step multiplies z0, eps and the noise by."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for step in DDIM().schedule(NoiseSchedule(spacing="trailing", zero_terminal_snr=zero_terminal_snr), count):
        start, end = Fraction(step.alpha_bar), Fraction(step.alpha_bar_prev)
        variance = Fraction(eta) ** 2 * (1 - end) / (1 - start) * (1 - start / end)
        shares = [float(square) ** 0.5 for square in (end, 1 - end - variance, variance)]
        for i, share in enumerate(shares):
            z0, eps, drawn = (one * (i == j) for j in range(3))
            assert float(DDIM(eta).step(one, Prediction(eps, z0), step, drawn)) == pytest.approx(share, rel=1e-12, abs=0)


@pytest.mark.parity
def test_a_prediction_with_a_clipped_z0_is_diffusers_clip_sample() -> None:
    noise = NoiseSchedule(clip_sample=1.0)

    def split(z: Tensor, eps: Tensor, step: Step) -> Prediction:
        pair = Prediction.from_eps(z, eps, step)
        return replace(pair, z0=pair.z0.clamp(-noise.clip_sample, noise.clip_sample))

    ours = walk(DDIM(), noise, split, draw(99))
    clipping = settings(noise, "epsilon", clip_sample=True, clip_sample_range=noise.clip_sample)
    assert worst(ours, oracle_walk(DDIMScheduler(**clipping), 0.0, draw(99))) <= 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("split", "prediction_type"), [(Prediction.from_eps, "epsilon"), (Prediction.from_v, "v_prediction")])
def test_inversion_equals_diffusers(spacing: str, split: Split, prediction_type: str) -> None:
    noise = NoiseSchedule(spacing=spacing)
    scheduler = DDIMInverseScheduler(**settings(noise, prediction_type))
    scheduler.set_timesteps(COUNT)
    rising = DDIM().schedule(noise, COUNT)[::-1]
    assert [step.t for step in rising] == scheduler.timesteps.tolist()
    ours = theirs = draw(99)
    for step in rising:
        # The latent still stands at the source level: that is the level at which v splits into eps and z0.
        prediction = split(ours, network(ours, step.t), replace(step, alpha_bar=step.alpha_bar_prev))
        ours = DDIM().invert_step(ours, prediction, step)
        theirs = scheduler.step(network(theirs, step.t), step.t, theirs).prev_sample
        assert worst([ours], [theirs]) <= 1e-5


def test_inversion_with_eps_does_not_depend_on_the_level_of_the_split() -> None:
    step, z, eps = DDIM().schedule(NoiseSchedule(), COUNT)[4], draw(1), draw(2)
    at_target = DDIM().invert_step(z, Prediction.from_eps(z, eps, step), step)
    at_source = DDIM().invert_step(z, Prediction.from_eps(z, eps, replace(step, alpha_bar=step.alpha_bar_prev)), step)
    assert torch.equal(at_target, at_source)


def test_a_step_worked_by_hand() -> None:
    # alpha_bar .25 -> .64; z0 = 2, eps = 1, so z = .5 * 2 + sqrt(.75) = 1.8660254.
    step, z = Step(0, 1, 500, 0.25, 0.64), torch.full((1, 1, 1, 1), 1.8660254)
    prediction = Prediction.from_eps(z, torch.ones_like(z), step)
    assert float(prediction.z0) == pytest.approx(2.0, abs=1e-6)
    # Equation 12 with sigma 0: .8 * 2 + sqrt(.36) * 1 = 2.2.
    assert float(DDIM().step(z, prediction, step, None)) == pytest.approx(2.2, abs=1e-6)
    # Equation 16: sigma^2 = .36 / .75 * (1 - .25 / .64) = .2925; eps keeps sqrt(.36 - .2925) = .2598076.
    noisy = DDIM(1.0).step(z, prediction, step, torch.full_like(z, -1.0))
    assert float(noisy) == pytest.approx(1.6 + 0.2598076 - 0.5408327, abs=1e-6)
    # Half of sigma: sigma^2 = .073125; eps keeps sqrt(.36 - .073125) = .5356071.
    assert float(DDIM(0.5).step(z, prediction, step, torch.full_like(z, -1.0))) == pytest.approx(1.6 + 0.5356071 - 0.2704163)
    # Backwards from 2.2 with the same eps.
    assert float(DDIM().invert_step(torch.full_like(z, 2.2), prediction, step)) == pytest.approx(1.8660254, abs=1e-6)


def test_inversion_undoes_a_step_made_with_the_same_eps() -> None:
    z, eps = draw(1), draw(2)
    for step in DDIM().schedule(NoiseSchedule(spacing="trailing"), COUNT):
        prediction = Prediction.from_eps(z, eps, step)
        back = DDIM().invert_step(DDIM().step(z, prediction, step, None), prediction, step)
        assert worst([back], [z]) <= 1e-4


def round_trip_error(count: int) -> float:
    """Image to noise and back with the exact, linear eps of data with variance 1/4; in float64, so no rounding."""
    noise, clean = NoiseSchedule(spacing="trailing"), draw(3).double() / 2
    table: list[float] = alpha_bars(noise).tolist()
    z, falling = clean, DDIM().schedule(noise, count)

    def predict(z: Tensor, step: Step, level: float) -> Prediction:
        share = table[step.t]
        eps = (1 - share) ** 0.5 / (share / 4 + 1 - share) * z
        return Prediction.from_eps(z, eps, replace(step, alpha_bar=level))

    for step in falling[::-1]:
        z = DDIM().invert_step(z, predict(z, step, step.alpha_bar_prev), step)
    for step in falling:
        z = DDIM().step(z, predict(z, step, step.alpha_bar), step, None)
    return worst([z], [clean])


def test_round_trip_closes_as_the_steps_shrink() -> None:
    coarse, fine = round_trip_error(100), round_trip_error(500)
    assert fine <= 5e-3
    assert fine <= coarse / 4  # first order: a fifth of the step, about a fifth of the error


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(ConfigError, match=f"eta: {eta} is out of range; expected a number from 0 to 1"):
        DDIM(eta)


def test_a_stochastic_step_needs_its_noise() -> None:
    step, z = DDIM().schedule(NoiseSchedule(), COUNT)[0], draw(1)
    assert DDIM(0.5).stochastic
    assert not DDIM().stochastic
    with pytest.raises(ConfigError, match="given None"):
        DDIM(0.5).step(z, Prediction(z, z), step, None)


def test_steps_leave_their_inputs_alone_and_repeat_exactly() -> None:
    step, inputs = DDIM().schedule(NoiseSchedule(), COUNT)[3], [draw(seed) for seed in range(4)]
    kept = [tensor.clone() for tensor in inputs]
    z, eps, z0, noise = inputs
    first = DDIM(0.5).step(z, Prediction(eps, z0), step, noise), DDIM().invert_step(z, Prediction(eps, z0), step)
    again = DDIM(0.5).step(z, Prediction(eps, z0), step, noise), DDIM().invert_step(z, Prediction(eps, z0), step)
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(tensor.dtype == torch.float32 for tensor in first)


def test_from_until_on_steps_are_those_without_noise() -> None:
    steps = DDIM().schedule(NoiseSchedule(), 10)
    z, noise = draw(0), draw(1)
    predictions = [Prediction.from_eps(z, 0.5 * z, step) for step in steps]
    noisy, quiet, both = DDIM(0.5), DDIM(), DDIM(0.5, until=0.3)
    assert both.stochastic
    for step, prediction in zip(steps, predictions, strict=True):
        same = noisy if step.index < 3 else quiet
        assert torch.equal(both.step(z, prediction, step, noise), same.step(z, prediction, step, noise))
    assert torch.equal(
        DDIM(0.5, until=0.0).step(z, predictions[0], steps[0], noise), quiet.step(z, predictions[0], steps[0], None)
    )


def test_an_end_of_the_noise_outside_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"until: 1\.5 is out of range"):
        DDIM(until=1.5)


def test_without_eta_the_noise_is_not_looked_at() -> None:
    step, z = DDIM().schedule(NoiseSchedule(), COUNT)[3], draw(1)
    prediction = Prediction.from_eps(z, draw(2), step)
    assert torch.equal(DDIM().step(z, prediction, step, None), DDIM().step(z, prediction, step, draw(3)))


def test_a_step_is_differentiable_and_the_sampler_frozen() -> None:
    step, z = DDIM().schedule(NoiseSchedule(), COUNT)[3], draw(1).requires_grad_()
    DDIM().step(z, Prediction.from_eps(z, network(z, step.t), step), step, None).sum().backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    with pytest.raises(FrozenInstanceError):
        DDIM().eta = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("eta", ["1", float("nan"), float("inf")])
def test_an_eta_that_is_no_number_is_refused_in_python_too(eta: Any) -> None:
    with pytest.raises(ConfigError, match=f"DDIM: eta: {eta!r} is not a number"):
        DDIM(eta=eta)
