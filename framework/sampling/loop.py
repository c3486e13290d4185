"""The sampling loop. It knows neither what pulls the latent nor how the sampler walks."""

from __future__ import annotations

import torch

from ..errors import NonFiniteError
from ..events import Passes, Stepped, StepReport
from ..guidance.contracts import check_latent, remedies
from ..guidance.run import GuidanceRun
from ..plugins.calls import calling
from ..protocols import Run
from ..reductions import listed
from ..types import Latents, Step


@torch.no_grad()
def sample(run: Run, pull: GuidanceRun) -> Passes[Latents]:
    """Walk from the initial latent to a clean one `[b c h w]`, which is returned; `pull` is of `Guidance.start(run)`.

    Raises:
        NonFiniteError: a latent is not finite any more.
    """
    z = pull.initial()
    for step in run.steps:
        z = yield from pull.before(z, step)
        prediction = yield from pull.predict(z, step)
        noise = run.noise(step)
        with calling(f"step {step.index}", "sampler", run.sampler, "step"):
            z_next = run.sampler.step(z, prediction, step, noise)
        z_next = _checked(pull.after(check_latent(z_next, z, run.sampler), step), run, step, pulled=bool(pull.log))
        yield Stepped(StepReport(step, z, z_next, prediction, dict(pull.energies)))
        z = z_next
    return z


def _checked(z: Latents, run: Run, step: Step, *, pulled: bool) -> Latents:
    """The latent, unless something in it is not finite: a broken value spreads, and would end as a black picture."""
    finite = listed(torch.isfinite(z).flatten(1).all(dim=1))
    if not all(finite):
        broken = [str(seed) for seed, fine in zip(run.seeds, finite, strict=True) if not fine]
        raise NonFiniteError(
            f"step {step.index} (t={step.t}): the latents of the seeds {', '.join(broken)} are not finite, with the network in "
            f"{run.model.dtype}; {remedies(run.model, 'a lower cfg', 'a lower gamma', pulled=pulled)}"
        )
    return z
