"""A latent diffusion model small enough to check plugins with: random weights, real cross-attention, odd numbers everywhere.

Three latent channels, a factor of 2 and sixteen tokens, so that a plugin which counts on 4, 8 or 77 is found out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import ConfigError
from ..layout.regions import Layout
from ..layout.tokens import Piece, TokenTable
from ..sampling.taps import EverythingRecorded, TapLayer, Taps
from ..types import Image, Latents, NoiseSchedule, Prediction, Step, View
from .checks import seeded
from .inputs import draw

CHANNELS, WIDTH, HEADS, CONTEXT, TOKENS, FACTOR = 3, 8, 2, 6, 16, 2
LONGEST_PIECE = 5  # letters; the tokenizer cuts longer words


def _layer(block: str, place: str, index: int, downscale: int) -> TapLayer:
    return TapLayer(f"{block}.attentions.0.transformer_blocks.0", place, index, downscale, HEADS)


LAYERS = (
    _layer("down_blocks.0", "down", 0, 1),
    _layer("down_blocks.1", "down", 1, 2),
    _layer("mid_block", "mid", 0, 4),
    _layer("up_blocks.0", "up", 0, 2),
    _layer("up_blocks.1", "up", 1, 1),
)


class _Attention(nn.Module):
    def __init__(self, source: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(source, WIDTH), nn.Linear(source, WIDTH)

    def logits(self, x: Tensor, source: Tensor) -> Tensor:
        """`[b heads queries keys]`, fp32."""
        q, k = (rearrange(p, "b t (n d) -> b n t d", n=HEADS) for p in (self.query(x), self.key(source)))
        return torch.einsum("b n q d, b n k d -> b n q k", q, k).float()

    def mixed(self, probs: Tensor, source: Tensor) -> Tensor:
        values = rearrange(self.value(source), "b t (n d) -> b n t d", n=HEADS)
        return rearrange(torch.einsum("b n q k, b n k d -> b n q d", probs.to(values), values), "b n q d -> b q (n d)")


class _Block(nn.Module):
    """A convolution, self-attention and cross-attention at one place; every tap kind can be recorded."""

    def __init__(self, layer: TapLayer) -> None:
        super().__init__()
        self.layer = layer
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.own, self.text = _Attention(WIDTH), _Attention(CONTEXT)

    def forward(self, x: Tensor, context: Tensor, taps: Taps) -> Tensor:
        x = x + F.silu(self.mix(x))
        h, w = x.shape[-2:]
        flat = rearrange(x, "b d h w -> b (h w) d")
        probs = self.own.logits(flat, flat).softmax(dim=-1)
        self._record(taps, "self_probs", probs, h)
        flat = flat + self.own.mixed(probs, flat)
        logits = self.text.logits(flat, context)
        self._record(taps, "cross_logits", logits, h)
        probs = logits.softmax(dim=-1)
        self._record(taps, "cross_probs", probs, h)
        flat = flat + self.text.mixed(probs, context)
        self._record(taps, "hidden", flat[:, None], h)
        return rearrange(flat, "b (h w) d -> b d h w", h=h, w=w)

    def _record(self, taps: Taps, kind: str, value: Tensor, h: int) -> None:
        if taps.wants(self.layer.name, kind):
            taps.record(self.layer.name, kind, rearrange(value, "b n (h w) k -> b n k h w", h=h))


class ToyNetwork(nn.Module):
    """Down twice, up twice, with skips; sides of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(layer) for layer in LAYERS)

    def forward(self, z: Tensor, t: int, context: Tensor, taps: Taps) -> Tensor:
        first, second, mid, third, last = self.blocks
        fine = first(self.enter(z) + torch.sin(torch.tensor(0.01 * t)), context, taps)
        coarse = second(_halved(fine), context, taps)
        x = mid(_halved(coarse), context, taps)
        x = third(coarse + F.interpolate(x, coarse.shape[-2:]), context, taps)
        x = last(fine + F.interpolate(x, fine.shape[-2:]), context, taps)
        return self.leave(x)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)


