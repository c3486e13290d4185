"""The convolutional blocks shared by the UNet and the autoencoder. Module names are those of diffusers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpointing import Recomputed


def timestep_features(t: Tensor, channels: int) -> Tensor:
    """Sinusoidal features `[b channels]` of timesteps `[b]`: cosines first, in fp32 (Vaswani et al. 2017, as used by DDPM)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies  # [b half]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with a SiLU between: `[b in] -> [b out]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Activation(Recomputed):
    """A group norm and a SiLU, before a convolution."""

    def forward(self, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        return self.again(_activated, x, norm)


def _activated(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.silu(norm(x))


class ResnetBlock(Recomputed):
    """Two normalised 3x3 convolutions with a residual; the time embedding, if any, shifts between them."""

    def __init__(self, in_channels: int, channels: int, time_channels: int | None, *, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, channels) if time_channels is not None else None
        self.norm2 = nn.GroupNorm(groups, channels, eps=eps)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else None
        self.activate = Activation()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return self.again(self._inside, x, time)

    def _inside(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.conv1(self.activate(x, self.norm1))
        if self.time_emb_proj is not None and time is not None:
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(self.activate(h, self.norm2))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halves the side with a strided convolution: `symmetric` padding in the UNet, right and bottom only in the autoencoder."""

    def __init__(self, channels: int, *, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling to `size` (doubling by default), then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        size = size or (x.shape[-2] * 2, x.shape[-1] * 2)
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
