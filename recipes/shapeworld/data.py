"""Training images of the world, rendered once and kept as uint8 files in the run's folder."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from lsregen.evaluation.shapeworld import render, sample_scene

if TYPE_CHECKING:
    from recipes.shapeworld.latent_space import LatentSpace

CHUNK = 256


def render_image(seed: int, width: int, height: int) -> np.ndarray:
    return render(sample_scene(seed, split="train", size=(width, height)))


def coarse_image(seed: int, width: int, height: int) -> np.ndarray:
    """A scene rendered at a third of the size, enlarged: what a size conditioning learns to tell from a sharp one."""
    small = Image.fromarray(render_image(seed, width // 3, height // 3))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def image_pool(folder: Path, count: int, size: tuple[int, int], first_seed: int = 0, workers: int = 2) -> np.ndarray:
    """Training scenes `first_seed .. first_seed + count` as uint8 `[count H W 3]`, rendered once, then mapped from disk."""
    width, height = size
    path = folder / f"images-{width}x{height}-{first_seed}-{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        seeds = range(first_seed, first_seed + count)
        with ProcessPoolExecutor(workers) as pool:
            images = list(pool.map(render_image, seeds, [width] * count, [height] * count, chunksize=64))
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, np.stack(images))
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def latent_pool(
    folder: Path, space: LatentSpace, count: int, size: tuple[int, int], *, coarse: bool = False, workers: int = 2
) -> np.ndarray:
    """Scaled latents of the training scenes `0 .. count` and of their mirror images, fp16 `[count 2 c h w]`, made once.

    A large image takes ten times the room of its latents. `coarse`: of scenes rendered small and enlarged.
    """
    width, height = size
    path = folder / f"latents-{space.patch}-{width}x{height}-{count}{'-coarse' if coarse else ''}.npy"
    if not path.exists():
        draw, chunks = coarse_image if coarse else render_image, list[np.ndarray]()
        with ProcessPoolExecutor(workers) as pool:
            for first in range(0, count, CHUNK):
                n = min(CHUNK, count - first)
                images = to_tensor(
                    np.stack(list(pool.map(draw, range(first, first + n), [width] * n, [height] * n, chunksize=16)))
                )
                both = [space.encode(images) * space.scale, space.encode(images.flip(-1)) * space.scale]
                chunks.append(torch.stack(both, dim=1).half().numpy())
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, np.concatenate(chunks))
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def captions(count: int, size: tuple[int, int], first_seed: int = 0) -> list[str]:
    """The captions of the same scenes, in the same order."""
    return [sample_scene(first_seed + i, split="train", size=size).caption for i in range(count)]


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 `[b H W 3]` to float `[b 3 H W]` in [-1, 1]."""
    return rearrange(torch.from_numpy(np.array(images)).float() / 127.5 - 1, "b h w c -> b c h w")
