"""Does attention know where things are? Every shape word's map on true images, noised, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...framework.layout.regions import Layout
from ...framework.protocols import Model
from ...framework.sampling.taps import TapLayer, TapPoint, Taps, select_layers
from ...framework.types import Latents, Maps, Step
from ..metrics.bootstrap import bootstrap, mean
from .geometry import Box
from .scene import Scene
from .true_images import diagnostic_step, encode, true_images

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline
    from .scenes import Scenes


@torch.no_grad()
def attend(model: Model, scenes: Sequence[Scene], z0: Latents, step: Step, selectors: Sequence[str]) -> dict[TapLayer, Maps]:
    """The cross-attention `[b n t h w]` of the chosen layers, in the order of the pass.

    One pass of the conditional branch on the true latents `z0` `[b c h w]`, noised to `step` by each scene's own seed.
    """
    signal, noise = step.alpha_bar**0.5, (1 - step.alpha_bar) ** 0.5
    drawn = [torch.randn(z0.shape[1:], generator=torch.Generator().manual_seed(scene.seed)) for scene in scenes]
    z = signal * z0 + noise * torch.stack(drawn).to(z0)
    captions = [scene.caption for scene in scenes]
    denoiser = model.bind(captions, [""] * len(scenes), [Layout()] * len(scenes), cfg=1.0, count=step.count)
    layers = select_layers(denoiser.layers, selectors)
    points = {layer: TapPoint(layer.name, "cross_probs") for layer in layers}
    view = denoiser.observe(z, step, Taps(points.values()))
    return {layer: view[point] for layer, point in points.items()}


def mean_map(maps: Sequence[Maps]) -> Tensor:
    """Maps `[b n t h w]` averaged over heads and layers, on the finest of their grids: `[b t h w]`."""
    grid = max((tuple(m.shape[-2:]) for m in maps), key=lambda shape: shape[0] * shape[1])
    over_heads = [m.float().mean(dim=1) for m in maps]
    return torch.stack([interpolate(m, grid, mode="bilinear", align_corners=False) for m in over_heads]).mean(dim=0)


def word_maps(model: Model, scene: Scene, maps: Tensor) -> list[tuple[Tensor, Box]]:
    """Of a scene's maps `[t h w]`, that of each object's shape word, averaged over its pieces: `[h w]`; with its box."""
    table = model.tokens(scene.caption)
    words = [list(table.words(table.span(phrase))[-1]) for phrase in scene.phrases]  # the shape is the last word of its phrase
    return [(maps[word].mean(dim=0), box) for word, box in zip(words, scene.boxes, strict=True)]


def peaks_in_box(model: Model, scenes: Sequence[Scene], maps: Tensor) -> list[float]:
    """The share of each scene's objects whose shape word is attended to most inside the object's own box.

    `maps`: `[b t h w]`. A peak is the centre of a map's cell.
    """
    return [
        float(np.mean([_inside(_peak(found), box) for found, box in word_maps(model, scene, of_scene)]))
        for scene, of_scene in zip(scenes, maps, strict=True)
    ]


def layer_pointing(
    pipeline: Pipeline, scenes: Scenes, *, batch: int = 16, on_done: Callable[[int], None] = lambda count: None
) -> list[dict[str, Any]]:
    """How often each layer's mean over heads peaks in the right box, as JSON; last `all`, the mean over layers.

    On true images at `diagnostics.NOISE_LEVEL`. Every entry: `layer`, `place`, `grid` (height and width), `heads`, and as metrics
    `peak_in_box` with its interval over scenes.
    """
    model, step = pipeline.model, diagnostic_step(pipeline)
    shares: dict[TapLayer | None, list[float]] = {}
    grids: dict[TapLayer, list[int]] = {}
    for first in range(0, scenes.count, batch):
        chosen = [scenes.scene(seed) for seed in scenes.seeds[first : first + batch]]
        maps = attend(model, chosen, encode(model, true_images(chosen)), step, ("all",))
        for layer, found in maps.items():
            shares.setdefault(layer, []).extend(peaks_in_box(model, chosen, mean_map([found])))
            grids[layer] = list(found.shape[-2:])
        shares.setdefault(None, []).extend(peaks_in_box(model, chosen, mean_map(list(maps.values()))))
        on_done(len(chosen))
    together = shares.pop(None)
    described = [
        {"layer": layer.name, "place": layer.place, "grid": grids[layer], "heads": layer.heads, **_measured(values)}
        for layer, values in shares.items()
        if layer is not None
    ]
    finest = max(grids.values())
    return [
        *described,
        {"layer": "all", "place": "", "grid": finest, "heads": sum(layer.heads for layer in grids), **_measured(together)},
    ]


@torch.no_grad()
def average_maps(pipeline: Pipeline, scene: Scene) -> tuple[Tensor, list[tuple[Tensor, Box]]]:
    """The true image `[3 H W]` of a scene, and its objects' maps averaged over all layers and heads; see `word_maps`."""
    model, image = pipeline.model, true_images([scene])
    found = attend(model, [scene], encode(model, image), diagnostic_step(pipeline), ("all",))
    return image[0], word_maps(model, scene, mean_map(list(found.values()))[0])


def best_layers(pointing: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """The names of the layers that point best; of equals, the earlier."""
    layers = [entry for entry in pointing if entry["layer"] != "all"]
    ranked = sorted(layers, key=lambda entry: -entry["metrics"]["peak_in_box"]["value"])
    return [entry["layer"] for entry in ranked[:count]]


def _measured(values: Sequence[float]) -> dict[str, Any]:
    return {"metrics": {"peak_in_box": bootstrap(mean(values, share=True)).to_json()}}


def _peak(values: Tensor) -> tuple[float, float]:
    """Where a map `[h w]` is highest, x and y in [0, 1]."""
    height, width = values.shape
    row, column = divmod(int(values.argmax()), width)
    return (column + 0.5) / width, (row + 0.5) / height


def _inside(point: tuple[float, float], box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
