"""DDPM against diffusers' DDPM with the same noise, against DDIM with eta 1, and against numbers worked by hand."""

from collections.abc import Callable
from typing import Any

import diffusers.schedulers.scheduling_ddpm as diffusers_ddpm
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from lsregen.framework.errors import ConfigError
from lsregen.framework.types import NoiseSchedule, Prediction, Step
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM

SHAPE = (2, 4, 6, 5)
COUNT = 10
Split = Callable[[Tensor, Tensor, Step], Prediction]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


MIX = draw(7, 4, 4) / 2


def network(z: Tensor, t: int) -> Tensor:
    """A stand-in for a trained network: bounded, nonlinear, aware of the timestep."""
    return torch.tanh(torch.einsum("dc,bchw->bdhw", MIX, z) + t / 1000)


def oracle_walk(noise: NoiseSchedule, prediction_type: str, z: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    scheduler = DDPMScheduler(
        beta_start=noise.beta_start,
        beta_end=noise.beta_end,
        beta_schedule=noise.beta_schedule,
        timestep_spacing=noise.spacing,
        steps_offset=noise.steps_offset,
        rescale_betas_zero_snr=noise.zero_terminal_snr,
        prediction_type=prediction_type,
        variance_type="fixed_small",
        clip_sample=False,
    )
    scheduler.set_timesteps(COUNT)
    trajectory = [z]
    for index, t in enumerate(scheduler.timesteps.tolist()):

        def same_noise(*_: Any, seed: int = index, **__: Any) -> Tensor:
            return draw(seed)

        # The scheduler draws its own noise; here it is handed ours.
        monkeypatch.setattr(diffusers_ddpm, "randn_tensor", same_noise)
        z = scheduler.step(network(z, t), t, z).prev_sample
        trajectory.append(z)
    return trajectory


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative difference over a trajectory."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("noise", "split", "prediction_type"),
    [
        (NoiseSchedule(), Prediction.from_eps, "epsilon"),
        (NoiseSchedule(steps_offset=0), Prediction.from_eps, "epsilon"),
        (NoiseSchedule(spacing="trailing"), Prediction.from_eps, "epsilon"),
        (NoiseSchedule(spacing="linspace"), Prediction.from_eps, "epsilon"),
        (NoiseSchedule(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"), Prediction.from_eps, "epsilon"),
        (NoiseSchedule(spacing="trailing", zero_terminal_snr=True), Prediction.from_v, "v_prediction"),
    ],
)
def test_trajectory_equals_diffusers(
    noise: NoiseSchedule, split: Split, prediction_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = draw(99)
    ours = [z]
    for step in DDPM().schedule(noise, COUNT):
        z = DDPM().step(z, split(z, network(z, step.t), step), step, draw(step.index))
        ours.append(z)
    assert worst(ours, oracle_walk(noise, prediction_type, draw(99), monkeypatch)) <= 1e-5


@pytest.mark.parametrize("schedule", [DDIM().schedule, DDPM().schedule])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_ddpm_is_ddim_with_eta_one(schedule: Callable[..., tuple[Step, ...]], zero_terminal_snr: bool) -> None:
    z, v, noise = draw(1), draw(2), draw(3)
    for step in schedule(NoiseSchedule(spacing="trailing", zero_terminal_snr=zero_terminal_snr), COUNT):
        prediction = Prediction.from_v(z, v, step)
        assert worst([DDPM().step(z, prediction, step, noise)], [DDIM(1.0).step(z, prediction, step, noise)]) <= 1e-5


def test_a_step_worked_by_hand() -> None:
    # alpha_bar .25 -> .64: alpha = .390625, beta = .609375; z0 = 2, z = 1.
    # Mean (equation 7): (.8 * .609375 * 2 + .625 * .36 * 1) / .75 = 1.6; variance .36 / .75 * .609375 = .2925.
    step, z = Step(0, 1, 500, 0.25, 0.64), torch.ones(1, 1, 1, 1)
    prediction = Prediction(torch.zeros_like(z), 2 * z)
    assert float(DDPM().step(z, prediction, step, torch.zeros_like(z))) == pytest.approx(1.6, abs=1e-6)
    assert float(DDPM().step(z, prediction, step, torch.ones_like(z))) == pytest.approx(1.6 + 0.5408327, abs=1e-6)


def test_the_last_step_adds_no_noise_and_gives_z0() -> None:
    last, z, z0 = DDPM().schedule(NoiseSchedule(), COUNT)[-1], draw(1), draw(2)
    assert worst([DDPM().step(z, Prediction(draw(3), z0), last, draw(4))], [z0]) <= 1e-6


def test_inversion_is_that_of_ddim_and_undoes_its_steps() -> None:
    z, eps = draw(1), draw(2)
    for step in DDPM().schedule(NoiseSchedule(), COUNT):
        prediction = Prediction.from_eps(z, eps, step)
        walked = DDIM().step(z, prediction, step, None)
        back = DDPM().invert_step(walked, prediction, step)
        assert torch.equal(back, DDIM().invert_step(walked, prediction, step))
        assert worst([back], [z]) <= 1e-4


def test_a_step_needs_its_noise() -> None:
    step, z = DDPM().schedule(NoiseSchedule(), COUNT)[0], draw(1)
    assert DDPM().stochastic
    with pytest.raises(ConfigError, match="given None"):
        DDPM().step(z, Prediction(z, z), step, None)


def test_steps_leave_their_inputs_alone_and_repeat_exactly() -> None:
    step, inputs = DDPM().schedule(NoiseSchedule(), COUNT)[3], [draw(seed) for seed in range(4)]
    kept = [tensor.clone() for tensor in inputs]
    z, eps, z0, noise = inputs
    first = DDPM().step(z, Prediction(eps, z0), step, noise)
    assert torch.equal(first, DDPM().step(z, Prediction(eps, z0), step, noise))
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))


@pytest.mark.xfail(strict=True, reason="DDPM has the fixed small variance only", raises=TypeError)
def test_the_fixed_large_variance_of_diffusers() -> None:
    scheduler = DDPMScheduler(variance_type="fixed_large", clip_sample=False)
    scheduler.set_timesteps(COUNT)
    sampler: Any = DDPM(variance="large")  # pyright: ignore[reportCallIssue]
    step = sampler.schedule(NoiseSchedule(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"), COUNT)[3]
    z, eps, noise = draw(1), draw(2), draw(3)
    mean = scheduler.step(eps, step.t, z, generator=torch.Generator().manual_seed(0)).prev_sample
    theirs = mean - scheduler._get_variance(step.t) ** 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    expected = theirs + scheduler._get_variance(step.t) ** 0.5 * noise
    assert (sampler.step(z, Prediction.from_eps(z, eps, step), step, noise) - expected).abs().max() <= 2e-5
