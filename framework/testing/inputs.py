"""Inputs for the checks: features of every kind, layouts that are full, tiny and missing, and the levels of a noise schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from ..layout.rasters import rasterise
from ..layout.regions import Box, Layout, Region
from ..types import Features, NoiseSchedule, Step

PHRASE_KINDS = ("attention", "logits", "probability")  # their things are word pieces or phrases, with boxes for targets
PHRASES = ("red circle", "blue square", "green triangle")
GROUPS = ((0, 0, 1, 2), (0, 1, 1, 0), (0, 0, 0, 0))  # the phrase of each piece; samples have three, two and one of them
PRESENT = ((True, True, True, True), (True, True, True, False), (True, False, False, False))
HALVES = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.5, 0.0, 1.0, 0.5))  # whole cells of every grid with even sides
EXTREMES = ((0.0, 0.0, 1.0, 1.0), (0.41, 0.41, 0.42, 0.42), (0.0, 0.6, 1.0, 0.601))  # the whole image, a speck, a hair
IMAGE_SCALE = 4  # pixels of a made image per cell of a made map

Boxes = Sequence[tuple[float, float, float, float]]


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal values from a stream of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _attention(x: Tensor) -> Tensor:
    """Shares of a softmax over the things and one more token, which holds what they leave."""
    rest = torch.zeros_like(x[:, :, :1])
    return torch.softmax(torch.cat([x, rest], dim=2), dim=2)[:, :, :-1]


VALUES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "attention": _attention,
        "probability": torch.sigmoid,
        "image": torch.sigmoid,
        "logits": lambda x: 2 * x,
        "latent": lambda x: x,
    }
)


@dataclass(frozen=True)
class Case:
    """Features and what they should be; `raster` makes the masks."""

    current: Features
    target: Features

    @classmethod
    def make(
        cls,
        kind: str,
        raster: str,
        grids: Sequence[tuple[int, int]] = ((8, 8),),
        *,
        seed: int = 0,
        boxes: Boxes = HALVES,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Case:
        """Three samples. Things of phrase kinds are word pieces of three, two and one phrases, seen by two views (three on a
        second grid); those of latents and images are channels, all present."""
        phrases = kind in PHRASE_KINDS
        k = 3 if kind == "image" else 4
        scale = IMAGE_SCALE if kind == "image" else 1
        sizes = [(scale * h, scale * w) for h, w in grids]
        present = torch.tensor(PRESENT) if phrases else torch.ones(3, k, dtype=torch.bool)
        group = torch.tensor(GROUPS) if phrases else torch.arange(k).repeat(3, 1)
        layouts = tuple(_layout(boxes[: max(groups) + 1]) for groups in GROUPS)
        drawn = [draw(10 * seed + i, 3, 2 + i if phrases else 1, k, *size, dtype=dtype) for i, size in enumerate(sizes)]
        aims = [
            _masks(layouts, size, raster).to(dtype)
            if phrases
            else VALUES[kind](draw(10 * seed + 5 + i, 3, 1, k, *size)).to(dtype)
            for i, size in enumerate(sizes)
        ]
        made = Features(
            tuple(VALUES[kind](x).to(device) for x in drawn),
            kind,
            present.to(device),
            group.to(device),
            relations=((0, 1, 1), (0, 2, -1)) if phrases else (),
            layouts=layouts,
        )
        return cls(made, replace(made, maps=tuple(aim.to(device) for aim in aims), relations=()))

    def sample(self, index: int, *, present_only: bool = False) -> Case:
        """One sample as a batch of its own; without the columns of what is absent if `present_only`."""
        kept = self.current.present[index] if present_only else torch.ones_like(self.current.present[index])
        return Case(_sample(self.current, index, kept), _sample(self.target, index, kept))

    def leaves(self) -> Case:
        """With maps of its own that gradients can be taken at."""
        return replace(self, current=replace(self.current, maps=tuple(m.detach().requires_grad_() for m in self.current.maps)))


def with_maps(case: Case, maps: Sequence[Tensor]) -> Case:
    return replace(case, current=replace(case.current, maps=tuple(maps)))


def spoilt(features: Features, where: Tensor, seed: int) -> Features:
    """Other values, as its kind may hold and rather extreme, in the things where `where` `[b k]` is true."""
    there = where[:, None, :, None, None]
    others = [VALUES[features.kind](5 * draw(seed, *m.shape, dtype=m.dtype)).to(m.device) for m in features.maps]
    return replace(features, maps=tuple(torch.where(there, o, m) for o, m in zip(others, features.maps, strict=True)))


def _sample(features: Features, index: int, kept: Tensor) -> Features:
    return replace(
        features,
        maps=tuple(m[index : index + 1, :, kept] for m in features.maps),
        present=features.present[index : index + 1, kept],
        group=features.group[index : index + 1, kept],
        layouts=features.layouts[index : index + 1],
    )


def _layout(boxes: Boxes) -> Layout:
    return Layout(tuple(Region(phrase, Box(*box)) for phrase, box in zip(PHRASES, boxes, strict=False)))


def _masks(layouts: Sequence[Layout], grid: tuple[int, int], raster: str) -> Tensor:
    """The mask of every word piece, `[b 1 k h w]`."""
    samples = [rasterise(layout, grid, raster)[list(groups)] for layout, groups in zip(layouts, GROUPS, strict=True)]
    return torch.stack(samples)[:, None]


def alpha_bars(noise: NoiseSchedule) -> Tensor:
    """`alpha_bar` of every training timestep `[train_steps]`, float64 (Ho et al. 2020, section 2), before any rescaling."""
    power = 2 if noise.beta_schedule == "scaled_linear" else 1
    first, last = noise.beta_start ** (1 / power), noise.beta_end ** (1 / power)
    betas = torch.linspace(first, last, noise.train_steps, dtype=torch.float64) ** power
    return torch.cumprod(1 - betas, dim=0)


def even_steps(noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
    """`count` steps of equal length down to timestep 0, the last to an `alpha_bar` of 1."""
    bars, stride = alpha_bars(noise), noise.train_steps // count
    times = [stride * i for i in reversed(range(count))]
    levels = [*(float(bars[t]) for t in times), 1.0]
    return tuple(Step(i, count, t, levels[i], levels[i + 1]) for i, t in enumerate(times))
