"""The model `mosaic`: pictures of tiles, each in the colour of one word of the prompt.

In its world, every tile has the colour of one token, all tokens equally likely, and neighbours mostly agree. What the noise hides
of such a tile can be computed: its expected colour is a softmax over the tokens. That is cross-attention, with the noisy tile as
query and the tokens' colours as keys and values; so this model needs no training, and its only weights are a list of colours.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

from lsregen.framework import (
    CheckpointError,
    ConfigError,
    Layout,
    LoadOptions,
    NoiseSchedule,
    Piece,
    Prediction,
    Step,
    TapLayer,
    Taps,
    TokenTable,
    View,
    hookimpl,
)
from lsregen.framework.sampling.taps import EverythingRecorded

TOKENS = 32
TILE = 4  # pixels of a side
REACH = 1.0  # in tiles: how far a tile looks for neighbours of its colour
LAYER = TapLayer("mosaic", place="mid", block=0, downscale=1, heads=1)


@dataclass(frozen=True)
class Palette:
    """The weights: the colour of the ground, and of words, from -1 to 1."""

    path: Path
    ground: tuple[float, ...]
    words: Mapping[str, tuple[float, ...]]

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            words = {str(word).lower(): _colour(value) for word, value in data["words"].items()}
            return cls(path, _colour(data["ground"]), MappingProxyType(words))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            form = '{"ground": [1, 1, 1], "words": {"red": [0.9, 0.1, 0.1]}}'
            raise CheckpointError(f"palette {path}: cannot be used ({type(error).__name__}: {error}); expected {form}") from None


def _colour(value: Sequence[float]) -> tuple[float, ...]:
    if len(value) != 3 or not all(0 <= part <= 1 for part in value):
        raise ValueError(f"{value} is no colour of three numbers from 0 to 1")
    return tuple(2 * part - 1 for part in value)


class Mosaic:
    """Satisfies the protocol `Model`. A latent is a small picture: a channel for each colour, a cell for each tile."""

    dtype = torch.float32
    noise_schedule = NoiseSchedule()
    default_size: tuple[int, int] = (96, 96)
    default_cfg = 1.0
    factor = TILE
    latent_channels = 3

    def __init__(self, palette: Palette, device: torch.device) -> None:
        self.name, self.palette, self.device = palette.path.stem, palette, device

    def bind(
        self, prompts: Sequence[str], negatives: Sequence[str], layouts: Sequence[Layout], *, cfg: float, count: int
    ) -> "MosaicDenoiser":
        return MosaicDenoiser(self, prompts, negatives, cfg)

    def tokens(self, prompt: str) -> TokenTable:
        """A start token, one for each word, and padding."""
        words = list(re.finditer(r"\w+|[^\w\s]", prompt))
        pieces = [Piece(0, "<start>", 0, 0, special=True)]
        pieces += [Piece(i, word[0].lower(), *word.span()) for i, word in enumerate(words[: TOKENS - 1], 1)]
        pieces += [Piece(i, "<end>", 0, 0, special=True) for i in range(len(pieces), TOKENS)]
        cut = words[TOKENS - 1].start() if len(words) > TOKENS - 1 else None
        return TokenTable(prompt, tuple(pieces), cut)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        width, height = size
        if min(size) < TILE or width % TILE or height % TILE:
            raise ConfigError(f"size {width}x{height}: both sides have to be multiples of {TILE}, such as 96x64")
        return self.latent_channels, height // TILE, width // TILE

    def encode_image(self, images: Tensor) -> Tensor:
        return 2 * reduce(images, "b c (h y) (w x) -> b c h w", "mean", y=TILE, x=TILE) - 1

    def decode(self, z: Tensor) -> Tensor:
        return repeat((z / 2 + 0.5).clamp(0, 1), "b c h w -> b c (h y) (w x)", y=TILE, x=TILE)

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name, "family": "mosaic", "sha256": sha256(self.palette.path.read_bytes()).hexdigest()}

    def colours(self, prompt: str) -> Tensor:
        """The colour of every token `[t c]`: words without one of their own have the ground's, and so has the padding."""
        pieces = self.tokens(prompt).pieces
        return torch.tensor([self.palette.words.get(piece.text, self.palette.ground) for piece in pieces], device=self.device)


