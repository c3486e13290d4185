"""The latent space of the family, fixed before any network is trained: 4-pixel patches along their principal directions.

Both trainings aim at it, so they run side by side: the autoencoder learns to encode to it and to decode from it, the base
model learns to denoise in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .data import image_pool, patch_directions, patch_latents, to_tensor

CHANNELS = 8
PATCH = 4
IMAGES = 4096


@dataclass(frozen=True)
class LatentSpace:
    """`directions` `[c 3*p*p]`, the mean patch, and the factor that gives latents unit variance."""

    directions: Tensor
    mean: Tensor
    scale: float

    def encode(self, images: Tensor) -> Tensor:
        """Unscaled latents `[b c h w]` of images `[b 3 H W]` in [-1, 1]; multiply by `scale` for the denoiser."""
        return patch_latents(images, self.directions, self.mean, PATCH)


def latent_space(folder: Path) -> LatentSpace:
    """The latent space, measured on training images once and kept in the folder."""
    path = folder / "latent-space.safetensors"
    if not path.exists():
        images = to_tensor(image_pool(folder, IMAGES, (64, 64)))
        directions, mean = patch_directions(images, PATCH, CHANNELS)
        scale = 1 / patch_latents(images, directions, mean, PATCH).square().mean().sqrt()
        temporary = path.with_suffix(".tmp")
        save_file({"directions": directions.contiguous(), "mean": mean, "scale": scale.reshape(1)}, temporary)
        temporary.rename(path)
    tensors = load_file(path)
    return LatentSpace(tensors["directions"], tensors["mean"], float(tensors["scale"]))


def noise_levels(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """alpha_bar `[steps]` of the scaled-linear schedule of Stable Diffusion."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()
