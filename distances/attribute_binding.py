"""How far words that belong together are from looking at one place, where no other looks (Rassin et al. 2023, SynGen)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.layout.rasters import Raster
from ..framework.types import Energy, Features, Maps

FLOOR = 1e-6  # share of an even spread that is mixed into every map: a logarithm of zero pulls without end


@dataclass(frozen=True)
class AttributeBinding:
    """`S(a, b) - (mean_u S(a, u) + mean_v S(b, v)) / 2`, summed over the pairs of words `a, b` that should agree.

    `u` and `v` are the words that `a` and `b` should differ from, `S` is `(KL(p, q) + KL(q, p)) / 2` of two words' maps `[h w]`,
    each a distribution over its cells (so that a map's scale does not matter), and the largest over their pieces (Rassin et al.
    2023, section 3, as their code computes it). Averaged over views and maps. The features' relations tell which words agree (+1)
    and which differ (-1). Without a lower bound, the value is of no use to a stop rule.

    Raises:
        ConfigError: the features relate no words that should agree.
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "probability")
    needs_target: ClassVar[bool] = False

    raster: Raster = option("area", "how boxes become masks (this distance looks at none)")

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, current: Features, target: Features | None = None) -> Energy:
        pairs = [(a, b) for a, b, sign in current.relations if sign > 0]
        if not pairs:
            raise ConfigError(
                "attribute_binding needs words that should agree, and these features relate none; use the extractor bound_words"
            )
        words = 1 + max(int(current.group.max()), *(max(a, b) for a, b, _ in current.relations))
        member = current.group[..., None] == torch.arange(words, device=current.group.device)  # [b k words]
        member = member & current.present[..., None]
        exists = member.any(dim=1)  # [b words]
        differ = torch.zeros(words, words, dtype=torch.bool, device=member.device)
        for a, b, sign in current.relations:
            if sign < 0:
                differ[a, b] = differ[b, a] = True
        apart = differ & exists[:, :, None] & exists[:, None, :]
        energies: list[Tensor] = []
        for maps in current.maps:
            divergence = _between_words(_divergence(maps, current.present), member).mean(dim=1)  # [b words words]
            held = torch.where(apart, divergence, torch.zeros_like(divergence))
            from_others = held.sum(dim=2) / apart.sum(dim=2).clamp(min=1)  # [b words]
            of_pairs = [divergence[:, a, b] - (from_others[:, a] + from_others[:, b]) / 2 for a, b in pairs]
            there = torch.stack([exists[:, a] & exists[:, b] for a, b in pairs], dim=1)
            of_sample = torch.stack(of_pairs, dim=1)
            energies.append(torch.where(there, of_sample, torch.zeros_like(of_sample)).sum(dim=1))
        return Energy.of(torch.stack(energies).mean(dim=0))


def _divergence(maps: Maps, present: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence between all maps of a sample and view, `[b n k k]`."""
    # What is absent may hold anything; a map without mass is spread evenly.
    maps = torch.where(present[:, None, :, None, None], maps, torch.zeros_like(maps))
    cells = rearrange(maps, "b n k h w -> b n k (h w)")
    mass = cells.sum(dim=-1, keepdim=True)
    even = torch.full_like(cells, 1 / cells.shape[-1])
    shares = torch.where(mass > 0, cells / torch.where(mass > 0, mass, torch.ones_like(mass)), even)
    shares = (1 - FLOOR) * shares + FLOOR * even
    cross = torch.einsum("b n p c, b n q c -> b n p q", shares, shares.log())
    own = cross.diagonal(dim1=-2, dim2=-1)
    one_way = own[..., :, None] - cross
    return (one_way + one_way.transpose(-2, -1)) / 2


def _between_words(divergence: Tensor, member: Tensor) -> Tensor:
    """The largest divergence `[b n words words]` over the pieces of two words; 0 where one of them is absent."""
    lowest = torch.full_like(divergence[..., :1, :1], -torch.inf)
    pieces = member.transpose(1, 2)[:, None, :, :, None]  # [b 1 words k 1]
    rows = torch.where(pieces, divergence[:, :, None], lowest[:, :, None]).amax(dim=3)  # [b n words k]
    pieces = member.transpose(1, 2)[:, None, None]  # [b 1 1 words k]
    both = torch.where(pieces, rows[:, :, :, None], lowest[:, :, None]).amax(dim=4)
    return torch.where(torch.isfinite(both), both, torch.zeros_like(both))
