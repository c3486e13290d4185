"""The schedule against diffusers' own numbers, the published table, and what it refuses."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from lsregen.framework.errors import ConfigError
from lsregen.framework.types import NoiseSchedule
from lsregen.samplers.timesteps import alpha_bars, chained_steps, spaced_timesteps, steps


def oracle(noise: NoiseSchedule) -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=noise.train_steps,
        beta_start=noise.beta_start,
        beta_end=noise.beta_end,
        beta_schedule=noise.beta_schedule,
        timestep_spacing=noise.spacing,
        steps_offset=noise.steps_offset,
        set_alpha_to_one=noise.final_alpha_one,
        rescale_betas_zero_snr=noise.zero_terminal_snr,
        clip_sample=False,
    )


@pytest.mark.parity
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_alpha_bars_are_those_of_diffusers(beta_schedule: str, zero_terminal_snr: bool) -> None:
    noise = NoiseSchedule(beta_schedule=beta_schedule, zero_terminal_snr=zero_terminal_snr)
    ours, theirs = alpha_bars(noise), oracle(noise).alphas_cumprod.double()
    assert ours.dtype == torch.float64
    assert ours.shape == (1000,)
    assert (ours / theirs - 1).nan_to_num().abs().max() <= 1e-6
    assert (ours - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("t", "alpha_bar"),
    [
        (999, 0.00466),
        (981, 0.00578),
        (951, 0.00816),
        (901, 0.01400),
        (801, 0.03655),
        (701, 0.0819),
        (501, 0.2750),
        (301, 0.5888),
        (101, 0.8930),
        (0, 1 - 0.00085),
    ],
)
def test_alpha_bars_of_the_default_schedule_are_the_published_ones(t: int, alpha_bar: float) -> None:
    assert float(alpha_bars(NoiseSchedule())[t]) == pytest.approx(alpha_bar, rel=1.5e-3)


def test_alpha_bars_of_a_schedule_worked_by_hand() -> None:
    linear = NoiseSchedule(train_steps=3, beta_start=0.1, beta_end=0.3, beta_schedule="linear")
    assert alpha_bars(linear).tolist() == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], abs=1e-6)
    scaled = NoiseSchedule(train_steps=3, beta_start=0.01, beta_end=0.25)  # square roots .1, .3, .5
    assert alpha_bars(scaled).tolist() == pytest.approx([0.99, 0.99 * 0.91, 0.99 * 0.91 * 0.75], abs=1e-6)


def test_zero_terminal_snr_ends_without_signal_and_starts_as_before() -> None:
    rescaled = alpha_bars(NoiseSchedule(zero_terminal_snr=True))
    assert float(rescaled[-1]) == 0.0
    assert float(rescaled[0]) == pytest.approx(float(alpha_bars(NoiseSchedule())[0]), abs=1e-6)
    assert bool((rescaled[1:] < rescaled[:-1]).all())


@pytest.mark.parity
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_those_of_diffusers_for_every_count(spacing: str) -> None:
    noise = NoiseSchedule(spacing=spacing)
    scheduler = oracle(noise)
    for count in range(1, 1000):
        scheduler.set_timesteps(count)
        ours = spaced_timesteps(noise, count)
        # For some counts rounding gives diffusers' trailing spacing one timestep too many, at -1.
        assert ours == scheduler.timesteps.tolist()[:count], count
        assert len(set(ours)) == count
        assert all(0 <= t <= 999 for t in ours)


def test_timesteps_of_ten_steps() -> None:
    assert spaced_timesteps(NoiseSchedule(), 10) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert spaced_timesteps(NoiseSchedule(steps_offset=0), 4) == [750, 500, 250, 0]
    assert spaced_timesteps(NoiseSchedule(spacing="trailing"), 4) == [999, 749, 499, 249]
    assert spaced_timesteps(NoiseSchedule(spacing="linspace"), 4) == [999, 666, 333, 0]


@pytest.mark.parametrize("final_alpha_one", [False, True])
def test_steps_number_themselves_and_follow_the_table(final_alpha_one: bool) -> None:
    noise = NoiseSchedule(final_alpha_one=final_alpha_one)
    table: list[float] = alpha_bars(noise).tolist()
    walk = steps(noise, 20)
    assert [(step.index, step.count, step.t) for step in walk] == [(i, 20, 951 - 50 * i) for i in range(20)]
    assert [step.alpha_bar for step in walk] == [table[step.t] for step in walk]
    assert [step.alpha_bar_prev for step in walk[:-1]] == [table[step.t - 50] for step in walk[:-1]]
    assert walk[-1].alpha_bar_prev == (1.0 if final_alpha_one else table[0])
    assert all(type(step.alpha_bar) is float and type(step.alpha_bar_prev) is float for step in walk)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_chained_steps_meet_and_end_clean(spacing: str) -> None:
    walk = chained_steps(NoiseSchedule(spacing=spacing), 7)
    assert [step.alpha_bar_prev for step in walk] == [step.alpha_bar for step in walk[1:]] + [1.0]
    assert [step.t for step in walk] == spaced_timesteps(NoiseSchedule(spacing=spacing), 7)


@pytest.mark.parametrize(
    ("count", "mend"), [(0, "use 1 or more"), (-3, "use 1 or more"), (1001, "use 1000 or fewer"), (10**9, "use 1000 or fewer")]
)
def test_a_count_outside_the_schedule_is_refused(count: int, mend: str) -> None:
    for build in (spaced_timesteps, steps, chained_steps):
        with pytest.raises(ConfigError, match=f"steps {count}: .* 1 to 1000 steps; {mend}"):
            build(NoiseSchedule(), count)


def test_an_offset_past_the_schedule_is_refused_with_a_count_that_fits() -> None:
    with pytest.raises(ConfigError, match=r"steps 1000: .*steps_offset 1 .* use 999 steps"):
        steps(NoiseSchedule(), 1000)
    assert len(steps(NoiseSchedule(), 999)) == 999
    assert len(steps(NoiseSchedule(steps_offset=0), 1000)) == 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_schedule": "scaled-linear"}, "beta_schedule 'scaled-linear'.*did you mean 'scaled_linear'"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'.*one of linear, scaled_linear"),
        ({"spacing": "traling"}, "spacing 'traling'.*did you mean 'trailing'"),
        ({"train_steps": 1}, "train_steps 1 is below 2"),
        ({"beta_start": 0.0}, "beta_start 0.0 and beta_end 0.012"),
        ({"beta_end": float("nan")}, "beta_end.*nan"),
        ({"steps_offset": -1}, "steps_offset -1 is outside 0 to 999"),
    ],
)
def test_a_schedule_that_cannot_be_computed_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steps(NoiseSchedule(**settings), 10)
