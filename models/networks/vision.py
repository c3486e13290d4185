"""The image encoder of a GLIGEN that is grounded on images: CLIP's image tower of `transformers`, and GLIGEN's projection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...framework.errors import CheckpointError
from ..weights.checkpoint import Weights, fill
from ..weights.settings import CHANNELS, LAYERS, SIDE, Settings, Values
from .text import restore_positions

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "clip_vision_model"
# What else sizes it, and the largest that each may be.
SIZES = MappingProxyType(
    {
        "hidden_size": CHANNELS,
        "intermediate_size": 8 * CHANNELS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": CHANNELS,
        "patch_size": SIDE,
        "num_channels": CHANNELS,
    }
)
LENGTH = 28.7  # of every image's embedding: what GLIGEN was trained with (Li et al. 2023, its published code)
POSITIONS = "vision_model.embeddings.position_ids"  # which older files hold, and no network needs


class ImageEncoder(nn.Module):
    """Pictures to embeddings `[b d]` in the space of phrases: CLIP's image embedding, projected, all of one length.

    Args:
        tower: CLIP's image tower with its projection.
        channels: of CLIP's embeddings, which GLIGEN's projection keeps.
        processor: `transformers`' preparation of pictures for the tower.
    """

    def __init__(self, tower: nn.Module, channels: int, processor: Any) -> None:
        super().__init__()
        self.tower, self.processor, self.channels = tower, processor, channels
        self.project = nn.Linear(channels, channels, bias=False, device="meta")

    @torch.no_grad()
    def encode(self, images: Sequence[Image]) -> Tensor:
        """Embeddings `[b d]` of pictures in RGB."""
        weight = self.project.weight
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(weight.device, weight.dtype)
        features = self.project(self.tower(pixel_values=pixels, return_dict=True).image_embeds)
        return features / features.norm(dim=-1, keepdim=True) * LENGTH


def build_image_encoder(values: Values, where: str, processor: Path | None) -> ImageEncoder:
    """An image encoder without its weights, on the meta device; `fill_image_encoder` makes it whole.

    Args:
        values: the tower's `config.json`; `where`: that file, for the messages.
        processor: a folder with its `preprocessor_config.json`; None to prepare pictures as CLIP does.

    Raises:
        CheckpointError: another kind of image encoder, or settings that do not fit together.
    """
    import transformers

    library: Any = transformers
    given = Settings(values, where)
    given.text("model_type", KIND, (KIND,))
    size, channels = given.whole("image_size", 224, high=SIDE), given.whole("projection_dim", 512)
    for key, most in SIZES.items():
        if key in given:
            given.whole(key, 1, high=most)
    # Some versions have one that needs torchvision, and beside it one that does not.
    prepare: Any = getattr(library, "CLIPImageProcessorPil", None) or library.CLIPImageProcessor
    # Before the meta device is entered: transformers imports a model when it is first named, and older torch computes on import.
    model: Any = library.CLIPVisionModelWithProjection
    try:
        config: Any = library.CLIPVisionConfig.from_dict(dict(values))
        with torch.device("meta"):
            tower = model(config)
        if processor is not None:
            return ImageEncoder(tower, channels, prepare.from_pretrained(processor, local_files_only=True))
        return ImageEncoder(tower, channels, prepare(size={"shortest_edge": size}, crop_size={"height": size, "width": size}))
    except Exception as error:  # transformers checks its settings in its own ways, by version
        said = " ".join(str(error).split())
        raise CheckpointError(f"{where}: no CLIP image encoder can be built from it ({type(error).__name__}: {said})") from None


def fill_image_encoder(
    encoder: ImageEncoder, tower: Weights, projection: Weights, device: torch.device, dtype: torch.dtype
) -> None:
    """Give an image encoder its weights: of its tower, and of GLIGEN's projection. Raises as `checkpoint.fill`."""
    tensors = {key: tensor for key, tensor in tower.tensors.items() if key != POSITIONS}
    fill(encoder.tower, tensors, tower.where, device=device, dtype=dtype)
    restore_positions(encoder.tower, device)
    projected = {key.removeprefix("project."): tensor for key, tensor in projection.tensors.items()}
    fill(encoder.project, projected, projection.where, device=device, dtype=dtype)
