"""Gaussian smoothing of maps, by an honest sigma or by the kernel that published code really used."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Kernel: TypeAlias = Literal["gaussian", "attend_and_excite"]


def kernel_1d(size: int, sigma: float, kind: str) -> Tensor:
    """Weights `[size]` that sum to 1, float64.

    `attend_and_excite`: the exponent is `((x - m) / (2 sigma))^2`, as in the published implementation, which makes the effective
    sigma larger by the root of 2.
    """
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    width = 2 * sigma if kind == "attend_and_excite" else 2**0.5 * sigma
    weights = torch.exp(-((x / width) ** 2))
    return weights / weights.sum()


def smooth(maps: Tensor, size: int, sigma: float, kind: str) -> Tensor:
    """Smooth every map of `[b n k h w]`; the border is mirrored (repeated, on a grid too small for a mirror)."""
    b, n, k, h, w = maps.shape
    weights = kernel_1d(size, sigma, kind).to(maps)
    pad = size // 2
    planes = rearrange(maps, "b n k h w -> (b n k) 1 h w")
    planes = F.pad(planes, (pad, pad, pad, pad), mode="reflect" if min(h, w) > pad else "replicate")
    kernel = torch.outer(weights, weights)[None, None]
    return rearrange(F.conv2d(planes, kernel), "(b n k) 1 h w -> b n k h w", b=b, n=n, k=k)
