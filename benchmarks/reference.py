"""The guided pass as diffusers' Attend-and-Excite makes it: its UNet, its attention processor, its gradient.

Every attention is explicit with its probabilities in memory, the forward runs to the end, and so it does on the denoising pass,
because the processors stay where they are. The layers and the energy are those of layout-guidance, on which ours is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.outline import without_numbers
from benchmarks.subjects import LAYOUT, PROMPT, Subject, Words, made_in
from lsregen.framework import rasterise
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.configs import unet_config, unet_values

# The first up block with attention, by family.
READ = {"SD 1.5": ("mid_block.*", "up_blocks.1.*"), "SDXL": ("mid_block.*", "up_blocks.0.*")}

STRENGTH = 30  # of layout-guidance, as published


class Store:
    """Keeps the maps `[b*heads p t]` of the cross-attention layers that the energy reads; given to diffusers' processors."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers, self.maps = tuple(layers), list[Tensor]()

    def __call__(self, probs: Tensor, is_cross: bool, layer: str) -> None:
        if is_cross and any(fnmatchcase(layer, pattern) for pattern in self.layers):
            self.maps.append(probs)


class Reference:
    """diffusers' UNet with Attend-and-Excite's processors; for one image of the prompt and the boxes of `subjects`."""

    def __init__(self, subject: Subject, unet: Any, device: torch.device, *, explicit: bool = True) -> None:
        self.subject, self.unet = subject, unet
        self.store = Store(READ[subject.family])
        if explicit:
            self.unet.set_attn_processor({name: _processor(self.store, name) for name in unet.attn_processors})
        words = Words(subject, device)
        self.told = words.encode([PROMPT])
        table = words.tokens(PROMPT)
        self.spans = [table.span(phrase) for phrase in LAYOUT.phrases]

    @classmethod
    def outlined(cls, subject: Subject) -> Reference:
        """Without weights, for `outline.counted`."""
        with without_numbers(), made_in(subject.dtype):
            return cls(subject, network(subject), torch.device("cpu"))

    @classmethod
    def with_weights_of(cls, subject: Subject, model: LatentDiffusion, *, explicit: bool = True) -> Reference:
        """The network with the weights of ours, not copied: the keys are the same.

        `explicit`: with Attend-and-Excite's processors; else with the fused attention that a plain pipeline of diffusers uses.
        """
        with torch.device("meta"), made_in(subject.dtype):
            unet = network(subject)
        unet.load_state_dict(model.unet.state_dict(), strict=True, assign=True)
        return cls(subject, unet.requires_grad_(True), model.device, explicit=explicit)

    def gradient(self, z: Tensor, t: int) -> Tensor:
        """The gradient of the energy in the latent `[1 c h w]`: one forward to the end, and one backward."""
        self.store.maps.clear()
        leaf = z.to(self.subject.dtype).clone().detach().requires_grad_()
        with torch.enable_grad():
            self._forward(leaf, t)
            loss = self._energy()
        return torch.autograd.grad(loss.requires_grad_(True), [leaf], retain_graph=True)[0]

    @torch.no_grad()
    def predict(self, z: Tensor, t: int) -> Tensor:
        """The guided noise `[1 c h w]`, both branches as one batch."""
        without, towards = self._forward(torch.cat([z, z]).to(self.subject.dtype), t).chunk(2)
        return without + 7.5 * (towards - without)

    def _forward(self, z: Tensor, t: int) -> Tensor:
        told = self.told.joined(self.told) if len(z) > 1 else self.told
        added = None
        if told.pooled is not None:
            height, width = (side * 8 for side in z.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(z.device).expand(len(z), -1)
            added = {"text_embeds": told.pooled, "time_ids": sizes}
        return self.unet(z, t, encoder_hidden_states=told.context, added_cond_kwargs=added).sample

    def _energy(self) -> Tensor:
        """How much of a phrase's attention lies outside of its box (Chen et al. 2024), layer by layer and head by head."""
        height, width = self.subject.latent
        terms: list[Tensor] = []
        for maps in self.store.maps:
            factor = round((height * width / maps.shape[1]) ** 0.5)
            h = height // factor
            for region, span in zip(LAYOUT.regions, self.spans, strict=True):
                attention = rearrange(maps[..., list(span)], "n (h w) k -> n k h w", h=h)
                mask = rasterise(region, (h, width // factor)).to(attention)
                share = (attention * mask).sum(dim=(-2, -1)) / attention.sum(dim=(-2, -1))
                terms.append((1 - share).square().mean())
        return torch.stack(terms).mean() * STRENGTH


def network(subject: Subject) -> Any:
    """diffusers' UNet of this structure."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_config(unet_values(unet_config(subject.unet, ""), subject.latent[0]))
    return unet.eval()


def published() -> Any:
    """diffusers' module of Attend-and-Excite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pipeline is deprecated, and still what there is
        from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
            pipeline_stable_diffusion_attend_and_excite as module,
        )
    return module


def _processor(store: Store, layer: str) -> Any:
    return published().AttendExciteAttnProcessor(attnstore=store, place_in_unet=layer)
