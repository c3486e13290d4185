"""Every sampler conforms, and for every property there is one that lacks just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import discover
from lsregen.framework.testing import SAMPLER_PROPERTIES, check_sampler
from lsregen.framework.testing.inputs import alpha_bars
from lsregen.framework.types import NoiseSchedule, Prediction
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM
from lsregen.samplers.timesteps import alpha_bars as published_alpha_bars
from tests.framework.testing.broken import Unexplained, assert_lacks_only, refuse, variant

PLUGINS = discover(only=())


def test_the_built_ins_are_looked_at() -> None:
    assert {"ddim", "ddpm"} <= set(PLUGINS.samplers)


@pytest.mark.parametrize("name", PLUGINS.samplers)
def test_every_sampler_conforms(name: str) -> None:
    conformance = check_sampler(PLUGINS.sampler(name).cls())
    assert conformance.held == tuple(SAMPLER_PROPERTIES)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_sampler_conforms_with_noise(eta: float) -> None:
    check_sampler(DDIM(eta=eta))


@pytest.mark.parametrize("noise", [NoiseSchedule(), NoiseSchedule(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)])
def test_the_levels_of_the_kit_are_the_published_ones(noise: NoiseSchedule) -> None:
    assert torch.allclose(alpha_bars(noise), published_alpha_bars(noise), rtol=1e-4)


def schedule(change: Callable[[list[Any]], Any]) -> Any:
    """A sampler whose schedule is changed."""
    return variant(DDIM, {"schedule": lambda self, noise, count: change(list(DDIM().schedule(noise, count)))})


def step(change: Callable[[Tensor, Tensor, Prediction, Any], Tensor], base: type = DDIM, **attributes: Any) -> Any:
    """A sampler whose step is changed, given the right result and its arguments."""
    changed = {"step": lambda self, z, p, s, noise: change(base().step(z, p, s, noise), z, p, s)}
    return variant(base, {**changed, **attributes})


def swapped(steps: list[Any]) -> tuple[Any, ...]:
    """Two steps in the middle of a long schedule, the wrong way round."""
    if len(steps) == 50:
        steps[20], steps[21] = replace(steps[21], index=20), replace(steps[20], index=21)
    return tuple(steps)


def tilted(bar: float) -> float:
    return bar**1.05 if bar < 0.99 else bar


def apart(steps: list[Any]) -> tuple[Any, ...]:
    """Every step but the last stops half way."""
    return (*(replace(s, alpha_bar_prev=(s.alpha_bar + s.alpha_bar_prev) / 2) for s in steps[:-1]), steps[-1])


def unfinished(steps: list[Any]) -> tuple[Any, ...]:
    last = steps[-1]
    return (*steps[:-1], replace(last, alpha_bar_prev=(last.alpha_bar + last.alpha_bar_prev) / 2))


def spared(z: Tensor) -> Tensor:
    refuse(z.shape[-1] == z.shape[-2])
    return z


def known_spacing(self: Any, noise: NoiseSchedule, count: int) -> Any:
    refuse(noise.spacing != "linspace")
    return DDIM().schedule(noise, count)


BROKEN: dict[str, Callable[[], Any]] = {
    "declarations": lambda: variant(DDIM, {"stochastic": "perhaps"}),
    "schedule_count": lambda: schedule(lambda steps: steps),
    "schedule_descends": lambda: schedule(swapped),
    "schedule_levels": lambda: schedule(
        lambda steps: tuple(replace(s, alpha_bar=tilted(s.alpha_bar), alpha_bar_prev=tilted(s.alpha_bar_prev)) for s in steps)
    ),
    "schedule_joins": lambda: schedule(apart),
    "schedule_ends_clean": lambda: schedule(unfinished),
    "schedule_refuses": lambda: variant(
        DDIM, {"schedule": lambda self, noise, count: DDIM().schedule(noise, min(max(count, 1), 500))}
    ),
    "step_shape": lambda: step(lambda r, z, p, s: r[:, :2]),
    "leads_to_z0": lambda: step(lambda r, z, p, s: r + 0.1 * (s.index == s.count - 1)),
    "noise_level": lambda: step(lambda r, z, p, s: r + 0.2 * (1 - s.alpha_bar_prev) ** 0.5 * p.eps),
    "stochastic_declared": lambda: variant(
        DDIM, {"step": lambda self, z, p, s, noise: DDIM().step(z, p, s, None) + (0 if noise is None else 0.1 * noise)}
    ),
    "per_sample_independence": lambda: step(lambda r, z, p, s: r + 1e-3 * z.mean(dim=0)),
    "inverts": lambda: variant(DDIM, {"invert_step": lambda self, z, p, s: z}),
    "dtype_and_device": lambda: step(lambda r, z, p, s: r.float()),
    "deterministic": lambda: step(lambda r, z, p, s: r + 1e-5 * torch.rand(()), DDPM),
    "inputs_untouched": lambda: step(lambda r, z, p, s: r + 0 * z.clamp_(-1, 1)),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, DDIM), {}), {}),
    "every_shape": lambda: step(lambda r, z, p, s: spared(r)),
    "every_noise_schedule": lambda: variant(DDIM, {"schedule": known_spacing}),
}


def test_there_is_a_broken_sampler_for_every_property() -> None:
    assert set(BROKEN) == set(SAMPLER_PROPERTIES)
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("name", BROKEN)
def test_a_sampler_that_lacks_a_property_fails_that_one_alone(name: str) -> None:
    assert_lacks_only(check_sampler, BROKEN[name], name)
