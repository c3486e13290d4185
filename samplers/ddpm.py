"""DDPM: ancestral sampling of denoising diffusion probabilistic models (Ho et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from ..framework.types import Latents, NoiseSchedule, Prediction, Step
from .ddim import invert, posterior_std, require_noise
from .timesteps import chained_steps


@dataclass(frozen=True)
class DDPM:
    """DDPM steps (Ho et al. 2020): fresh noise at every step but the last, with the fixed small variance."""

    @property
    def stochastic(self) -> bool:
        return True

    def schedule(self, noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
        return chained_steps(noise, count)

    def step(self, z: Latents, prediction: Prediction, step: Step, noise: Latents | None) -> Latents:
        """A draw from the posterior of equations 6 and 7 of Ho et al. 2020, with beta that of the whole strided step.

        The last step of the schedule ends at `alpha_bar` 1, where the variance is 0 and the mean is `z0`.
        """
        start, end = step.alpha_bar, step.alpha_bar_prev
        alpha = start / end
        mean = (end**0.5 * (1 - alpha) * prediction.z0 + alpha**0.5 * (1 - end) * z) / (1 - start)
        return mean + posterior_std(step) * require_noise(noise, "ddpm")

    def invert_step(self, z: Latents, prediction: Prediction, step: Step) -> Latents:
        """The deterministic inversion of DDIM: the posterior draw itself has no inverse."""
        return invert(z, prediction, step)
