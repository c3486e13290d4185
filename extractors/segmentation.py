"""Which phrase every place belongs to: soft segments, from the network's cross-attention or by a model that segments pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..framework.config.constraints import Range
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.protocols import Run
from ..framework.sampling.taps import TapPoint, select_layers
from ..framework.types import Features, Maps, Needs, TapRequest, View
from .cross_attention import CrossAttentionState, Drop, Layers, Words, spans_of
from .segmenter import Segmenter, folder_of, load_segmenter

LOW, HIGH = 0.01, 0.99  # the quantiles between which published code measures a map's contrast


@dataclass(frozen=True)
class Segmentation:
    """Soft segments `[b 1 k h w]` in [0, 1], one for every phrase of a sample's layout; what no phrase takes belongs to the rest.

    Without `model` (Couairon et al. 2023, ZestGuide, section 3): the logits of cross-attention, brought to the finest grid among
    the chosen layers, go through a softmax over the tokens; a phrase's tokens are added up, and heads and layers averaged. `best`
    keeps for every phrase only so many of these maps, those of the largest contrast, as the published code for SDXL does.

    With `model`, a folder of a transformers model for semantic segmentation (SegFormer and its like): it looks at the decoded
    clean estimate, and a phrase has the class of its name. The grid is the latent's. Phrases of one class share their places.

    Raises:
        ConfigError: an option is none of its choices; while preparing, a phrase fits none of the model's labels.
    """

    kind: ClassVar[str] = "probability"

    model: str = option("", "folder of a transformers model that segments the decoded picture; none: cross-attention", folder_of)
    labels: Mapping[str, str] = option({}, "with a model: its label for a phrase, where the phrase does not end in it")
    layers: Layers = option(("grid:coarsest",), "without a model: layer selectors, as of cross_attention")
    drop: Drop = option("none", "tokens that take no part in the softmax: ends, or specials (start, end, padding)")
    words: Words = option("all", "the words of a phrase that are added up")
    best: Annotated[int, Range(0)] = option(
        0, "how many maps of the largest contrast, of all layers and heads, are averaged; 0 for all"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.labels and not self.model:
            raise ConfigError(f"labels: {dict(self.labels)} are those of a model, and none is given; set model too")

    @property
    def needs(self) -> Needs:
        if self.model:
            return Needs(image=True, phrases=True)
        return Needs(taps=(TapRequest("cross_logits", tuple(self.layers)),), phrases=True)

    def prepare(self, run: Run, raster: str) -> SegmentationState:
        points: list[TapPoint] = []
        if not self.model:
            points = [TapPoint(layer.name, "cross_logits") for layer in select_layers(run.denoiser.layers, self.layers)]
        spans = [spans_of(table, layout, self.words) for table, layout in zip(run.denoiser.tokens, run.layouts, strict=True)]
        phrases = CrossAttentionState.build(
            points, spans, run.denoiser.tokens, run.layouts, raster, run.z_T.device, one_per_phrase=True
        )
        if not self.model:
            return SegmentationState(phrases)
        segmenter = load_segmenter(self.model, run.z_T.device)
        classes = torch.zeros_like(phrases.group)
        for sample, layout in enumerate(run.layouts):
            for place, phrase in enumerate(layout.phrases):
                classes[sample, place] = segmenter.class_of(phrase, self.labels)
        return SegmentationState(phrases, segmenter, classes)

    def current(self, view: View, state: SegmentationState) -> Features:
        phrases = state.phrases
        maps = self._attended(view, phrases) if state.segmenter is None else self._seen(view, state)
        return Features((maps,), self.kind, phrases.present, phrases.group, layouts=phrases.layouts)

    def target(self, view: View, state: SegmentationState) -> Features | None:
        """Masks `[b 1 k h w]` on the grid of the segments; a phrase without a place is not present in the target."""
        phrases = state.phrases
        if not any(layout.boxed for layout in phrases.layouts):
            return None
        grid = _finest([view[point] for point in phrases.points]) if phrases.points else _grid(view.z)
        masks = phrases.masks(grid)[:, None]
        if state.classes is not None:  # phrases of one class have one map: their places together are its target
            alike = (state.classes[:, :, None] == state.classes[:, None]) & (phrases.present & phrases.placed)[:, None]
            masks = (masks[:, :, None] * alike[:, None, :, :, None, None]).amax(dim=3)
        return Features((masks,), self.kind, phrases.present & phrases.placed, phrases.group, layouts=phrases.layouts)

    def _attended(self, view: View, phrases: CrossAttentionState) -> Maps:
        logits = [view[point] for point in phrases.points]  # [b heads tokens h w] each
        grid, kept = _finest(logits), phrases.kept(self.drop)[:, None, :, None, None]
        samples = torch.arange(len(view.z), device=view.z.device)[:, None]
        found: list[Maps] = []
        for each in logits:
            each = _resized(each, grid)
            shares = torch.softmax(each if self.drop == "none" else torch.where(kept, each, -torch.inf), dim=2)
            pieces = rearrange(shares[samples, :, phrases.index], "b pieces n h w -> b n pieces h w")
            found.append(phrases.per_phrase(pieces, "sum"))
        maps = torch.cat(found, dim=1)  # [b layers*heads k h w]
        return (_of_contrast(maps, self.best) if 0 < self.best < maps.shape[1] else maps).mean(dim=1, keepdim=True)

    def _seen(self, view: View, state: SegmentationState) -> Maps:
        assert state.segmenter is not None
        assert state.classes is not None
        shares = torch.softmax(_resized(state.segmenter(view.image())[:, None], _grid(view.z)), dim=2)  # [b 1 classes h w]
        return torch.take_along_dim(shares, state.classes[:, None, :, None, None], dim=2)


@dataclass
class SegmentationState:
    """What one run fixes: phrases and masks; with a model, the model and the class of every phrase, `[b k]`."""

    phrases: CrossAttentionState
    segmenter: Segmenter | None = None
    classes: Tensor | None = None


def _grid(maps: Tensor) -> tuple[int, int]:
    return int(maps.shape[-2]), int(maps.shape[-1])


def _finest(maps: list[Maps]) -> tuple[int, int]:
    return max((_grid(m) for m in maps), key=lambda grid: grid[0] * grid[1])


def _resized(maps: Maps, grid: tuple[int, int]) -> Maps:
    if _grid(maps) == grid:
        return maps
    b, n = maps.shape[:2]
    planes = F.interpolate(rearrange(maps, "b n k h w -> (b n) k h w"), grid, mode="bilinear", antialias=True)
    return rearrange(planes, "(b n) k h w -> b n k h w", b=b, n=n)


def _of_contrast(maps: Maps, count: int) -> Maps:
    """Of every thing, the `count` views with the largest product of peak and emptiness: `[b count k h w]`."""
    cells = maps.detach().flatten(3)
    contrast = cells.quantile(HIGH, dim=-1) * (1 - cells.quantile(LOW, dim=-1))  # [b n k]
    chosen = contrast.topk(count, dim=1).indices
    return torch.take_along_dim(maps, chosen[..., None, None], dim=1)
