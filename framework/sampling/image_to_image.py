"""Pictures on their way in and out: between PIL and tensors, and as the beginning of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from math import floor
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange
from PIL import Image as PILImage

from ..config.options import convert
from ..config.values import as_list
from ..errors import ConfigError, shown
from ..layout.image_files import in_rgb
from ..layout_files.item import STRENGTH
from ..pipeline.sizes import stretched
from ..protocols import Run
from ..types import Image, Latents, Step


def to_pil(images: Image) -> list[PILImage.Image]:
    """Images `[b 3 H W]` in [0, 1] as 8-bit pictures."""
    pixels = rearrange((images.clamp(0, 1) * 255).round().byte().cpu(), "b c h w -> b h w c").numpy()
    return [PILImage.fromarray(np.ascontiguousarray(picture)) for picture in pixels]


def from_pil(pictures: Sequence[PILImage.Image], size: tuple[int, int]) -> Image:
    """Pictures as `[b 3 H W]` in [0, 1], resized (bicubic) to a width and height of the same proportions.

    Raises:
        ConfigError: a picture of other proportions, of more than 8 bits, or with transparent parts.
    """
    tensors: list[torch.Tensor] = []
    for picture in pictures:
        if said := stretched(picture.size, size):
            raise ConfigError(f"init_image: {said}")
        resized = in_rgb(picture, "init_image", ConfigError)
        if resized.size != size:
            resized = resized.resize(size, PILImage.Resampling.BICUBIC)
        tensors.append(torch.tensor(np.asarray(resized)).float() / 255)
    return rearrange(tensors, "b h w c -> b c h w")


def pictures_of(given: PILImage.Image | Iterable[PILImage.Image], count: int) -> tuple[PILImage.Image, ...]:
    """One picture for each of `count` images.

    Raises:
        ConfigError: something else than pictures, or a list of another length.
    """
    given = as_list(given, PILImage.Image)
    several = cast("Sequence[object]", given) if isinstance(given, list | tuple) else (given,)
    for one in several:
        if not isinstance(one, PILImage.Image):
            raise ConfigError(f"init_image: {shown(one)}: expected a PIL.Image.Image, such as PIL.Image.open('start.png')")
    pictures = (given,) * count if isinstance(given, PILImage.Image) else tuple(given)
    if len(pictures) != count:
        raise ConfigError(f"init_image: {len(pictures)} given for {count} images; give one for all of them, or one each")
    return pictures


def checked_strength(strength: object, pictures: Sequence[PILImage.Image] | None, count: int) -> float:
    """The share of `count` steps that is made from pictures, if there are any.

    Raises:
        ConfigError: no number, a share that `entry_step` refuses, or one without a picture.
    """
    if pictures is None and strength is not None:
        raise ConfigError(f"strength: {shown(strength)} without init_image: name the picture to start from, or leave it out")
    share: float = STRENGTH if strength is None else convert(strength, float, "strength")
    if pictures is not None:
        entry_step(share, count)
    return share


def entry_step(strength: float, count: int) -> int:
    """At which of `count` steps image-to-image enters: `strength` is the share of them that is made.

    Raises:
        ConfigError: not above 0 and at most 1, or no step would be made.
    """
    if not 0 < strength <= 1:
        raise ConfigError(f"strength: {strength} is not above 0 and at most 1")
    made = floor(strength * count + 1e-9)  # .57 * 100 is not 57
    if made < 1:
        raise ConfigError(f"strength: {strength} of {count} steps is less than one; raise it, or take more steps")
    return count - made


def noised(z0: Latents, eps: Latents, step: Step) -> Latents:
    """A clean latent at the noise level of a step."""
    return step.alpha_bar**0.5 * z0 + (1 - step.alpha_bar) ** 0.5 * eps


def beginning(pictures: Sequence[PILImage.Image], strength: float) -> dict[str, Any]:
    """What a report says of the pictures that a run starts from: the hash of each one's pixels, and the strength."""
    return {"sha256": [fingerprint(picture) for picture in pictures], "strength": float(strength)}


def fingerprint(picture: PILImage.Image) -> str:
    """The sha256 of a picture's size and pixels, whatever file it comes from."""
    return sha256(repr(picture.size).encode() + picture.convert("RGB").tobytes()).hexdigest()


@torch.no_grad()
def entered(run: Run, pictures: Sequence[PILImage.Image], strength: float) -> Run:
    """A run that starts from pictures, at the step that `strength` says, with its own noise on them."""
    steps = run.steps[entry_step(strength, len(run.steps)) :]
    z0 = run.model.encode_image(from_pil(pictures, run.size).to(run.model.device))
    return replace(run, steps=steps, z_T=noised(z0, run.z_T, steps[0]), eps_T=run.z_T)