class MosaicDenoiser:
    """Satisfies the protocol `Denoiser`: everything that is known of one batch."""

    layers = (LAYER,)

    def __init__(self, model: Mosaic, prompts: Sequence[str], negatives: Sequence[str], cfg: float) -> None:
        self.model, self.cfg = model, cfg
        self.prompts = tuple(prompts)
        self.tokens = tuple(model.tokens(prompt) for prompt in prompts)
        self.colours = torch.stack([model.colours(prompt) for prompt in prompts])  # [b t c]
        self.others = torch.stack([model.colours(negative) for negative in negatives])

    @torch.no_grad()
    def predict(self, z: Tensor, step: Step, conditional: Prediction | None = None) -> Prediction:
        towards = expected(z, self.colours, step, Taps(())) if conditional is None else conditional.z0
        if self.cfg != 1:
            away = expected(z, self.others, step, Taps(()))
            towards = away + self.cfg * (towards - away)
        return from_z0(z, towards, step)

    def observe(self, z: Tensor, step: Step, taps: Taps) -> View:
        with torch.enable_grad():
            try:
                z0 = expected(z, self.colours, step, taps)
            except EverythingRecorded:  # nobody needs more than what has been recorded
                return View(z, step, taps, self.layers)
            return View(z, step, taps, self.layers, from_z0(z, z0, step), self.model.decode)

    def select(self, samples: Sequence[int]) -> Self:
        some, places = copy(self), list(samples)
        some.prompts, some.tokens = tuple(self.prompts[i] for i in places), tuple(self.tokens[i] for i in places)
        some.colours, some.others = self.colours[places], self.others[places]
        return some


def expected(z: Tensor, colours: Tensor, step: Step, taps: Taps) -> Tensor:
    """The expected clean latent `[b c h w]`, given `z` and the colours of the tokens `[b t c]`."""
    h, w = z.shape[-2:]

    def record(kind: str, value: Tensor) -> None:
        """`value`: `[b n (h w) k]`."""
        taps.record(LAYER.name, kind, rearrange(value, "b n (h w) k -> b n k h w", h=h))

    tiles = rearrange(z, "b c h w -> b 1 (h w) c")
    near = nearness(h, w, z.device).expand(len(z), 1, -1, -1)  # self-attention: a tile and its neighbours
    record("self_probs", near)
    looks = near @ tiles  # averaging takes noise away
    record("hidden", looks)
    # The exponent of a Gaussian around `signal * colour`, without what is the same for all tokens.
    signal = step.alpha_bar**0.5
    noise = (1 - step.alpha_bar) * near.square().sum(dim=-1, keepdim=True)  # the variance that averaging leaves
    keys = colours[:, None]  # [b 1 t c]
    logits = (signal * looks @ keys.mT - 0.5 * signal**2 * keys.square().sum(dim=-1)[:, :, None]) / noise
    record("cross_logits", logits)
    probs = logits.softmax(dim=-1)
    record("cross_probs", probs)
    return rearrange(probs @ keys, "b 1 (h w) c -> b c h w", h=h)


def nearness(h: int, w: int, device: torch.device) -> Tensor:
    """How much each tile looks at every other, `[(h w) (h w)]`; rows add up to 1."""
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=-1).float()
    return F.softmax(-(torch.cdist(places, places) ** 2) / (2 * REACH**2), dim=-1)


def from_z0(z: Tensor, z0: Tensor, step: Step) -> Prediction:
    """The pair for a model that predicts the clean latent."""
    return Prediction((z - step.alpha_bar**0.5 * z0) / (1 - step.alpha_bar) ** 0.5, z0)


class MosaicLoader:
    """Loads a palette: the one that comes with this package, by the name `mosaic`, or a file of your own that ends in .json."""

    takes = ()  # no option but device and dtype
    embedded: Mapping[str, Path] = MappingProxyType({"mosaic": Path(__file__).with_name("mosaic.json")})

    def recognises(self, path: Path) -> bool:
        return path.suffix.lower() == ".json"

    def load(self, path: Path, options: LoadOptions) -> Mosaic:
        if options.dtype not in ("auto", "fp32"):
            raise ConfigError(f"dtype {options.dtype!r}: a mosaic is computed in fp32; expected auto or fp32")
        if options.device not in ("auto", "cpu"):
            raise ConfigError(f"device {options.device!r}: a mosaic is made on the CPU; expected auto or cpu")
        return Mosaic(Palette.read(path), torch.device("cpu"))


@hookimpl
def register_models(register: Callable[[str, MosaicLoader], None]) -> None:
    register("mosaic", MosaicLoader())
