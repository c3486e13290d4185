"""GLIGEN's two networks (Li et al. 2023): the position net that makes a token of a box, and the fuser that lets a picture look
at those tokens. Module names are those of diffusers and of the original, which agree.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention, FeedForward

Grounded: TypeAlias = Literal["text", "text-image"]
"""On what a model is grounded, besides boxes: phrases, or phrases and images."""

HIDDEN = 512
FREQUENCIES = 8
POSITION = FREQUENCIES * 2 * 4  # sines and cosines of four coordinates


class GatedSelfAttention(nn.Module):
    """Self-attention of a picture `[b p c]` together with grounding tokens `[b m d]`, then a feed-forward, each behind a gate."""

    def __init__(self, channels: int, heads: int, token_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(token_channels, channels)
        self.attn = Attention(channels, heads)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.alpha_attn = nn.Parameter(torch.zeros(()))
        self.alpha_dense = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        both = torch.cat([x, self.linear(tokens)], dim=1)  # [b p+m c]
        x = x + self.alpha_attn.tanh() * self.attn(self.norm1(both))[:, : x.shape[1]]
        return x + self.alpha_dense.tanh() * self.ff(self.norm2(x))


class PositionNet(nn.Module):
    """Grounding tokens `[b m d]` of boxes and what stands in them. A slot without a box is filled with learnt null features.

    Grounded on text and images there are `2n` tokens for `n` slots: first those of the phrases, then those of the images.
    """

    def __init__(self, channels: int, kind: Grounded) -> None:
        super().__init__()
        self.kind = kind
        self.null_position_feature = nn.Parameter(torch.zeros(POSITION))
        if kind == "text":
            self.linears = _perceptron(channels)
            self.null_positive_feature = nn.Parameter(torch.zeros(channels))
        else:
            self.linears_text, self.linears_image = _perceptron(channels), _perceptron(channels)
            self.null_text_feature = nn.Parameter(torch.zeros(channels))
            self.null_image_feature = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        boxes: Tensor,
        filled: Tensor,
        phrases: Tensor,
        *,
        images: Tensor | None = None,
        pictured: Tensor | None = None,
    ) -> Tensor:
        """Tokens of slots.

        Args:
            boxes: left, top, right, bottom as fractions of the image, `[b n 4]`.
            filled: which slots have a box and a phrase, `[b n]`, 0 or 1.
            phrases: embeddings of the phrases, `[b n d]`; ignored where a slot is not filled.
            images, pictured: the same of images; without them no slot has one.
        """
        dtype = self.null_position_feature.dtype
        place = _or_null(box_features(boxes).to(dtype), filled, self.null_position_feature)
        if self.kind == "text":
            return self.linears(torch.cat([_or_null(phrases, filled, self.null_positive_feature), place], dim=-1))
        images = torch.zeros_like(phrases) if images is None else images
        pictured = torch.zeros_like(filled) if pictured is None else pictured
        text = self.linears_text(torch.cat([_or_null(phrases, filled, self.null_text_feature), place], dim=-1))
        image = self.linears_image(torch.cat([_or_null(images, pictured, self.null_image_feature), place], dim=-1))
        return torch.cat([text, image], dim=1)


def box_features(boxes: Tensor) -> Tensor:
    """Sinusoidal features `[b n 64]` of boxes `[b n 4]`, in fp32: by frequency, four sines, then four cosines."""
    frequencies = 100 ** (torch.arange(FREQUENCIES, device=boxes.device) / FREQUENCIES)
    angles = boxes.float()[..., None, :] * frequencies[:, None]  # [b n frequency coordinate]
    return rearrange(torch.stack([angles.sin(), angles.cos()], dim=-2), "b n frequency half side -> b n (frequency half side)")


def _perceptron(channels: int) -> nn.Sequential:
    first, second, last = nn.Linear(channels + POSITION, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, channels)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)


def _or_null(values: Tensor, there: Tensor, null: Tensor) -> Tensor:
    """The values `[b n d]` of slots that have one, and the null feature `[d]` elsewhere."""
    return torch.where(there.bool()[..., None], values.to(null.dtype), null)
