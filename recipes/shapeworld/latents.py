"""The latent spaces of the family, fixed before any network is trained: patches of images along their principal directions.

The trainings of an autoencoder and of a denoiser both aim at one, so they run side by side: the one learns to encode to
it and to decode from it, the other to denoise in it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.shapeworld.data import image_pool, to_tensor
from recipes.shapeworld.latent_space import LatentSpace, patch_directions, patch_latents

CHANNELS = 8
PATCH, LARGE_PATCH = 4, 8  # pixels
SIDE, LARGE_SIDE = 64, 192  # pixels of a square image
IMAGES = {PATCH: (4096, SIDE), LARGE_PATCH: (512, LARGE_SIDE)}  # how many are looked at, and their side


def latent_space(folder: Path, patch: int = PATCH) -> LatentSpace:
    """The latent space of a patch size, measured on training images once and kept in the folder."""
    path = folder / ("latent-space.safetensors" if patch == PATCH else f"latent-space-{patch}.safetensors")
    if not path.exists():
        count, side = IMAGES[patch]
        images = to_tensor(image_pool(folder, count, (side, side)))
        directions, mean = patch_directions(images, patch, CHANNELS)
        scale = 1 / patch_latents(images, directions, mean, patch).square().mean().sqrt()
        temporary = path.with_suffix(".tmp")
        save_file({"directions": directions.contiguous(), "mean": mean, "scale": scale.reshape(1)}, temporary)
        temporary.rename(path)
    tensors = load_file(path)
    return LatentSpace(tensors["directions"], tensors["mean"], float(tensors["scale"]), patch)


def noise_levels(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """alpha_bar `[steps]` of the scaled-linear schedule of Stable Diffusion."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()
