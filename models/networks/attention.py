"""Attention, and the feed-forward beside it. Module names are those of diffusers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...framework.sampling.taps import Taps
from .checkpointing import Recomputed


class Attention(nn.Module):
    """Multi-head attention of `[b p c]` on itself or on a context `[b t d]`.

    The fused kernel is used unless this layer's logits or probabilities are tapped; then they are computed explicitly, in fp32.
    """

    def __init__(self, channels: int, heads: int, context_channels: int | None = None, *, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=qkv_bias)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=qkv_bias)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=qkv_bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None = None, tap: AttentionTap | None = None) -> Tensor:
        source = x if context is None else context
        q = self._split(self.to_q(x))  # [b heads p d]
        k = self._split(self.to_k(source))  # [b heads t d]
        if tap is not None and tap.wanted:
            probs = tap.record(q, k)  # before V: nothing after the last tapped map is computed
            out = probs.to(x.dtype) @ self._split(self.to_v(source))
        else:
            out = F.scaled_dot_product_attention(q, k, self._split(self.to_v(source)))
        return self.to_out[0](rearrange(out, "b heads p d -> b p (heads d)"))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b p (heads d) -> b heads p d", heads=self.heads)


class AttentionTap:
    """The recorder of a pass as one attention layer sees it: its own name, its own kinds, its own grid."""

    def __init__(self, taps: Taps, layer: str, role: str, grid: tuple[int, int]) -> None:
        self.taps, self.layer, self.role, self.grid = taps, layer, role, grid
        self.wanted = taps.wants(layer, f"{role}_probs") or (role == "cross" and taps.wants(layer, "cross_logits"))

    def record(self, q: Tensor, k: Tensor) -> Tensor:
        """Record what is wanted of queries and keys `[b heads p d]`, and return the probabilities `[b heads p t]` in fp32."""
        logits = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        if self.role == "cross" and self.taps.wants(self.layer, "cross_logits"):
            self.taps.record(self.layer, "cross_logits", self._as_maps(logits))
        probs = torch.softmax(logits, dim=-1)
        if self.taps.wants(self.layer, f"{self.role}_probs"):
            self.taps.record(self.layer, f"{self.role}_probs", self._as_maps(probs))
        return probs

    def _as_maps(self, values: Tensor) -> Tensor:
        return rearrange(values, "b heads (h w) t -> b heads t h w", h=self.grid[0], w=self.grid[1])


class GEGLU(Recomputed):
    """Gated linear unit: the first half of the projection times the exact GELU of the second half."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(_gated, self.proj(x))


class FeedForward(Recomputed):
    """GEGLU of four times the width, and the projection back. `[b p c] -> [b p c]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Index 1 is a dropout in the published layout: it holds no weights and does nothing at inference.
        self.net = nn.ModuleList([GEGLU(channels, channels * 4), nn.Identity(), nn.Linear(channels * 4, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self._inside, x)

    def _inside(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


def _gated(both: Tensor) -> Tensor:
    value, gate = both.chunk(2, dim=-1)
    return value * F.gelu(gate)
