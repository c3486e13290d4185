"""Toward a small picture with the right layout: rendered by another model, enlarged, encoded, and noised to every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framework.config.constraints import NotNegative
from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError
from ..framework.events import Passes
from ..framework.layout.rasters import rasterise
from ..framework.layout.regions import Layout
from ..framework.protocols import Run
from ..framework.sampling.image_to_image import noised
from ..framework.types import Features, Image, Latents, Needs, Step, View
from .smoothing import smooth

FULL_STRENGTH = 1 / 16  # of the canvas: boxes of at most this area are pulled with the whole strength
FRESH = 0x5EED  # keeps the streams of `fresh` apart from those that the sampler draws from


@dataclass(frozen=True)
class GligenInversion:
    """The latent itself, beside that of an enlarged small picture with the right layout (LSReGen, section 3.3).

    The picture is rendered once, from the same prompts, layouts and seeds, by `source`: a model that sees boxes, or any model
    with a guidance that does. It is enlarged (bicubic), encoded by the large model's autoencoder, and noised to the level of each
    step: that is the target, and no network runs for the pull itself. Meant for the distance `l2`, with `blend` as its strength.

    `noise` is how the clean target reaches a step's level: `ddim_inversion` walks the sampler's steps backward with the model
    (Song et al. 2020, without classifier-free guidance; what the paper does); `shared` adds the noise that the run starts from,
    `fresh` new noise at every step. `eps_consistent` compares clean latents instead, the model's estimate with the picture's: at
    the site `z0` the noise stays what the model says it is.
    """

    kind: ClassVar[str] = "latent"

    source: Mapping[str, Any] = option(
        {"model": "shapeworld-gligen"},
        "what renders the small picture: model, size, and any setting of a configuration; guidance may be the name of a preset",
        model="source",
    )
    noise: Literal["ddim_inversion", "shared", "fresh", "eps_consistent"] = option("ddim_inversion", "how the target is noised")
    mask: Literal["full", "boxes"] = option("full", "where it pulls: full is everywhere")
    feather: NotNegative = option(1.0, "latent cells over which the edge of a box fades, with mask boxes")
    box_power: NotNegative = option(
        0.0,
        "with mask boxes, how much less large boxes are pulled: (1/16 / area)^box_power, boxes below 1/16 of the canvas fully",
    )
    low_pass: NotNegative = option(0.0, "sigma in latent cells of a blur of both sides: finer details are left alone; 0 for none")
    init_from_target: bool = option(False, "start from the target at the first step, instead of from noise")

    def __post_init__(self) -> None:
        check_options(self)
        if self.box_power and self.mask == "full":
            raise ConfigError(f"box_power: {self.box_power} needs boxes to act on; set mask: boxes, or leave it at 0")

    @property
    def needs(self) -> Needs:
        return Needs(prediction=self.noise == "eps_consistent")

    def prepare(self, run: Run, raster: str) -> Passes[GligenInversionState]:
        weight = self._weight(run, raster)  # first, as boxes that are missing are an error, and a render takes its time
        z0 = run.model.encode_image(enlarged((yield from run.rendering(self.source)), run.size))
        boxed = torch.tensor([self.mask == "full" or bool(layout.boxed) for layout in run.layouts], device=z0.device)
        noiser = yield from self._noiser(run, z0)
        return GligenInversionState(noiser, weight, z0, boxed)

    def current(self, view: View, state: GligenInversionState) -> Features:
        z = view.z0 if self.noise == "eps_consistent" else view.z
        return self._features(z, state)

    def target(self, view: View, state: GligenInversionState) -> Features:
        return self._features(state.z0 if self.noise == "eps_consistent" else state.noised(view.step), state)

    def initial(self, run: Run, state: GligenInversionState) -> Latents | None:
        """The latent to start from, if the target is to be that."""
        return state.noised(run.steps[0]) if self.init_from_target else None

    def _features(self, z: Latents, state: GligenInversionState) -> Features:
        maps = z[:, None]  # [b 1 c h w]
        if self.low_pass > 0:
            size = 2 * max(1, round(3 * self.low_pass)) + 1
            maps = smooth(maps, size, self.low_pass, "gaussian")
        present = state.present[:, None].expand(z.shape[:2])  # [b c]
        group = torch.arange(z.shape[1], device=z.device).expand(len(z), -1)
        return Features((maps,), self.kind, present, group, weight=None if state.weight is None else (state.weight,))

    def _noiser(self, run: Run, z0: Latents) -> Passes[Callable[[Step], Latents]]:
        if self.noise == "ddim_inversion":
            found = yield from run.inverting(z0)
            return lambda step: found[step.index]
        if self.noise == "fresh":
            streams = [torch.Generator().manual_seed(seed ^ FRESH) for seed in run.seeds]
            shape = z0.shape[1:]
            drawn = {step.index: torch.stack([torch.randn(shape, generator=s) for s in streams]).to(z0) for step in run.steps}
            return lambda step: noised(z0, drawn[step.index], step)
        return lambda step: noised(z0, run.initial_noise, step)

    def _weight(self, run: Run, raster: str) -> Tensor | None:
        """How hard each place is pulled, `[b 1 1 h w]` in [0, 1]; None for everywhere alike."""
        if self.mask == "full":
            return None
        grid = run.z_T.shape[-2:]
        if not any(layout.boxed for layout in run.layouts):
            raise ConfigError("gligen_inversion: mask boxes, but no image has one; give boxes, or set mask: full")
        weights = [self._boxes(layout, (int(grid[0]), int(grid[1])), raster) for layout in run.layouts]
        return torch.stack(weights)[:, None, None].to(run.z_T.device)

    def _boxes(self, layout: Layout, grid: tuple[int, int], raster: str) -> Tensor:
        """The union of a layout's regions `[h w]`, each as strong as its size says."""
        if not layout.boxed:
            return torch.zeros(grid)
        masks = rasterise(layout.boxed, grid, raster)  # [regions h w]
        areas = masks.mean(dim=(1, 2)).clamp(min=torch.finfo(masks.dtype).tiny)
        if self.feather > 0:
            size = 2 * max(1, round(3 * self.feather)) + 1
            masks = smooth(masks[None, None], size, self.feather, "gaussian")[0, 0]
            peaks = masks.amax(dim=(1, 2), keepdim=True)  # a blurred box of a few cells is low, and is to be pulled fully
            masks = masks / peaks.clamp(min=torch.finfo(masks.dtype).tiny)
        strengths = (FULL_STRENGTH / areas).pow(self.box_power).clamp(max=1)
        return (masks * strengths[:, None, None]).amax(dim=0)


@dataclass(frozen=True)
class GligenInversionState:
    """`noised` gives the target latents at a step, `weight` `[b 1 1 h w]` where they count, `z0` the clean target.

    `present` `[b]`: which samples have anything to be pulled by.
    """

    noised: Callable[[Step], Latents] = field(repr=False)
    weight: Tensor | None
    z0: Latents
    present: Tensor


def enlarged(picture: Image, size: tuple[int, int]) -> Image:
    """A picture `[b 3 H W]` in [0, 1] at another size (width, height), by bicubic interpolation."""
    return F.interpolate(picture.float(), size[::-1], mode="bicubic").clamp(0, 1)
