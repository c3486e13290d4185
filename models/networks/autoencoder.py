"""The autoencoder between images and latents: diffusers' AutoencoderKL, by its module names and its `config.json`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..runtime.tiling import Tiling
from .attention import Attention
from .blocks import Downsample, ResnetBlock, Upsample

EPS = 1e-6  # of every GroupNorm of the autoencoder; the UNet's resnets use another


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder, under the names of its `config.json`."""

    block_out_channels: tuple[int, ...] = (64,)
    latent_channels: int = 4
    in_channels: int = 3
    out_channels: int = 3
    layers_per_block: int = 1
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    force_upcast: bool = True

    @property
    def factor(self) -> int:
        """Image pixels per latent cell and side."""
        return 2 ** (len(self.block_out_channels) - 1)


class Autoencoder(nn.Module):
    """Images `[b 3 H W]` in [-1, 1] to scaled latents `[b c h w]` and back; `H = h * factor`. `tiling`: of large ones."""

    def __init__(self, config: AutoencoderConfig, tiling: Tiling | None = None) -> None:
        super().__init__()
        self.config, self.tiling = config, tiling or Tiling()
        c = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.use_post_quant_conv else nn.Identity()

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.conv_in.weight.dtype

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[b c h w]` of the unscaled latents of images `[b 3 H W]` in [-1, 1]."""
        tiled = self.tiling.takes(images, images.shape[-2] * images.shape[-1])
        moments = self.tiling.encode(self.encoder, images) if tiled else self.encoder(images)
        mean, log_variance = self.quant_conv(moments).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents `[b c h w]`: the mode of the posterior times `scaling_factor`."""
        return self.moments(images)[0] * self.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Images `[b 3 H W]`, about [-1, 1] and not clipped, of scaled latents `[b c h w]`."""
        z = self.post_quant_conv(z / self.config.scaling_factor)
        tiled = self.tiling.takes(z, z.shape[-2] * z.shape[-1] * self.config.factor**2)
        return self.tiling.decode(self.decoder, z) if tiled else self.decoder(z)


def encoding_in_fp32(autoencoder: Autoencoder) -> Autoencoder:
    """A copy that encodes in fp32; what decodes is the original's."""
    shared = autoencoder.decoder, autoencoder.post_quant_conv
    copies: dict[int, Any] = {id(module): module for module in shared}
    for module in (autoencoder.encoder, autoencoder.quant_conv):
        copies |= {id(weight): nn.Parameter(weight.float(), requires_grad=False) for weight in module.parameters()}
    return deepcopy(autoencoder, copies)


class Encoder(nn.Module):
    """`[b 3 H W] -> [b 2c h w]`."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            EncoderBlock(widths[max(i - 1, 0)], widths[i], config, last=i == len(widths) - 1) for i in range(len(widths))
        )
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """`[b c h w] -> [b 3 H W]`, the encoder backwards with one resnet more a level."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config)
        self.up_blocks = nn.ModuleList(
            DecoderBlock(widths[max(i - 1, 0)], widths[i], config, last=i == len(widths) - 1) for i in range(len(widths))
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def _resnets(in_channels: int, channels: int, count: int, config: AutoencoderConfig) -> nn.ModuleList:
    return nn.ModuleList(
        ResnetBlock(in_channels if j == 0 else channels, channels, None, groups=config.norm_num_groups, eps=EPS)
        for j in range(count)
    )


class EncoderBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, config: AutoencoderConfig, *, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(in_channels, channels, config.layers_per_block, config)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels, symmetric=False)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class DecoderBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, config: AutoencoderConfig, *, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(in_channels, channels, config.layers_per_block + 1, config)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """Resnet, single-head self-attention over all cells (if the config has it), resnet."""

    def __init__(self, channels: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.resnets = _resnets(channels, channels, 2, config)
        attention = [SpatialAttention(channels, config.norm_num_groups)] if config.mid_block_add_attention else []
        self.attentions = nn.ModuleList(attention)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class SpatialAttention(Attention):
    """Single-head self-attention over the cells of `[b c h w]`, with its own norm and a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, heads=1, qkv_bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        h, w = x.shape[-2:]
        tokens = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        return x + rearrange(super().forward(tokens), "b (h w) c -> b c h w", h=h, w=w)
