"""The models that ship with the package, in diffusers: the same picture from the same noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from lsregen.framework import LoadOptions
from lsregen.framework.layout.regions import Layout
from lsregen.models import EMBEDDED, DiffusersFolder
from lsregen.samplers.ddim import DDIM
from tests.near import TRAJECTORY, relative

pytestmark = pytest.mark.slow

BOXES = {"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)}
SLOTS = 30
PROMPT, STEPS, CFG = "a red circle and a blue square", 20, 4.0


@pytest.mark.parametrize("name", ["shapeworld-base", "shapeworld-large"])
def test_diffusers_walks_alike(name: str) -> None:
    import diffusers

    model: Any = DiffusersFolder().load(EMBEDDED / name, LoadOptions(device="cpu", dtype="fp32"))
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(EMBEDDED / name).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    width, height = model.default_size
    start = torch.randn(1, *model.latent_shape((width, height)), generator=torch.Generator().manual_seed(0))
    denoiser, z = model.bind([PROMPT], (), (), cfg=CFG, count=STEPS), start
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    theirs = pipe(
        PROMPT, height=height, width=width, latents=start, num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent"
    ).images
    assert relative(z, start) > 0.1
    assert relative(z, theirs) <= TRAJECTORY
    picture = pipe.vae.decode(theirs / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert relative(model.decode(z), picture.clamp(0, 1)) <= TRAJECTORY


def test_the_shipped_gligen_runs_the_published_forward() -> None:
    """Diffusers' pipeline knows latents of four channels only: its networks and scheduler walk here as that does."""
    import diffusers

    folder = EMBEDDED / "shapeworld-gligen"
    model: Any = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    load: dict[str, Any] = {"torch_dtype": torch.float32}
    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", **load)
    scheduler: Any = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", **load)
    tokenizer: Any = CLIPTokenizer.from_pretrained(folder / "tokenizer")

    def encoded(words: list[str]) -> Any:
        return text(tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids)

    with torch.no_grad():
        context = encoded(["", PROMPT])[0]
        phrases, boxes, masks = torch.zeros(2, SLOTS, text.config.hidden_size), torch.zeros(2, SLOTS, 4), torch.zeros(2, SLOTS)
        phrases[:, : len(BOXES)] = encoded(list(BOXES)).pooler_output
        boxes[:, : len(BOXES)] = torch.tensor(list(BOXES.values()))
        masks[1, : len(BOXES)] = 1  # the unconditional branch sees null tokens
        told = {"gligen": {"boxes": boxes, "positive_embeddings": phrases, "masks": masks}}
        start = torch.randn(1, *model.latent_shape(model.default_size), generator=torch.Generator().manual_seed(0))
        scheduler.set_timesteps(STEPS)
        theirs = start
        for t in scheduler.timesteps:
            empty, said = unet(theirs.expand(2, -1, -1, -1), t, context, cross_attention_kwargs=told).sample.chunk(2)
            theirs = scheduler.step(empty + CFG * (said - empty), t, theirs).prev_sample

    denoiser, z = model.bind([PROMPT], (), [Layout.from_boxes(BOXES)], cfg=CFG, count=STEPS), start
    plain = model.bind([PROMPT], (), (), cfg=CFG, count=STEPS)
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        if step.index == 0:
            assert (denoiser.predict(z, step).eps - plain.predict(z, step).eps).norm() > 0.01 * z.norm(), "boxes are not seen"
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    assert relative(z, theirs) <= TRAJECTORY
