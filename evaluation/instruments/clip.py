"""How well pictures and texts agree: the CLIP score by torchmetrics, and attributes of things told from their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL.Image import Image, new
from torch import Tensor

from ...framework.errors import CheckpointError
from ...framework.hashes import folder_hashes
from ...framework.plugins.calls import raised
from .features import pooled, sides
from .network_folders import load_folder

EXPECTED = (
    "expected a folder of CLIP as transformers saves it: config.json, model.safetensors, tokenizer, preprocessor_config.json"
)
SMALLEST = 8  # sides of a crop, in pixels


@dataclass(frozen=True, eq=False)
class Clip:
    """An encoder of pictures and texts, with its own preparation of both; `length`: of a text, in tokens."""

    path: Path
    network: Any
    processor: Any
    tokenizer: Any
    length: int
    sha256: dict[str, str]

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def resize(self) -> str:
        size, crop = getattr(self.processor, "size", None), getattr(self.processor, "crop_size", None)
        return f"its preprocessor's, {sides(size)}, cropped to {sides(crop)}"

    def score(self, picture: Image, prompt: str) -> float:
        """The CLIP score of a picture and its prompt, in [0, 100] (Hessel et al. 2021, with the factor of torchmetrics, 100)."""
        library: Any = import_module("torchmetrics.functional.multimodal")
        pixels = rearrange(torch.tensor(np.asarray(picture.convert("RGB"))), "h w c -> c h w").to(self.device)
        network = _Network(self)
        return float(library.clip_score(pixels, prompt, lambda: (network, network.prepare)))

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is longer than the encoder reads."""
        return len(self.tokenizer(prompt, verbose=False)["input_ids"]) > self.length

    @torch.no_grad()
    def nearest(self, picture: Image, texts: Sequence[str]) -> int:
        """Which of the texts agrees best with a picture."""
        network = _Network(self)
        image = network.get_image_features(network.prepare(images=[picture])["pixel_values"])
        prepared = network.prepare(text=list(texts))
        text = network.get_text_features(prepared["input_ids"], prepared["attention_mask"])
        return int((torch.nn.functional.normalize(text) @ torch.nn.functional.normalize(image).T).argmax())


class _Network:
    """The encoder as torchmetrics asks for it: of tensors, whatever this version of transformers returns."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.config = clip, clip.network.config

    def to(self, device: torch.device) -> _Network:
        return self

    @torch.no_grad()
    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return pooled(self.clip.network.get_image_features(pixel_values=pixel_values.to(self.clip.device)))

    @torch.no_grad()
    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        ids, mask = input_ids.to(self.clip.device), attention_mask.to(self.clip.device)
        return pooled(self.clip.network.get_text_features(input_ids=ids, attention_mask=mask))

    def prepare(self, text: Any = None, images: Any = None, **_: object) -> Any:
        """Texts are cut where the encoder ends, their end kept: torchmetrics would cut that off too."""
        if images is not None:
            pictures = [rearrange(each, "c h w -> h w c").cpu().numpy() if isinstance(each, Tensor) else each for each in images]
            return self.clip.processor(images=pictures, return_tensors="pt")
        return self.clip.tokenizer(
            text, padding=True, truncation=True, max_length=self.clip.length, return_attention_mask=True, return_tensors="pt"
        )


def load_clip(folder: Path, device: str = "auto") -> Clip:
    """The encoder of a folder, in float32.

    Raises:
        ConfigError: no such folder, or a device that this machine does not have.
        CheckpointError: its files are none of such an encoder.
    """
    classes = ("AutoModel", "AutoImageProcessor", "AutoTokenizer")
    network, processor, tokenizer = load_folder("--clip", folder, device, classes, EXPECTED)
    length = getattr(getattr(network.config, "text_config", None), "max_position_embeddings", None)
    if not (hasattr(network, "get_image_features") and hasattr(network, "get_text_features") and isinstance(length, int)):
        raise CheckpointError(f"--clip {folder}: a {type(network).__name__} does not encode both pictures and texts; {EXPECTED}")
    clip = Clip(folder, network, processor, tokenizer, length, folder_hashes(folder))
    _try(clip)
    return clip


def _try(clip: Clip) -> None:
    """What prepares pictures and texts belongs to the network, which is said before the first picture is looked at.

    Raises:
        CheckpointError: it fails, or pictures come out with other sides than the network takes.
    """
    side = getattr(getattr(clip.network.config, "vision_config", None), "image_size", None)
    prepare = _Network(clip).prepare
    try:
        found = tuple(prepare(images=[new("RGB", (SMALLEST, SMALLEST))])["pixel_values"].shape[-2:])
        prepare(text=["a"])
    except Exception as error:  # transformers fails in its own ways, by version
        raise CheckpointError(f"--clip {clip.path}: its preparation fails ({raised(error)}); {EXPECTED}") from None
    if isinstance(side, int) and found != (side, side):
        raise CheckpointError(
            f"--clip {clip.path}: preprocessor_config.json makes pictures of {found[1]}x{found[0]}, and the network takes "
            f"{side}x{side}; {EXPECTED}"
        )


def crop(picture: Image, box: tuple[float, float, float, float]) -> Image:
    """The part of a picture in a box of fractions, of `SMALLEST` pixels a side at least, within the picture."""
    width, height = picture.size
    left, right = _span(box[0] * width, box[2] * width, width)
    top, bottom = _span(box[1] * height, box[3] * height, height)
    return picture.crop((left, top, right, bottom))


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    first = min(max(0, int(low)), max(0, side - SMALLEST))
    return first, min(side, max(first + SMALLEST, round(high)))
