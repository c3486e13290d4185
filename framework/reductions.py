"""From energies of single things to energies of phrases and samples, leaving out what is absent."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def over_groups(values: Tensor, present: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Means of `values` `[b k]` within each group: `[b p]`, and which groups have anything present, `[b p]` bool.

    `group` `[b k]` numbers the groups from 0; a group with nothing present has mean 0.
    """
    count = int(group.max()) + 1 if group.numel() else 0
    member = (group[..., None] == torch.arange(count, device=group.device)) & present[..., None]  # [b k p]
    member = member.to(values.dtype)
    sizes = member.sum(dim=1)  # [b p]
    held = torch.where(present, values, torch.zeros_like(values))
    return torch.einsum("b k, b k p -> b p", held, member) / sizes.clamp(min=1), sizes > 0


def mean_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean of `[b p]` over what is present: `[b]`; 0 for a sample with nothing present."""
    held = torch.where(present, values, torch.zeros_like(values))
    return held.sum(dim=1) / present.sum(dim=1).clamp(min=1)


def max_present(values: Tensor, present: Tensor) -> Tensor:
    """Largest of `[b p]` over what is present: `[b]`; 0 for a sample with nothing present."""
    lowest = torch.full_like(values, -torch.inf)
    top = torch.where(present, values, lowest).amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
    return torch.where(present.any(dim=1), top, torch.zeros_like(top))


def listed(values: Tensor) -> list[Any]:
    """The values of a tensor, on whatever device, as Python's own: one transfer."""
    return cast("Any", values).tolist()
