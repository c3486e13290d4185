"""A small classifier of the world: what a picture shows, and the features by which sets of pictures are compared.

Its weights ship with the package and come from `recipes/shapeworld/train_classifier.py`. Numbers made from its features belong to
one file of weights, whose hash stands beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from ...framework.errors import CheckpointError
from .geometry import SHAPES
from .scene import BACKGROUNDS, COLOURS

Features: TypeAlias = NDArray[np.float64]

KINDS: tuple[tuple[str, str], ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
DISTURBANCES: tuple[str, ...] = ("noise", "blur", "jpeg", "coding", "warp")
"""What the recipe does to pictures: the features must tell how good a picture is, besides what it shows."""
TONES = 6  # of the undisturbed picture: mean and standard deviation of each channel
FEATURES = 64
SIDE = 64  # pixels of the shorter side that the world was learned at
WEIGHTS = Path(__file__).parent / "classifier.safetensors"
CHANNELS = (32, 32, 64, 64, 80, 80)
STRIDES = (2, 1, 2, 1, 2, 1)


@dataclass(frozen=True)
class Scores:
    """What the classifier says of a batch of pictures.

    `kinds` `[b 36]`: logits of every `KINDS` being present. `background` `[b 5]`: logits of the one of `BACKGROUNDS`.
    `disturbances` `[b 5]`: logits of the strength of each of `DISTURBANCES`, in [0, 1]. `tones` `[b 6]`: see `TONES`, in [-1, 1].
    """

    kinds: Tensor
    background: Tensor
    disturbances: Tensor
    tones: Tensor


class Classifier(nn.Module):
    """Convolutions, the mean and the maximum over all places, 64 features of mean 0 and deviation 1, linear heads."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(width, channels, 3 if stride == 1 else 4, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            width = channels
        self.trunk = nn.Sequential(*layers)
        self.project = nn.Linear(2 * width, FEATURES)
        self.standardise = nn.BatchNorm1d(FEATURES, affine=False)
        self.heads = nn.Linear(FEATURES, len(KINDS) + len(BACKGROUNDS) + len(DISTURBANCES) + TONES)

    def features(self, images: Tensor) -> Tensor:
        """`[b 64]` of pictures `[b 3 H W]` in [-1, 1]; sides of 32 or more, the shorter of about `SIDE`."""
        maps = self.trunk(images)
        pooled = torch.cat([maps.mean(dim=(-2, -1)), maps.amax(dim=(-2, -1))], dim=1)  # [b 2c]
        return self.standardise(self.project(pooled))

    def forward(self, images: Tensor) -> Scores:
        values = self.heads(torch.nn.functional.silu(self.features(images)))
        kinds, background, disturbances, tones = values.split((len(KINDS), len(BACKGROUNDS), len(DISTURBANCES), TONES), dim=1)
        return Scores(kinds, background, disturbances, tones)


@cache
def load_classifier(path: Path = WEIGHTS) -> Classifier:
    """The trained classifier in float32 on the CPU, so that a picture has the same features wherever it was made.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    classifier = Classifier()
    try:
        weights = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in load_file(path).items()}
        classifier.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not the weights of the shape world's classifier ({error}); install lsregen again"
        ) from None
    return classifier.requires_grad_(False).eval()


@cache
def weights_hash(path: Path = WEIGHTS) -> str:
    """SHA-256 of the classifier's file, in hexadecimal digits.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: the classifier cannot be read ({error.strerror}); install lsregen again") from None


def image_features(images: Sequence[Image.Image], *, batch: int = 32) -> Features:
    """Features `[n 64]` of pictures of any sizes; larger ones are reduced to a shorter side of `SIDE` pixels first.

    Every feature has a deviation of about 1 over the pictures that the classifier was trained on.

    Raises:
        CheckpointError: see `load_classifier`.
    """
    classifier = load_classifier()
    found = np.zeros((len(images), FEATURES))
    by_size: dict[tuple[int, int], list[int]] = {}
    reduced = [_reduced(image) for image in images]
    for place, image in enumerate(reduced):
        by_size.setdefault(image.size, []).append(place)
    for places in by_size.values():
        for first in range(0, len(places), batch):
            chosen = places[first : first + batch]
            pixels = np.stack([np.asarray(reduced[place]) for place in chosen])
            with torch.no_grad():
                found[chosen] = classifier.features(to_tensor(pixels)).numpy()
    return found


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """`[b H W 3]` in [0, 255] as the classifier takes it."""
    return rearrange(torch.tensor(pixels, dtype=torch.float32) / 127.5 - 1, "b h w c -> b c h w").contiguous()


def _reduced(image: Image.Image) -> Image.Image:
    image, factor = image.convert("RGB"), SIDE / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(SIDE, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)
