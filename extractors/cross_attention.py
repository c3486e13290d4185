"""Where each word looks: the cross-attention maps of chosen layers, for the word pieces of each phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from einops import rearrange
from torch import Tensor

from ..framework.config.constraints import Filled, NotNegative, Positive, Range
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import rasterise
from ..framework.layout.regions import Layout
from ..framework.layout.tokens import TokenTable
from ..framework.protocols import Run
from ..framework.sampling.taps import TapPoint, select_layers
from ..framework.types import Features, Maps, Needs, TapRequest, View
from .smoothing import Kernel, smooth

Layers: TypeAlias = Annotated[tuple[str, ...], Filled()]
Drop: TypeAlias = Literal["none", "ends", "specials"]
Words: TypeAlias = Literal["all", "last"]


@dataclass(frozen=True)
class CrossAttention:
    """Cross-attention probabilities `[b heads pieces h w]` of the phrases of each sample's layout, one tensor a layer.

    In order: heads averaged, layers of one grid averaged, special tokens dropped, the rest renormalised, the phrases' pieces
    picked, maps smoothed; each only if asked for. A phrase that has no place in the layout is present without a target.
    """

    kind: ClassVar[str] = "attention"

    layers: Layers = option(("mid", "first_up"), "layer selectors: all, down, mid, up, first_up, grid:coarsest, grid:1/4, globs")
    heads: Literal["keep", "mean"] = option("keep", "keep every attention head as a view, or average them")
    combine: Literal["none", "mean"] = option("none", "average the layers that have the same grid")
    drop: Drop = option("none", "tokens left out: ends (first and last position), specials (start, end, padding)")
    renormalise: Literal["none", "sum", "softmax"] = option(
        "none", "of what is left after dropping: sum (to 1 again), softmax (with the temperature)"
    )
    temperature: Positive = option(100.0, "factor before the softmax of `renormalise: softmax`")
    words: Words = option("all", "the words of a phrase that are looked at")
    pieces: Literal["keep", "mean", "max"] = option(
        "keep", "pieces of one phrase: keep (energies are averaged later), mean or max of the maps"
    )
    smooth_sigma: NotNegative = option(0.0, "Gaussian smoothing in cells; 0 is none")
    smooth_size: Annotated[int, Range(1)] = option(3, "cells of the smoothing kernel per side, odd")
    smooth_kernel: Kernel = option("gaussian", "attend_and_excite is the published kernel, wider by sqrt 2")

    def __post_init__(self) -> None:
        check_options(self)
        if self.smooth_size % 2 == 0:
            raise ConfigError(f"smooth_size: {self.smooth_size} is even; expected an odd number of cells, such as 3")

    @property
    def needs(self) -> Needs:
        return Needs(taps=(TapRequest("cross_probs", tuple(self.layers)),), phrases=True)

    def prepare(self, run: Run, raster: str) -> CrossAttentionState:
        layers = select_layers(run.denoiser.layers, self.layers)
        spans = [spans_of(table, layout, self.words) for table, layout in zip(run.denoiser.tokens, run.layouts, strict=True)]
        return CrossAttentionState.build(
            [TapPoint(layer.name, "cross_probs") for layer in layers],
            spans, run.denoiser.tokens, run.layouts, raster, run.z_T.device, one_per_phrase=self.pieces != "keep",
        )  # fmt: skip

    def current(self, view: View, state: CrossAttentionState) -> Features:
        maps = [view[point] for point in state.points]  # [b heads tokens h w] each
        if self.heads == "mean":
            maps = [m.mean(dim=1, keepdim=True) for m in maps]
        if self.combine == "mean":
            maps = mean_of_equal_grids(maps)
        picked = tuple(self._pick(m, state) for m in maps)
        return Features(picked, self.kind, state.present, state.group, layouts=state.layouts)

    def target(self, view: View, state: CrossAttentionState) -> Features | None:
        """Masks `[b 1 k h w]` on the grids of the current maps; a phrase without a place is not present in the target."""
        if not any(layout.boxed for layout in state.layouts):
            return None
        grids = [view[point].shape[-2:] for point in state.points]
        if self.combine == "mean":
            grids = list(dict.fromkeys(grids))
        masks = tuple(state.masks((int(h), int(w)))[:, None] for h, w in grids)
        return Features(masks, self.kind, state.present & state.placed, state.group, layouts=state.layouts)

    def _pick(self, maps: Maps, state: CrossAttentionState) -> Maps:
        """The pieces' maps `[b n k h w]` out of all tokens' `[b n t h w]`."""
        maps = self._renormalised(maps, state)
        samples = torch.arange(len(maps), device=maps.device)[:, None]
        # Indexed so, nothing as large as the maps is kept for the backward.
        maps = rearrange(maps[samples, :, state.index], "b pieces n h w -> b n pieces h w")
        if self.pieces != "keep":
            maps = state.per_phrase(maps, self.pieces)
        if self.smooth_sigma > 0:
            maps = smooth(maps, self.smooth_size, self.smooth_sigma, self.smooth_kernel)
        return maps

    def _renormalised(self, maps: Maps, state: CrossAttentionState) -> Maps:
        """Without the dropped tokens, their positions kept (as zeros) so that spans still count from the first token."""
        if self.drop == "none" and self.renormalise == "none":
            return maps
        kept = state.kept(self.drop)[:, None, :, None, None]  # [b 1 t 1 1]
        if self.renormalise == "softmax":
            return torch.softmax(torch.where(kept, maps * self.temperature, -torch.inf), dim=2)
        maps = maps * kept
        if self.renormalise == "sum":
            return maps / maps.sum(dim=2, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        return maps


def spans_of(table: TokenTable, layout: Layout, words: str) -> list[tuple[int, ...]]:
    """The pieces of each phrase that are looked at: of all its words, or of the last."""
    spans = [table.span(phrase) for phrase in layout.phrases]
    return [table.words(span)[-1] for span in spans] if words == "last" else spans


def mean_of_equal_grids(maps: Sequence[Maps]) -> list[Maps]:
    """Layers of one grid averaged, in the order of the grids' first mention."""
    groups: dict[tuple[int, ...], list[Maps]] = {}
    for m in maps:
        groups.setdefault(tuple(m.shape[-2:]), []).append(m)
    for grid, members in groups.items():
        if len({m.shape[1] for m in members}) > 1:
            raise ConfigError(f"combine: mean: layers of the grid {grid} differ in their number of heads; set heads: mean too")
    return [torch.stack(members).mean(dim=0) for members in groups.values()]


