"""The cross-attention UNet that predicts the noise: diffusers' UNet2DConditionModel, by its module names and `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...framework.errors import CheckpointError
from ...framework.sampling.taps import EverythingRecorded, TapLayer, Taps
from .blocks import Downsample, ResnetBlock, TimestepEmbedding, Upsample, timestep_features
from .gligen import Grounded, PositionNet
from .transformer import Transformer2D, TransformerBlock

SIZES = 6  # numbers of SDXL's size conditioning: height and width of the original, of the crop's corner and of the target


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a UNet, one entry per level from fine to coarse.

    `heads` is what `config.json` calls `attention_head_dim` (a historic misnomer); `depths` counts transformer blocks.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    attention_down: tuple[bool, ...]
    attention_up: tuple[bool, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    context_channels: int
    layers_per_block: int = 2
    groups: int = 32
    eps: float = 1e-5
    linear_projection: bool = False
    added_channels: int | None = None  # SDXL: width of the pooled text beside the size features
    size_channels: int | None = None  # SDXL: features per size number
    grounded: Grounded | None = None  # GLIGEN: on what, besides boxes

    def __post_init__(self) -> None:
        levels = len(self.widths)
        for name in ("attention_down", "attention_up", "heads", "depths"):
            if len(getattr(self, name)) != levels:
                raise CheckpointError(f"UNet config: {name} has {len(getattr(self, name))} entries for {levels} levels")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads or width % self.groups:
                raise CheckpointError(f"UNet config: width {width} is not divisible by {heads} heads and {self.groups} groups")

    @property
    def time_channels(self) -> int:
        return self.widths[0] * 4

    @property
    def pooled_channels(self) -> int | None:
        """Width of the pooled text of SDXL."""
        if self.added_channels is None or self.size_channels is None:
            return None
        return self.added_channels - SIZES * self.size_channels


class UNet(nn.Module):
    """Predicts the noise (or v) in latents `[b c h w]` at timesteps `[b]`, given a text context `[b tokens d]`.

    `added` `[b added_channels]`: SDXL's pooled text and size features. `grounding` `[b m d]`: GLIGEN's tokens, of `position_net`;
    without them its fusers do nothing. Any h and w work: the up path meets each skip's size.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], config.time_channels)
        self.add_embedding = (
            TimestepEmbedding(config.added_channels, config.time_channels) if config.added_channels is not None else None
        )
        self.position_net = PositionNet(config.context_channels, config.grounded) if config.grounded is not None else None
        levels = range(len(widths))
        self.down_blocks = nn.ModuleList(DownBlock(config, level) for level in levels)
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(UpBlock(config, level) for level in reversed(levels))
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], eps=config.eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self.layers = self._name_layers()

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        context: Tensor,
        added: Tensor | None = None,
        taps: Taps | None = None,
        grounding: Tensor | None = None,
    ) -> Tensor:
        time = self.time_embedding(timestep_features(t, self.config.widths[0]).to(z.dtype))  # [b time_channels]
        if self.add_embedding is not None:
            if added is None:
                raise ValueError("this UNet is conditioned on pooled text and sizes: pass added=[b added_channels]")
            time = time + self.add_embedding(added.to(z.dtype))
        x = self.conv_in(z)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, time, context, skips, taps, grounding)
        x = self.mid_block(x, time, context, taps, grounding)
        for block in self.up_blocks:
            x = block(x, time, context, skips, taps, grounding)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def observe(
        self,
        z: Tensor,
        t: Tensor,
        context: Tensor,
        taps: Taps,
        added: Tensor | None = None,
        grounding: Tensor | None = None,
    ) -> Tensor | None:
        """Run until everything wanted is recorded; the prediction if `taps.full`, else None."""
        try:
            return self(z, t, context, added, taps, grounding)
        except EverythingRecorded:
            return None

    def _name_layers(self) -> tuple[TapLayer, ...]:
        """Tell every transformer block its own path, and list them in the order of the forward pass."""
        found: list[TapLayer] = []
        top = len(self.config.widths) - 1
        modules: dict[str, nn.Module] = dict(self.named_modules())  # pyright: ignore[reportUnknownArgumentType]
        for name, module in modules.items():
            if not isinstance(module, TransformerBlock):
                continue
            module.layer = name
            place, _, rest = name.partition("_block")
            block = 0 if place == "mid" else int(rest.split(".")[1])
            level = {"down": block, "mid": top, "up": top - block}[place]
            found.append(TapLayer(name, place, block, 2**level, module.attn2.heads))
        order = {"down": 0, "mid": 1, "up": 2}
        return tuple(sorted(found, key=lambda layer: order[layer.place]))  # stable: paths of one place are in order


def _resnet(config: UNetConfig, in_channels: int, channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, channels, config.time_channels, groups=config.groups, eps=config.eps)


def _transformer(config: UNetConfig, level: int) -> Transformer2D:
    return Transformer2D(
        config.widths[level],
        config.heads[level],
        config.context_channels,
        depth=config.depths[level],
        groups=config.groups,
        linear_projection=config.linear_projection,
        grounded=config.grounded is not None,
    )


class DownBlock(nn.Module):
    """The resnets (and transformers) of one level, then a downsampling unless it is the coarsest. Pushes every skip."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        width, before = config.widths[level], config.widths[max(level - 1, 0)]
        count = config.layers_per_block
        self.resnets = nn.ModuleList(_resnet(config, before if j == 0 else width, width) for j in range(count))
        self.attentions = nn.ModuleList(_transformer(config, level) for _ in range(count) if config.attention_down[level])
        last = level == len(config.widths) - 1
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width, symmetric=True)])

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, skips: list[Tensor], taps: Taps | None, grounding: Tensor | None
    ) -> Tensor:
        for j, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions:
                x = self.attentions[j](x, context, taps, grounding)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """Resnet, transformer, resnet at the coarsest level."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        self.resnets = nn.ModuleList(_resnet(config, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([_transformer(config, len(config.widths) - 1)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, taps: Taps | None, grounding: Tensor | None) -> Tensor:
        x = self.resnets[0](x, time)
        x = self.attentions[0](x, context, taps, grounding)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """The resnets (and transformers) of one level, each joined with a skip, then an upsampling unless it is the finest."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        width = config.widths[level]
        coarser = config.widths[min(level + 1, len(config.widths) - 1)]
        finer = config.widths[max(level - 1, 0)]
        count = config.layers_per_block + 1
        self.resnets = nn.ModuleList(
            _resnet(config, (coarser if j == 0 else width) + (finer if j == count - 1 else width), width) for j in range(count)
        )
        self.attentions = nn.ModuleList(_transformer(config, level) for _ in range(count) if config.attention_up[level])
        self.upsamplers = nn.ModuleList([] if level == 0 else [Upsample(width)])

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, skips: list[Tensor], taps: Taps | None, grounding: Tensor | None
    ) -> Tensor:
        for j, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            if self.attentions:
                x = self.attentions[j](x, context, taps, grounding)
        for upsample in self.upsamplers:
            x = upsample(x, (skips[-1].shape[-2], skips[-1].shape[-1]))
        return x


def size_features(sizes: Tensor, channels: int) -> Tensor:
    """SDXL's size conditioning: `[b 6]` numbers (original, crop, target) to `[b 6*channels]` sinusoidal features."""
    return rearrange(timestep_features(rearrange(sizes, "b n -> (b n)"), channels), "(b n) c -> b (n c)", b=len(sizes))