class ToyModel:
    """Satisfies the protocol `Model`; the same weights every time."""

    name = "toy"
    device = torch.device("cpu")
    dtype = torch.float32
    noise_schedule = NoiseSchedule()
    default_size: tuple[int, int] = (16, 16)
    default_cfg = 3.0
    factor = FACTOR
    latent_channels = CHANNELS

    def __init__(self) -> None:
        with seeded(0):
            self.network = ToyNetwork().requires_grad_(False)
            self.encoder = nn.Conv2d(3, CHANNELS, FACTOR, stride=FACTOR).requires_grad_(False)
            self.decoder = nn.ConvTranspose2d(CHANNELS, 3, FACTOR, stride=FACTOR).requires_grad_(False)

    def bind(
        self, prompts: Sequence[str], negatives: Sequence[str], layouts: Sequence[Layout], *, cfg: float, count: int
    ) -> ToyDenoiser:
        return ToyDenoiser(self, prompts, tuple(negatives) or ("",) * len(prompts), cfg)

    def tokens(self, prompt: str) -> TokenTable:
        """Start, the words (long ones cut in two), end and padding."""
        pieces = [Piece(0, "<start>", 0, 0, special=True)]
        for word in re.finditer(r"\S+", prompt):
            for start in range(word.start(), word.end(), LONGEST_PIECE):
                end = min(start + LONGEST_PIECE, word.end())
                pieces.append(Piece(len(pieces), prompt[start:end], start, end))
        if len(pieces) >= TOKENS:
            raise ConfigError(f"prompt {prompt!r}: the toy model takes up to {TOKENS - 2} word pieces; use a shorter prompt")
        pieces += [Piece(i, "<end>", 0, 0, special=True) for i in range(len(pieces), TOKENS)]
        return TokenTable(prompt, tuple(pieces))

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        width, height = size
        if min(size) < 1 or width % FACTOR or height % FACTOR:
            raise ConfigError(f"size {width}x{height}: the sides of the toy model's images are multiples of {FACTOR}")
        return CHANNELS, height // FACTOR, width // FACTOR

    def encode_image(self, images: Image) -> Latents:
        self.latent_shape((images.shape[-1], images.shape[-2]))
        return self.encoder(images * 2 - 1)

    def decode(self, z: Latents) -> Image:
        return torch.sigmoid(self.decoder(z))

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name, "parameters": sum(p.numel() for p in self.network.parameters())}

    def embed(self, prompt: str) -> Tensor:
        """`[t d]`: every word piece has an embedding of its own, moved a little by its position."""
        return 0.3 * draw(0, TOKENS, CONTEXT) + torch.stack([_meaning(piece.text) for piece in self.tokens(prompt).pieces])


@cache  # checks bind the same few prompts again and again
def _meaning(text: str) -> Tensor:
    """The embedding `[d]` of a word piece."""
    return 2 * draw(sum(map(ord, text)) + 1, CONTEXT)


class ToyDenoiser:
    """Satisfies the protocol `Denoiser`."""

    def __init__(self, model: ToyModel, prompts: Sequence[str], negatives: Sequence[str], cfg: float) -> None:
        self.model, self.cfg = model, cfg
        self.layers = LAYERS
        self.prompts = tuple(prompts)
        self.tokens = tuple(model.tokens(prompt) for prompt in prompts)
        self.context = torch.stack([model.embed(prompt) for prompt in prompts])
        self.unconditional = torch.stack([model.embed(negative) for negative in negatives])

    @torch.no_grad()
    def predict(self, z: Latents, step: Step, conditional: Prediction | None = None) -> Prediction:
        towards = self.model.network(z, step.t, self.context, Taps(())) if conditional is None else conditional.eps
        if self.cfg == 1:
            return Prediction.from_eps(z, towards, step)
        without = self.model.network(z, step.t, self.unconditional, Taps(()))
        return Prediction.from_eps(z, without + self.cfg * (towards - without), step)

    def observe(self, z: Latents, step: Step, taps: Taps) -> View:
        with torch.enable_grad():
            try:
                eps = self.model.network(z, step.t, self.context, taps)
            except EverythingRecorded:
                return View(z, step, taps, self.layers)
            return View(z, step, taps, self.layers, Prediction.from_eps(z, eps, step), self.model.decode)

    def select(self, samples: Sequence[int]) -> Self:
        some, places = copy(self), list(samples)
        some.prompts, some.tokens = tuple(self.prompts[i] for i in places), tuple(self.tokens[i] for i in places)
        some.context, some.unconditional = self.context[places], self.unconditional[places]
        return some