@dataclass
class CrossAttentionState:
    """What one run fixes: tap points, each sample's pieces and phrases, and the masks made so far.

    `index`, `piece_present`, `piece_group` are `[b pieces]`; `present`, `group`, `placed` `[b k]` describe the things of
    the features: pieces, or phrases where pieces are merged.
    """

    points: list[TapPoint]
    tables: tuple[TokenTable, ...]
    layouts: tuple[Layout, ...]
    raster: str
    index: Tensor
    piece_present: Tensor
    piece_group: Tensor
    present: Tensor
    group: Tensor
    placed: Tensor
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])

    @classmethod
    def build(
        cls,
        points: list[TapPoint],
        spans: Sequence[Sequence[tuple[int, ...]]],
        tables: tuple[TokenTable, ...],
        layouts: tuple[Layout, ...],
        raster: str,
        device: torch.device,
        *,
        one_per_phrase: bool,
    ) -> CrossAttentionState:
        flat = [[(piece, g) for g, span in enumerate(sample) for piece in span] for sample in spans]
        pieces = max((len(sample) for sample in flat), default=0)
        if pieces == 0:
            raise ConfigError(
                "no sample names a phrase to look at; give boxes (--box 'PHRASE=L,T,R,B') or phrases (--phrase PHRASE)"
            )
        padded = [sample + [(0, 0)] * (pieces - len(sample)) for sample in flat]
        index, group = torch.tensor(padded, device=device).unbind(dim=-1)  # [b pieces] each
        exists = torch.tensor([[j < len(sample) for j in range(pieces)] for sample in flat], device=device)
        phrases = max(len(layout.phrases) for layout in layouts)
        if one_per_phrase:
            things = torch.arange(phrases, device=device).expand(len(layouts), phrases)
            present = torch.tensor([[p < len(layout.phrases) for p in range(phrases)] for layout in layouts], device=device)
        else:
            things, present = group, exists
        has_place = torch.zeros(len(layouts), phrases, dtype=torch.bool)
        for sample, layout in enumerate(layouts):
            for p, phrase in enumerate(layout.phrases):
                has_place[sample, p] = bool(Layout(layout.of(phrase)).boxed)
        placed = torch.take_along_dim(has_place.to(device), things, dim=1)
        return cls(points, tables, layouts, raster, index, exists, group, present, things, placed)

    def kept(self, drop: str) -> Tensor:
        """Which tokens `[b t]` are left."""
        kept = torch.ones(len(self.tables), self.tables[0].length, dtype=torch.bool)
        for sample, table in enumerate(self.tables):
            if drop == "ends":
                kept[sample, [0, -1]] = False
            elif drop == "specials":
                kept[sample, list(table.special)] = False
        return kept.to(self.index.device)

    def per_phrase(self, maps: Maps, how: str) -> Maps:
        """Pieces `[b n pieces h w]` merged into phrases `[b n k h w]`."""
        member = self.piece_group[:, None] == torch.arange(self.group.shape[1], device=maps.device)[:, None]  # [b k pieces]
        member = (member & self.piece_present[:, None]).to(maps.dtype)
        if how in ("mean", "sum"):
            weights = member / member.sum(dim=2, keepdim=True).clamp(min=1) if how == "mean" else member
            return torch.einsum("b n p h w, b k p -> b n k h w", maps, weights)
        return (maps[:, :, None] * member[:, None, :, :, None, None]).amax(dim=3)

    def masks(self, grid: tuple[int, int]) -> Tensor:
        """The union of each thing's regions, `[b k h w]`, rasterised once per grid."""
        if grid not in self._masks:
            masks = torch.zeros(*self.group.shape, *grid)
            for sample, layout in enumerate(self.layouts):
                for thing in range(self.group.shape[1]):
                    if bool(self.present[sample, thing] & self.placed[sample, thing]):
                        phrase = layout.phrases[int(self.group[sample, thing])]
                        regions = Layout(layout.of(phrase)).boxed
                        masks[sample, thing] = rasterise(regions, grid, self.raster).amax(dim=0)
            self._masks[grid] = masks.to(self.index.device)
        return self._masks[grid]
