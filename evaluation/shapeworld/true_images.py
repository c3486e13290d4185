"""Scenes as they should look, through a model's autoencoder and back, and the step at which its attention is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from ...framework.protocols import Model
from ...framework.types import Image, Latents, Step
from .render import render
from .scene import Scene

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline

NOISE_LEVEL = 0.7  # share of the training timesteps: nothing is drawn there yet, but the places are settled
STEPS = 50  # of the schedule from which the timestep nearest to that level is taken


def diagnostic_step(pipeline: Pipeline) -> Step:
    """The step of the default sampler's schedule that is nearest to `NOISE_LEVEL` of the training timesteps."""
    noise = pipeline.model.noise_schedule
    steps = pipeline.resolve(None)[0].sampler.schedule(noise, min(STEPS, noise.train_steps))
    return min(steps, key=lambda step: abs(step.t - NOISE_LEVEL * noise.train_steps))


def true_images(scenes: Sequence[Scene]) -> Image:
    """The scenes as they should look, `[b 3 H W]` in [0, 1]."""
    pixels = torch.as_tensor(np.stack([render(scene) for scene in scenes]))
    return rearrange(pixels, "b h w c -> b c h w").float() / 255


@torch.no_grad()
def encode(model: Model, images: Image) -> Latents:
    return model.encode_image(images.to(model.device))


@torch.no_grad()
def decode(model: Model, z: Latents) -> Image:
    return model.decode(z)
