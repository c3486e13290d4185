"""DDIM: denoising diffusion implicit models (Song et al. 2020), and their inversion."""

from __future__ import annotations

from dataclasses import dataclass

from ..framework.config.constraints import Share
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.types import Latents, NoiseSchedule, Prediction, Step
from .timesteps import steps


def posterior_std(step: Step) -> float:
    """Standard deviation of `z` at the step's end, given `z` at its start and `z0`.

    Song et al. 2020, equation 16 with eta 1; squared, it is the fixed small variance of Ho et al. 2020, equation 7.
    """
    start, end = step.alpha_bar, step.alpha_bar_prev
    return ((1 - end) / (1 - start) * (1 - start / end)) ** 0.5


def _share_of_eps(step: Step, eta: float) -> float:
    """`sqrt(1 - alpha_bar_prev - sigma^2)`, in equation 12 of Song et al. 2020.

    Written without the difference, whose digits are lost where `sigma` takes nearly all: near zero terminal signal, with eta 1.
    """
    start, end = step.alpha_bar, step.alpha_bar_prev
    if not eta:
        return (1 - end) ** 0.5
    kept = start * (1 - end) / (end * (1 - start))  # 1 - sigma^2 / (1 - end) at eta 1
    return ((1 - end) * ((1 - eta) * (1 + eta) + eta**2 * kept)) ** 0.5


def require_noise(noise: Latents | None, sampler: str) -> Latents:
    """The noise of a stochastic step, which the caller draws: samplers have no random stream of their own."""
    if noise is None:
        raise ConfigError(f"sampler {sampler}: this step adds noise but was given None; pass a standard normal of z's shape")
    return noise


def invert(z: Latents, prediction: Prediction, step: Step) -> Latents:
    """From `z` at `step.alpha_bar_prev` to `step.alpha_bar`: equation 12 of Song et al. 2020 with sigma 0, run backwards.

    The model is asked at the target timestep `step.t` about a `z` that still stands at the source level. Only `eps` of its answer
    is used, and `z0` is had from it at the source level. If the model predicts `eps`, it therefore does not matter at which level
    the answer was split into the pair. If it predicts `v`, ask with a step whose `alpha_bar` is `alpha_bar_prev`.
    """
    source, target = step.alpha_bar_prev, step.alpha_bar
    z0 = (z - (1 - source) ** 0.5 * prediction.eps) / source**0.5
    return target**0.5 * z0 + (1 - target) ** 0.5 * prediction.eps


@dataclass(frozen=True)
class DDIM:
    """DDIM steps (Song et al. 2020): deterministic with eta 0, as noisy as DDPM with eta 1.

    A clean latent that is to be clipped arrives clipped in the prediction: `z0` and `eps` are used as they come.
    """

    eta: Share = option(0.0, "noise added at each step, from 0 (none) to 1 (as much as ddpm)")
    until: Share = option(1.0, "end of the steps that add noise, as a fraction of all steps (not included)")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def schedule(self, noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
        return steps(noise, count)

    def step(self, z: Latents, prediction: Prediction, step: Step, noise: Latents | None) -> Latents:
        """Equation 12 of Song et al. 2020, with the sigma of equation 16; `z` enters through the prediction alone."""
        noisy = self.eta > 0 and step.fraction < self.until - 1e-9
        eta = self.eta if noisy else 0.0
        moved = step.alpha_bar_prev**0.5 * prediction.z0 + _share_of_eps(step, eta) * prediction.eps
        return moved + eta * posterior_std(step) * require_noise(noise, "ddim") if noisy else moved

    def invert_step(self, z: Latents, prediction: Prediction, step: Step) -> Latents:
        return invert(z, prediction, step)
