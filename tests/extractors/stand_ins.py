"""As much of a run as the extractors of attention look at: layers, tokens of prompts, and maps made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lsregen.framework.events import drained
from lsregen.framework.guidance.term import preparing
from lsregen.framework.layout.regions import Layout, Region
from lsregen.framework.protocols import FeatureExtractor
from lsregen.framework.sampling.taps import TapLayer, TapPoint, Taps, select_layers
from lsregen.framework.types import Features, Step, View
from tests.toys import draw, make_run, token_table

STEP = Step(0, 5, 901, 0.1, 0.2)
TOKENS = 12
LAYERS = (
    TapLayer("down_blocks.1", "down", 1, 2, 2),
    TapLayer("mid_block", "mid", 0, 4, 2),
    TapLayer("up_blocks.0", "up", 0, 2, 3),
)
SIDES = {2: (4, 6), 4: (2, 3)}  # grids of an 8 x 12 latent: not square
SPLIT = {"elephant": 3}


class Prompted:
    """As much of a denoiser as `prepare` looks at. `split`: words of two pieces, cut after so many characters."""

    def __init__(self, prompts: Sequence[str], layers: Sequence[TapLayer] = LAYERS, split: Mapping[str, int] = SPLIT) -> None:
        self.layers = tuple(layers)
        self.tokens = tuple(token_table(prompt, TOKENS, split) for prompt in prompts)


def logits(batch: int, seed: int = 0, layers: Sequence[TapLayer] = LAYERS) -> dict[str, Tensor]:
    """Random logits `[b heads t h w]` of every layer."""
    return {layer.name: 2 * draw(seed + i, batch, layer.heads, TOKENS, *SIDES[layer.downscale]) for i, layer in enumerate(layers)}


def probabilities(batch: int, seed: int = 0, layers: Sequence[TapLayer] = LAYERS) -> dict[str, Tensor]:
    """Random probabilities `[b heads t h w]` of every layer."""
    return {name: torch.softmax(value, dim=2) for name, value in logits(batch, seed, layers).items()}


def look(
    extractor: FeatureExtractor,
    prompts: Sequence[str],
    layouts: Sequence[Layout],
    maps: Mapping[str, Tensor],
    raster: str = "area",
    denoiser: Prompted | None = None,
) -> tuple[Features, Features | None, Any]:
    """What an extractor makes of the maps of its layers: current features, target and state."""
    run = make_run(denoiser or Prompted(prompts), torch.zeros(len(prompts), 3, 8, 12), layouts=layouts)
    state = drained(preparing(extractor, run, raster))
    points = [
        TapPoint(layer.name, request.kind)
        for request in extractor.needs.taps
        for layer in select_layers(run.denoiser.layers, request.layers)
    ]
    taps = Taps(points, full=True)
    for point in points:
        taps.record(point.layer, point.kind, maps[point.layer])
    view = View(run.z_T, STEP, taps, run.denoiser.layers)
    return extractor.current(view, state), extractor.target(view, state), state


def phrases(*names: str) -> Layout:
    return Layout(tuple(Region(name) for name in names))
