"""Noise schedules and timesteps as data: from a `NoiseSchedule` and a number of steps to a tuple of `Step`s.

`alpha_bar` is the share of signal power left at a timestep, in [0, 1]. The numbers are those of the published code, down to its
single precision products: weights were trained with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..framework.errors import ConfigError, nearest
from ..framework.types import NoiseSchedule, Step

BETA_SCHEDULES = ("linear", "scaled_linear")
SPACINGS = ("leading", "trailing", "linspace")


def alpha_bars(noise: NoiseSchedule) -> Tensor:
    """`alpha_bar` of every training timestep, `[train_steps]` float64 (Ho et al. 2020, section 2).

    Computed in float32 and then widened, because that is how the numbers came about that the weights were trained with.
    """
    _check(noise)
    if noise.beta_schedule == "linear":
        betas = torch.linspace(noise.beta_start, noise.beta_end, noise.train_steps, dtype=torch.float32)
    else:
        # Latent diffusion (Rombach et al. 2022) spaces the square roots evenly.
        betas = torch.linspace(noise.beta_start**0.5, noise.beta_end**0.5, noise.train_steps, dtype=torch.float32) ** 2
    if noise.zero_terminal_snr:
        betas = zero_terminal_snr(betas)
    return torch.cumprod(1.0 - betas, dim=0).double()


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas `[train_steps]` changed so that no signal is left at the last timestep (Lin et al. 2023, algorithm 1).

    sqrt(alpha_bar) is shifted to end at 0 and scaled to start where it did.
    """
    roots = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = roots[0], roots[-1]
    rescaled = ((roots - last) * (first / (first - last))) ** 2
    return 1.0 - torch.cat([rescaled[:1], rescaled[1:] / rescaled[:-1]])


def spaced_timesteps(noise: NoiseSchedule, count: int) -> list[int]:
    """`count` training timesteps, noisiest first, by the rule `noise.spacing` (Lin et al. 2023, table 2)."""
    _check(noise)
    total = noise.train_steps
    if not 1 <= count <= total:
        raise ConfigError(
            f"steps {count}: the model's schedule has {total} training timesteps, so a run takes 1 to {total} steps; "
            f"use {'1 or more' if count < 1 else f'{total} or fewer'}"
        )
    if noise.spacing == "leading":
        _check_offset(noise, count)
        return [index * (total // count) + noise.steps_offset for index in reversed(range(count))]
    if noise.spacing == "trailing":
        # numpy's own arange, because its rounding is part of the rule; for some counts rounding also makes it one too long.
        return [int(t) - 1 for t in np.round(np.arange(total, 0, -(total / count)))[:count]]
    return [int(t) for t in np.linspace(0, total - 1, count).round()[::-1]]


def steps(noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
    """`count` steps, noisiest first, each `train_steps // count` timesteps long as in the published DDIM code.

    With an uneven spacing a step therefore need not end exactly where the next one starts. A step that ends below timestep 0
    ends at `alpha_bar` 1 if `noise.final_alpha_one`, else at that of timestep 0.
    """
    timesteps = spaced_timesteps(noise, count)
    bars = alpha_bars(noise)
    final = 1.0 if noise.final_alpha_one else float(bars[0])
    previous = (t - noise.train_steps // count for t in timesteps)
    return _steps(timesteps, [float(bars[t]) for t in timesteps], [float(bars[t]) if t >= 0 else final for t in previous])


def chained_steps(noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
    """`count` steps, noisiest first, each ending where the next one starts and the last at `alpha_bar` 1.

    This is what the published DDPM code does; the timesteps are those of `steps`.
    """
    timesteps = spaced_timesteps(noise, count)
    bars = alpha_bars(noise)
    levels = [*(float(bars[t]) for t in timesteps), 1.0]
    return _steps(timesteps, levels[:-1], [end for _, end in pairwise(levels)])


def _steps(timesteps: Sequence[int], starts: Sequence[float], ends: Sequence[float]) -> tuple[Step, ...]:
    rows = zip(timesteps, starts, ends, strict=True)
    return tuple(Step(index, len(timesteps), t, start, end) for index, (t, start, end) in enumerate(rows))


def _check(noise: NoiseSchedule) -> None:
    """Refuse a schedule that cannot be computed; its fields come from a model's `scheduler_config.json`."""
    for name, given, known in (
        ("beta_schedule", noise.beta_schedule, BETA_SCHEDULES),
        ("spacing", noise.spacing, SPACINGS),
    ):
        if given not in known:
            raise ConfigError(
                f"noise schedule: unknown {name} {given!r}{nearest(given, known)}; "
                f"set it to one of {', '.join(known)} in scheduler_config.json"
            )
    if noise.train_steps < 2:
        raise ConfigError(f"noise schedule: train_steps {noise.train_steps} is below 2; models are trained with 1000")
    if not 0 < noise.beta_start < noise.beta_end < 1:
        raise ConfigError(
            f"noise schedule: beta_start {noise.beta_start} and beta_end {noise.beta_end} must rise between 0 and 1, "
            f"for example 0.00085 and 0.012; correct scheduler_config.json"
        )


def _check_offset(noise: NoiseSchedule, count: int) -> None:
    """Leading timesteps are shifted up by an offset, which must not carry them past the schedule."""
    total, offset = noise.train_steps, noise.steps_offset
    if not 0 <= offset < total:
        raise ConfigError(f"noise schedule: steps_offset {offset} is outside 0 to {total - 1}; set it to 0 or 1")
    fitting = next(n for n in range(count, 0, -1) if (n - 1) * (total // n) + offset < total)
    if fitting != count:
        raise ConfigError(
            f"steps {count}: with leading spacing and steps_offset {offset} they reach past the model's {total} training "
            f"timesteps (0 to {total - 1}); use {fitting} steps, or trailing spacing"
        )
