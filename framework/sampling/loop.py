"""The sampling loop. It knows neither what pulls the latent nor how the sampler walks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from ..errors import NonFiniteError
from ..events import StepReport
from ..guidance.contracts import check_latent, remedies
from ..guidance.run import Guidance, GuidanceRun
from ..plugins.calls import calling
from ..protocols import Run
from ..types import Latents, Step

OnStep: TypeAlias = Callable[[StepReport], bool | None]
"""Sees every finished step; returning False ends the run there."""


@torch.no_grad()
def sample(run: Run, guidance: Guidance, on_step: OnStep | None = None) -> tuple[Latents, GuidanceRun]:
    """Walk from the initial latent to a clean one `[b c h w]`; returns it with the finished guidance (its log, its energies)."""
    pull = guidance.start(run)
    z = pull.initial()
    for step in run.steps:
        z = pull.before(z, step)
        prediction = pull.predict(z, step)
        noise = run.noise(step)
        with calling(f"step {step.index}", "sampler", run.sampler, "step"):
            z_next = run.sampler.step(z, prediction, step, noise)
        z_next = _checked(pull.after(check_latent(z_next, z, run.sampler), step), run, step, pulled=bool(pull.log))
        if on_step is not None and on_step(StepReport(step, z, z_next, prediction, dict(pull.energies))) is False:
            return z_next, pull
        z = z_next
    return z, pull


def _checked(z: Latents, run: Run, step: Step, *, pulled: bool) -> Latents:
    """The latent, unless something in it is not finite: a broken value spreads, and would end as a black picture."""
    finite = torch.isfinite(z).flatten(1).all(dim=1)
    if not bool(finite.all()):
        broken = [str(seed) for seed, fine in zip(run.seeds, finite, strict=True) if not bool(fine)]
        raise NonFiniteError(
            f"step {step.index} (t={step.t}): the latents of the seeds {', '.join(broken)} are not finite, with the network in "
            f"{run.model.dtype}; {remedies(run.model, 'a lower cfg', 'a lower gamma', pulled=pulled)}"
        )
    return z
