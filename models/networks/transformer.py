"""The transformer that the UNet places between its convolutions. Module names are those of diffusers."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ...framework.sampling.taps import EverythingRecorded, TapPoint, Taps
from .attention import Attention, AttentionTap, FeedForward
from .checkpointing import Recomputed
from .gligen import GatedSelfAttention


class TransformerBlock(Recomputed):
    """Self-attention, cross-attention to the text, feed-forward, each with a residual. `[b p c] -> [b p c]`.

    A `grounded` one has GLIGEN's fuser after the self-attention; it is passed by without grounding tokens `[b m d]`.
    """

    def __init__(self, channels: int, heads: int, context_channels: int, *, grounded: bool = False) -> None:
        super().__init__()
        self.layer = ""  # the dotted path inside the UNet, set by the UNet
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.fuser = GatedSelfAttention(channels, heads, context_channels) if grounded else None

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        grid: tuple[int, int],
        taps: Taps | None = None,
        grounding: Tensor | None = None,
    ) -> Tensor:
        if taps is None or not self.recomputed or not torch.is_grad_enabled():
            return self.again(self._inside, x, context, grid, taps, grounding)
        # What is recorded leaves the block as its output, or the recorder would hold what is computed again; and the block ends
        # by itself where the pass does.
        out, recorded = self.again(self._recording, x, context, grid, taps.within(self.layer), grounding)
        for point, value in recorded:
            taps.record(point.layer, point.kind, value)
        return out

    def _recording(
        self, x: Tensor, context: Tensor, grid: tuple[int, int], taps: Taps, grounding: Tensor | None
    ) -> tuple[Tensor, list[tuple[TapPoint, Tensor]]]:
        """The block with a recorder of its own, and what that recorded; ended early, the output is the input."""
        part = Taps(taps.wanted, full=taps.full)  # computed again, it begins empty again
        try:
            out = self._inside(x, context, grid, part, grounding)
        except EverythingRecorded:
            out = x
        return out, [(point, part[point]) for point in sorted(part.wanted)]

    def _inside(self, x: Tensor, context: Tensor, grid: tuple[int, int], taps: Taps | None, grounding: Tensor | None) -> Tensor:
        tapped = {role: AttentionTap(taps, self.layer, role, grid) for role in ("self", "cross")} if taps else {}
        x = x + self.attn1(self.norm1(x), tap=tapped.get("self"))
        if self.fuser is not None and grounding is not None:
            x = self.fuser(x, grounding)
        x = x + self.attn2(self.norm2(x), context, tap=tapped.get("cross"))
        x = x + self.ff(self.norm3(x))
        if taps is not None and taps.wants(self.layer, "hidden"):
            taps.record(self.layer, "hidden", rearrange(x, "b (h w) c -> b 1 c h w", h=grid[0], w=grid[1]))
        return x


class Transformer2D(nn.Module):
    """Transformer blocks over the cells of a feature map, with a residual. `[b c h w] -> [b c h w]`.

    The projections in and out are 1x1 convolutions (SD 1.x) or linear layers (SD 2.x, SDXL).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int,
        *,
        depth: int,
        groups: int,
        linear_projection: bool,
        grounded: bool = False,
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_channels, grounded=grounded) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, taps: Taps | None = None, grounding: Tensor | None = None) -> Tensor:
        h, w = x.shape[-2:]
        tokens = self.norm(x)
        if self.linear_projection:
            tokens = self.proj_in(rearrange(tokens, "b c h w -> b (h w) c"))
        else:
            tokens = rearrange(self.proj_in(tokens), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            tokens = block(tokens, context, (h, w), taps, grounding)
        if self.linear_projection:
            return x + rearrange(self.proj_out(tokens), "b (h w) c -> b c h w", h=h, w=w)
        return x + self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=h, w=w))
