"""Large pictures through the autoencoder piece by piece: the same picture, in the memory of a piece of it.

Tiles that go through the whole autoencoder alone, each with the statistics of its own group norms, come out in other colours: a
tile within one thing is normalised as if there were nothing else (measured on shapeworld's: up to a third of the range). So every
layer is computed in turn, band of rows after band of rows, each with the rows that its convolution sees beyond it, and normalised
by the statistics of all of them. What is whole meanwhile lies in the memory of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...framework.config.load_options import When
from ...framework.errors import ConfigError
from ..networks.blocks import Downsample, ResnetBlock, Upsample

SIDE = 768  # pixels of a square tile
LARGE = 1536 * 1536  # pixels; `auto` leaves smaller pictures whole, which the supported families were made for

Local = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiling:
    """How pictures go through an autoencoder.

    `most`: how many pixels of a layer are computed at once. `above`: pictures of more pixels are; None for none at all.
    """

    most: int = SIDE * SIDE
    above: int | None = None

    def takes(self, x: Tensor, pixels: int) -> bool:
        """Whether `x`, of so many pixels, goes piece by piece; never where a gradient is wanted, which keeps all anyway."""
        large = self.above is not None and pixels > max(self.above, self.most)
        return large and not (torch.is_grad_enabled() and x.requires_grad)

    def decode(self, decoder: Any, z: Tensor) -> Tensor:
        """What `decoder` makes of `z`, on the device of `z`."""
        x, bands = decoder.mid_block(decoder.conv_in(z)), Bands(self.most, z.device)
        for block in decoder.up_blocks:
            for layer in (*block.resnets, *block.upsamplers):
                x = bands.layer(layer, x)
        return bands.convolution(decoder.conv_out, x, bands.activation(decoder.conv_norm_out, x)).to(z.device)

    def encode(self, encoder: Any, images: Tensor) -> Tensor:
        """What `encoder` makes of images, on their device."""
        bands = Bands(self.most, images.device)
        x = bands.convolution(encoder.conv_in, images)
        for block in encoder.down_blocks:
            for layer in (*block.resnets, *block.downsamplers):
                x = bands.layer(layer, x)
        x = encoder.mid_block(x.to(images.device))
        return encoder.conv_out(F.silu(encoder.conv_norm_out(x)))


def make_tiling(tiling: When, tile: int | None) -> Tiling:
    """The tiling that two options mean.

    Args:
        tiling: `auto` for pictures of more than `LARGE` pixels, `on` for all that are larger than a tile, `off` for none.
        tile: the side in pixels of a square; as much is computed at once. None for `SIDE`.

    Raises:
        ConfigError: a tile with tiling `off`.
    """
    side = SIDE if tile is None else tile
    if tile is not None and tiling == "off":
        raise ConfigError(f"tile: {tile} with tiling off, which cuts nothing; leave one of them out")
    return Tiling(side**2, {"auto": LARGE, "on": 0, "off": None}[tiling])


@dataclass(frozen=True)
class Bands:
    """Layers in bands of rows, of `most` pixels each, computed on `device`; their outputs are put together on the CPU."""

    most: int
    device: torch.device

    def layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What a layer of the autoencoder makes of `x`."""
        if isinstance(layer, ResnetBlock):
            h = self.convolution(layer.conv1, x, self.activation(layer.norm1, x))
            beside = cast("Local", layer.conv_shortcut or _unchanged)
            return self.convolution(layer.conv2, h, self.activation(layer.norm2, h), lambda a, b: beside(self._rows(x, a, b)))
        if isinstance(layer, Upsample):
            return self.upsampled(layer.conv, x)
        return self.downsampled(cast("Downsample", layer).conv, x)

    def activation(self, norm: nn.Module, x: Tensor) -> Local:
        """A group norm by the statistics of all of `x`, and a SiLU, for bands of it."""
        norm = cast("nn.GroupNorm", norm)
        mean, scale = self._statistics(norm, x)

        def activate(band: Tensor) -> Tensor:
            groups = rearrange(band.float(), "b (g c) h w -> b g (c h w)", g=norm.num_groups)
            normal = ((groups - mean) * scale).reshape(band.shape)
            return F.silu(normal * norm.weight.float()[:, None, None] + norm.bias.float()[:, None, None]).to(band.dtype)

        return activate

    def convolution(
        self, conv: nn.Conv2d, x: Tensor, before: Local | None = None, beside: Callable[[int, int], Tensor] | None = None
    ) -> Tensor:
        """A 3x3 convolution of what `before` makes of `x`, and `beside(first row, last row)` added."""

        def made(start: int, stop: int) -> Tensor:
            y = F.conv2d(self._rows(x, start - 1, stop + 1, before), conv.weight, conv.bias, padding=(0, 1))
            return y if beside is None else y + beside(start, stop)

        return self._together(x.shape[-2], x.shape[-1], made)

    def upsampled(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """`x` twice as high and wide, and a 3x3 convolution."""

        def made(start: int, stop: int) -> Tensor:
            doubled = F.interpolate(self._rows(x, start // 2 - 1, stop // 2 + 1), scale_factor=2.0, mode="nearest")
            return F.conv2d(doubled[..., 1:-1, :], conv.weight, conv.bias, padding=(0, 1))

        return self._together(x.shape[-2] * 2, x.shape[-1] * 2, made)

    def downsampled(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """A 3x3 convolution of every second row and column, which sees one more to the right and below."""

        def made(start: int, stop: int) -> Tensor:
            return F.conv2d(F.pad(self._rows(x, 2 * start, 2 * stop + 1), (0, 1)), conv.weight, conv.bias, stride=2)

        return self._together(x.shape[-2] // 2, x.shape[-1] // 2, made)

    def _statistics(self, norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of every group of `x` and one over its deviation, `[b g 1]`, from those of the bands (Chan et al. 1979)."""
        found, shares = list[tuple[Tensor, Tensor]](), list[float]()
        for start, stop in self._spans(*x.shape[-2:]):
            groups = rearrange(self._rows(x, start, stop).float(), "b (g c) h w -> b g (c h w)", g=norm.num_groups)
            found.append(torch.var_mean(groups, dim=-1, correction=0, keepdim=True))
            shares.append((stop - start) / x.shape[-2])
        mean = cast("Tensor", sum(share * m for share, (_, m) in zip(shares, found, strict=True)))
        variance = sum(share * (v + (m - mean) ** 2) for share, (v, m) in zip(shares, found, strict=True))
        return mean, (cast("Tensor", variance) + norm.eps).rsqrt()

    def _rows(self, x: Tensor, start: int, stop: int, before: Local | None = None) -> Tensor:
        """Rows of `x` on the device, as `before` changes them; zeros beyond its edges."""
        height = x.shape[-2]
        band = x[..., max(start, 0) : min(stop, height), :].to(self.device)
        return F.pad(band if before is None else before(band), (0, 0, max(-start, 0), max(stop - height, 0)))

    def _together(self, height: int, width: int, made: Callable[[int, int], Tensor]) -> Tensor:
        """The bands that `made` makes, one after another, as one."""
        return torch.cat([made(start, stop).to("cpu") for start, stop in self._spans(height, width)], dim=-2)

    def _spans(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """The first row of every band and the one after its last; bands of an even number of rows, for upsampling."""
        rows = max(2, self.most // width // 2 * 2)
        return ((start, min(start + rows, height)) for start in range(0, height, rows))


def _unchanged(x: Tensor) -> Tensor:
    return x
