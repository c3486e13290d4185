"""A latent diffusion model: text encoder, UNet and autoencoder behind the protocols `Model` and `Denoiser`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...framework.errors import ConfigError, LayoutError
from ...framework.hashes import file_hash
from ...framework.layout.regions import Layout
from ...framework.layout.tokens import TokenTable
from ...framework.sampling.taps import Taps
from ...framework.types import Image, Latents, NoiseSchedule, Prediction, Step, View
from ..networks.autoencoder import Autoencoder, encoding_in_fp32
from ..networks.unet import UNet, UNetConfig, size_features
from .conditioning import Conditioner, Conditioning
from .grounding import Grounder
from .offload import Everywhere, Stage, Stages


class LatentDiffusion:
    """Loaded weights, stateless. Latents and predictions are fp32, whatever the dtype that the networks compute in.

    Args:
        prediction: what the UNet predicts, `eps` or `v`.
        default_size: width and height in pixels of an image when nothing is asked for.
        files: the weight files of each component, for reports.
        grounder: of a GLIGEN model, what makes its tokens of layouts.
        offload: the device to compute on, while the networks stay where they are and come to it stage by stage; None to compute
            where they are.
    """

    def __init__(
        self,
        name: str,
        unet: UNet,
        autoencoder: Autoencoder,
        text: Conditioner,
        noise_schedule: NoiseSchedule,
        *,
        prediction: str,
        default_size: tuple[int, int],
        default_cfg: float,
        files: Mapping[str, Sequence[Path]],
        grounder: Grounder | None = None,
        offload: torch.device | None = None,
    ) -> None:
        self.grounder = grounder
        self.name, self.unet, self.autoencoder, self.text = name, unet, autoencoder, text
        self.noise_schedule, self.prediction = noise_schedule, prediction
        self.default_size, self.default_cfg = default_size, default_cfg
        self.files = files
        self.factor = autoencoder.config.factor
        self.latent_channels = autoencoder.config.latent_channels
        weight = unet.conv_in.weight
        self.device, self.dtype = offload or weight.device, weight.dtype
        self.stages = Everywhere(self.device) if offload is None else Stages(offload, self._networks())

    def _networks(self) -> dict[Stage, Sequence[nn.Module]]:
        encoders = [encoder.network for encoder in self.text.encoders]
        grounder = self.grounder
        grounding = [] if grounder is None else [grounder.net, *([] if grounder.images is None else [grounder.images])]
        return {"texts": [*encoders, *grounding], "noise": [self.unet], "pictures": [self.autoencoder]}

    @property
    def grounded(self) -> bool:
        """Whether it sees boxes by itself."""
        return self.grounder is not None

    def release(self) -> None:
        """Take the networks that come by stages off the device, before another model needs it."""
        self.stages.leave()

    def bind(
        self, prompts: Sequence[str], negatives: Sequence[str], layouts: Sequence[Layout], *, cfg: float, count: int
    ) -> BoundDenoiser:
        """A denoiser for one batch; the texts are encoded here, once.

        `negatives`: one per prompt, or none at all for the empty prompt. `layouts` (one per prompt, or none) and `count`, the
        number of steps, matter to a grounded model alone: it sees the boxes in the first share of the steps, and null tokens
        in its unconditional branch.

        Raises:
            LayoutError, PhraseError: as `Grounder.tokens`, or a region has an image and the model no encoder of images.
            ConfigError: an empty prompt, a number of negatives that is not that of prompts, or a `cfg` that is no strength.
        """
        negatives = tuple(negatives) or ("",) * len(prompts)
        if len(negatives) != len(prompts):
            raise ConfigError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one for each, or none")
        if not prompts or any(not prompt.strip() for prompt in prompts):
            raise ConfigError(f"prompt {list(prompts)!r}: it is empty; say what the image shows, e.g. 'a red circle'")
        if not (math.isfinite(cfg) and cfg >= 0):
            raise ConfigError(f"cfg {cfg}: expected a number of at least 0; 1 switches classifier-free guidance off")
        self._check_images(layouts)
        tables = {prompt: self.tokens(prompt) for prompt in dict.fromkeys(prompts)}
        self.stages.enter("texts")
        conditional = self.text.encode(prompts)
        unconditional = self.text.encode_negatives(negatives) if cfg != 1 else None
        grounded_steps = 0
        if self.grounder is not None:
            grounded_steps = self.grounder.steps(count)
            each = zip(prompts, layouts or (Layout(),) * len(prompts), strict=True)
            said = [_without_numbers(layout, tables[prompt]) for prompt, layout in each]
            conditional = replace(conditional, grounding=self.grounder.tokens(said))
            if unconditional is not None:
                unconditional = replace(unconditional, grounding=self.grounder.nothing(len(prompts)))
        words = tuple(tables[prompt] for prompt in prompts)
        return BoundDenoiser(self, tuple(prompts), words, conditional, unconditional, cfg, grounded_steps)

    def _check_images(self, layouts: Sequence[Layout]) -> None:
        if self.grounder is not None and self.grounder.images is not None:
            return
        for region in (region for layout in layouts for region in layout.regions if region.image is not None):
            kind = family(self.unet.config)
            why = "has no image_encoder" if kind == "gligen-text-image" else f"is {kind}, which is not grounded on images"
            cure = "leave the image out, or take a folder of GLIGEN for text and images, with its image_encoder and image_project"
            raise LayoutError(f"region {region.phrase!r} has an image, but {self.name} {why}; {cure}")

    def tokens(self, prompt: str) -> TokenTable:
        return self.text.tokens(prompt)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of `size` (width, height).

        Raises:
            ConfigError: a side that is not a positive multiple of the autoencoder's factor.
        """
        width, height = size
        if width < 1 or height < 1 or width % self.factor or height % self.factor:
            near = "x".join(str(max(1, round(side / self.factor)) * self.factor) for side in size)
            raise ConfigError(
                f"size {width}x{height}: the sides of {self.name}'s images are multiples of {self.factor}; the nearest is {near}"
            )
        return self.latent_channels, height // self.factor, width // self.factor

    def encode_image(self, images: Image) -> Latents:
        """Latents `[b c h w]` of images `[b 3 H W]` in [0, 1]; differentiable. Raises as `latent_shape`.

        Computed in fp32, whatever the dtype of the networks: it is done once, and what is pulled toward should be exact.
        """
        self.latent_shape((images.shape[-1], images.shape[-2]))
        self.stages.enter("pictures", beside=images.requires_grad)
        exact = self.autoencoder if self.autoencoder.dtype == torch.float32 else encoding_in_fp32(self.autoencoder)
        return exact.encode((images * 2 - 1).to(self.device, torch.float32))

    def decode(self, z: Latents) -> Image:
        """Images `[b 3 H W]` in [0, 1] of latents; differentiable, except where a colour is clipped."""
        self.stages.enter("pictures", beside=z.requires_grad)
        return (self.autoencoder.decode(z.to(self.autoencoder.dtype)).float() / 2 + 0.5).clamp(0, 1)

    def added(self, told: Conditioning, z: Latents) -> Tensor | None:
        """What SDXL's UNet is told of the pooled text and of sizes, `[b added_channels]` in fp32; None for other families.

        The canvas of `z` is all there is: its size is the original and the target size, and nothing is cropped.
        """
        if told.pooled is None or self.unet.config.size_channels is None:
            return None
        height, width = (side * self.factor for side in z.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=z.device).expand(len(z), -1)
        return torch.cat([told.pooled.float(), size_features(sizes, self.unet.config.size_channels)], dim=-1)

    def describe(self) -> Mapping[str, Any]:
        """What a report records: name, family, dtype, and per component its parameters and the sha256 of its files."""
        return {
            "name": self.name,
            "family": family(self.unet.config),
            "prediction": self.prediction,
            **({} if self.grounder is None else {"grounding": self.grounder.share}),
            "dtype": str(self.dtype).removeprefix("torch."),
            "components": {
                part: {
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "sha256": {file.name: file_hash(file) for file in self.files.get(part, ())},
                }
                for part, network in self._components().items()
            },
        }

    def broken_weights(self) -> tuple[str, ...]:
        """The components whose weights hold NaN or infinity; all of them are read."""
        return tuple(
            name
            for name, network in self._components().items()
            if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters())
        )

    def _components(self) -> dict[str, nn.Module]:
        """The networks by the names of their folders."""
        towers = dict(zip(("text_encoder", "text_encoder_2"), (one.network for one in self.text.encoders), strict=False))
        images = None if self.grounder is None else self.grounder.images
        shown = {} if images is None else {"image_encoder": images.tower, "image_project": images.project}
        return {"unet": self.unet, "vae": self.autoencoder, **towers, **shown}


