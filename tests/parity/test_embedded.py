"""The model that ships with the package, in diffusers: the same picture from the same noise."""

from __future__ import annotations

from typing import Any

import torch

from lsregen.models import EMBEDDED, DiffusersFolder
from lsregen.samplers.ddim import DDIM

PROMPT, STEPS, CFG = "a red circle and a blue square", 20, 4.0


def test_diffusers_walks_alike() -> None:
    import diffusers

    model: Any = DiffusersFolder().load(EMBEDDED / "shapeworld-base", device="cpu", dtype="fp32")
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(EMBEDDED / "shapeworld-base").to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    width, height = model.default_size
    start = torch.randn(1, *model.latent_shape((width, height)), generator=torch.Generator().manual_seed(0))
    denoiser, z = model.bind([PROMPT], (), (), cfg=CFG, count=STEPS), start
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    theirs = pipe(
        PROMPT, height=height, width=width, latents=start, num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent"
    ).images
    assert (z - start).norm() > 0.1 * start.norm()
    assert (z - theirs).norm() <= 1e-3 * theirs.norm()
    picture = pipe.vae.decode(theirs / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert (model.decode(z) - picture.clamp(0, 1)).abs().max() <= 1e-3
