"""A latent diffusion model: text encoder, UNet and autoencoder behind the protocols `Model` and `Denoiser`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..framework.errors import CheckpointError, ConfigError
from ..framework.layout import Layout
from ..framework.taps import Taps
from ..framework.tokens import TokenTable
from ..framework.types import Image, Latents, NoiseSchedule, Prediction, Step, View
from .autoencoder import Autoencoder
from .checkpoint import sha256
from .text import TextEncoder
from .unet import UNet


class LatentDiffusion:
    """Loaded weights, stateless. Latents and predictions are fp32, whatever the dtype that the networks compute in.

    Args:
        prediction: what the UNet predicts, `eps` or `v`.
        default_size: width and height in pixels of an image when nothing is asked for.
        files: the weight files of each component, for reports.

    Raises:
        CheckpointError: the parts do not fit together.
    """

    def __init__(
        self,
        name: str,
        unet: UNet,
        autoencoder: Autoencoder,
        text: TextEncoder,
        noise_schedule: NoiseSchedule,
        *,
        prediction: str,
        default_size: tuple[int, int],
        default_cfg: float,
        files: Mapping[str, Sequence[Path]],
    ) -> None:
        self.name, self.unet, self.autoencoder, self.text = name, unet, autoencoder, text
        self.noise_schedule, self.prediction = noise_schedule, prediction
        self.default_size, self.default_cfg = default_size, default_cfg
        self.files = files
        self.factor = autoencoder.config.factor
        self.latent_channels = autoencoder.config.latent_channels
        weight = unet.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        _check_fit(self)

    def bind(
        self, prompts: Sequence[str], negatives: Sequence[str], layouts: Sequence[Layout], *, cfg: float, count: int
    ) -> BoundDenoiser:
        """A denoiser for one batch; the texts are encoded here, once.

        `negatives`: one per prompt, or none at all for the empty prompt. `layouts` and `count` are for models with grounding;
        this one sees the text alone.

        Raises:
            ConfigError: an empty prompt, a number of negatives that is not that of prompts, or a `cfg` that is no strength.
        """
        negatives = tuple(negatives) or ("",) * len(prompts)
        if len(negatives) != len(prompts):
            raise ConfigError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one for each, or none")
        if not prompts or any(not prompt.strip() for prompt in prompts):
            raise ConfigError(f"prompt {list(prompts)!r}: it is empty; say what the image shows, e.g. 'a red circle'")
        if not (math.isfinite(cfg) and cfg >= 0):
            raise ConfigError(f"cfg {cfg}: expected a number of at least 0; 1 switches classifier-free guidance off")
        tables = {prompt: self.tokens(prompt) for prompt in dict.fromkeys(prompts)}
        context = self._embed(prompts)
        unconditional = self._embed(negatives) if cfg != 1 else None
        return BoundDenoiser(self, tuple(prompts), tuple(tables[p] for p in prompts), context, unconditional, cfg)

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
        """Latents `[b c h w]` of images `[b 3 H W]` in [0, 1]; differentiable. Raises as `latent_shape`."""
        self.latent_shape((images.shape[-1], images.shape[-2]))
        return self.autoencoder.encode((images * 2 - 1).to(self.device, self.dtype)).float()

    def decode(self, z: Latents) -> Image:
        """Images `[b 3 H W]` in [0, 1] of latents; differentiable, except where a colour is clipped."""
        return (self.autoencoder.decode(z.to(self.dtype)).float() / 2 + 0.5).clamp(0, 1)

    def describe(self) -> Mapping[str, Any]:
        """What a report records: name, family, dtype, and per component its parameters and the sha256 of its files."""
        networks = {"unet": self.unet, "vae": self.autoencoder, "text_encoder": self.text.network}
        return {
            "name": self.name,
            # The two families differ in structure, whatever their width: linear projections came with the second.
            "family": "sd2" if self.unet.config.linear_projection else "sd1",
            "prediction": self.prediction,
            "dtype": str(self.dtype).removeprefix("torch."),
            "components": {
                part: {
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "sha256": {file.name: sha256(file) for file in self.files.get(part, ())},
                }
                for part, network in networks.items()
            },
        }

    def _embed(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings `[b t d]`; each distinct prompt is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        return self.text.encode(distinct)[[distinct.index(prompt) for prompt in prompts]]


class BoundDenoiser:
    """A latent diffusion model bound to one batch of prompts.

    `context`, `unconditional`: embeddings `[b t d]` of the prompts, and of the negatives unless `cfg` is 1.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        prompts: tuple[str, ...],
        tokens: tuple[TokenTable, ...],
        context: Tensor,
        unconditional: Tensor | None,
        cfg: float,
    ) -> None:
        self.model, self.prompts, self.tokens = model, prompts, tokens
        self.layers = model.unet.layers
        self.cfg = cfg
        self._context, self._unconditional = context, unconditional

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
        with torch.enable_grad():
            t = self._timesteps(step, len(z))
            raw = self.model.unet.observe(z.to(self.model.dtype), t, self._context, taps)
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
            self._context[places],
            None if self._unconditional is None else self._unconditional[places],
            self.cfg,
        )

    def _guided(self, z: Latents, step: Step, conditional: Prediction | None) -> Tensor:
        """What the UNet says (eps or v, fp32), moved away from the unconditional branch (Ho & Salimans 2021)."""
        if self._unconditional is None:
            return self._network(z, step, self._context) if conditional is None else self._raw(conditional, step)
        if conditional is None:
            both = self._network(torch.cat([z, z]), step, torch.cat([self._unconditional, self._context]))
            without, towards = both.chunk(2)
        else:
            without, towards = self._network(z, step, self._unconditional), self._raw(conditional, step)
        return without + self.cfg * (towards - without)

    def _network(self, z: Latents, step: Step, context: Tensor) -> Tensor:
        return self.model.unet(z.to(self.model.dtype), self._timesteps(step, len(z)), context).float()

    def _timesteps(self, step: Step, count: int) -> Tensor:
        return torch.full((count,), step.t, device=self.model.device)

    def _prediction(self, z: Latents, raw: Tensor, step: Step) -> Prediction:
        return Prediction.from_v(z, raw, step) if self.model.prediction == "v" else Prediction.from_eps(z, raw, step)

    def _raw(self, prediction: Prediction, step: Step) -> Tensor:
        """What the UNet said, from what was made of it."""
        if self.model.prediction == "eps":
            return prediction.eps
        return step.alpha_bar**0.5 * prediction.eps - (1 - step.alpha_bar) ** 0.5 * prediction.z0


def _check_fit(model: LatentDiffusion) -> None:
    unet, channels = model.unet.config, model.latent_channels
    if unet.in_channels != channels or unet.out_channels != channels:
        kind = {9: " (an inpainting model)", 8: " (an image editing model)", 5: " (a depth-guided model)"}
        raise CheckpointError(
            f"{model.name}: its UNet takes {unet.in_channels} channels and gives {unet.out_channels}, its autoencoder has "
            f"{channels}{kind.get(unet.in_channels, '')}; supported are UNets that take and give latents"
        )
    if unet.added_channels is not None:
        raise CheckpointError(f"{model.name}: its UNet is conditioned on pooled text and sizes (SDXL), which is not supported")
    if unet.context_channels != model.text.channels:
        raise CheckpointError(
            f"{model.name}: its UNet attends to texts of width {unet.context_channels}, its text encoder's are of "
            f"width {model.text.channels}"
        )