class BoundDenoiser:
    """A latent diffusion model bound to one batch of prompts.

    `conditional`, `unconditional`: what the UNet is told of the prompts, and of the negatives unless `cfg` is 1.
    `grounded_steps`: how many steps, from the first, see the grounding.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        prompts: tuple[str, ...],
        tokens: tuple[TokenTable, ...],
        conditional: Conditioning,
        unconditional: Conditioning | None,
        cfg: float,
        grounded_steps: int = 0,
    ) -> None:
        self.grounded_steps = grounded_steps
        self.model, self.prompts, self.tokens = model, prompts, tokens
        self.layers = model.unet.layers
        self.cfg = cfg
        self.conditional, self.unconditional = conditional, unconditional

    @torch.no_grad()
    def predict(self, z: Latents, step: Step, conditional: Prediction | None = None) -> Prediction:
        """The guided prediction, without gradient; both branches run as one batch, or only the one that is not known yet."""
        raw = self._guided(z, step, conditional)
        prediction = self._prediction(z, raw, step)
        clip = self.model.noise_schedule.clip_sample
        return Prediction(prediction.eps, prediction.z0.clamp(-clip, clip)) if clip else prediction

    def observe(self, z: Latents, step: Step, taps: Taps) -> View:
        """One pass of the conditional branch that records `taps`, differentiable in `z`; none at all if nothing is wanted.

        Raises:
            ConfigError: a tap point at a layer that this model does not have.
        """
        if not taps.wanted and not taps.full:
            return View(z, step, taps, self.layers)
        known = {layer.name for layer in self.layers}
        if foreign := sorted(point for point in taps.wanted if point.layer not in known):
            raise ConfigError(f"tap point {foreign[0]}: {self.model.name} has no such layer; it has {', '.join(sorted(known))}")
        self.model.stages.enter("noise")
        with torch.enable_grad():
            t, told = self._timesteps(step, len(z)), self.conditional
            added, grounding = self.model.added(told, z), self._grounding(told, step)
            raw = self.model.unet.observe(z.to(self.model.dtype), t, told.context, taps, added, grounding)
            if raw is None:
                return View(z, step, taps, self.layers)
            return View(z, step, taps, self.layers, self._prediction(z, raw.float(), step), self.model.decode)

    def select(self, samples: Sequence[int]) -> BoundDenoiser:
        """The same for some samples of the batch, by their places in it."""
        places = list(samples)
        return BoundDenoiser(
            self.model,
            tuple(self.prompts[i] for i in places),
            tuple(self.tokens[i] for i in places),
            self.conditional.select(places),
            None if self.unconditional is None else self.unconditional.select(places),
            self.cfg,
            self.grounded_steps,
        )

    def _guided(self, z: Latents, step: Step, conditional: Prediction | None) -> Tensor:
        """What the UNet says (eps or v, fp32), moved away from the unconditional branch (Ho & Salimans 2021)."""
        if self.unconditional is None:
            return self._network(z, step, self.conditional) if conditional is None else self._raw(conditional, step)
        if conditional is None:
            both = self._network(torch.cat([z, z]), step, self.unconditional.joined(self.conditional))
            uncond, cond = both.chunk(2)
        else:
            uncond, cond = self._network(z, step, self.unconditional), self._raw(conditional, step)
        return uncond + self.cfg * (cond - uncond)

    def _network(self, z: Latents, step: Step, told: Conditioning) -> Tensor:
        self.model.stages.enter("noise")
        added, grounding = self.model.added(told, z), self._grounding(told, step)
        t = self._timesteps(step, len(z))
        return self.model.unet(z.to(self.model.dtype), t, told.context, added, grounding=grounding).float()

    def _grounding(self, told: Conditioning, step: Step) -> Tensor | None:
        return told.grounding if step.index < self.grounded_steps else None

    def _timesteps(self, step: Step, count: int) -> Tensor:
        return torch.full((count,), step.t, device=self.model.device)

    def _prediction(self, z: Latents, raw: Tensor, step: Step) -> Prediction:
        return Prediction.from_v(z, raw, step) if self.model.prediction == "v" else Prediction.from_eps(z, raw, step)

    def _raw(self, prediction: Prediction, step: Step) -> Tensor:
        """What the UNet said, from what was made of it."""
        if self.model.prediction == "eps":
            return prediction.eps
        return step.alpha_bar**0.5 * prediction.eps - (1 - step.alpha_bar) ** 0.5 * prediction.z0


def _without_numbers(layout: Layout, table: TokenTable) -> Layout:
    """A layout whose phrases say what is there, and not which of several in the prompt is meant (`circle#2`)."""
    return Layout(tuple(replace(region, phrase=table.bare(region.phrase)) for region in layout.regions))


def family(unet: UNetConfig) -> str:
    """The family of a model: it shows in the structure of its UNet, whatever its width."""
    if unet.grounded is not None:
        return "gligen" if unet.grounded == "text" else "gligen-text-image"
    if unet.added_channels is not None:
        return "sdxl"
    return "sd2" if unet.linear_projection else "sd1"  # linear projections came with the second


def default_cfg(unet: UNetConfig) -> float:
    """The classifier-free guidance scale that a family is mostly sampled with."""
    return {"sdxl": 5.0}.get(family(unet), 7.5)
