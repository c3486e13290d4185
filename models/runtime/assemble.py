"""A model from its parts: configs as diffusers writes them, weights under the keys of our networks, tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import nn

from ...framework.config.load_options import LoadOptions
from ...framework.errors import CheckpointError
from ...framework.types import NoiseSchedule
from ..networks.autoencoder import Autoencoder, AutoencoderConfig
from ..networks.checkpointing import set_memory
from ..networks.text import TextEncoder, build_text_encoder, check_text_encoder, fill_text_encoder
from ..networks.unet import UNet, UNetConfig
from ..networks.vision import ImageEncoder, build_image_encoder, fill_image_encoder
from ..weights.checkpoint import Weights, check_shapes, fill
from ..weights.configs import autoencoder_config, noise_schedule, prediction_kind, sample_size, unet_config
from ..weights.key_maps import Shape
from ..weights.recognise import EXTRA_CHANNELS
from ..weights.settings import Values
from .conditioning import Conditioner
from .devices import HOME, resolve
from .grounding import SHARE, Grounder
from .latent_diffusion import LatentDiffusion, default_cfg, family
from .tiling import make_tiling

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
Network = TypeVar("Network", bound=nn.Module)

IMAGE_ENCODER = ("image_encoder", "image_project")  # of a GLIGEN that is grounded on images


@dataclass(frozen=True)
class Parts:
    """A model before it is built.

    Args:
        name: what reports call it.
        configs: by component, what the `config.json` of a diffusers folder holds: `unet`, `vae`, `scheduler`, `text_encoder`, and
            `text_encoder_2` for a second text encoder.
        where: by component, the file that says so, for the messages.
        weights: reads the tensors of a component, by the keys of our networks; called once for each, when it is built.
        tokenizers: by text encoder, the folder of its tokenizer.
        processor: of an `image_encoder` among the configs, the folder that says how it prepares pictures, if there is one; its
            projection is the component `image_project`.
        cfg: the classifier-free guidance scale that the model was made for; None for that of its family.
        grounding: the share of the steps, from the first, in which a GLIGEN model sees the boxes; None for GLIGEN's own.
        zeros_for_empty: an empty negative prompt stands for nothing at all.
    """

    name: str
    configs: Mapping[str, Values]
    where: Mapping[str, str]
    weights: Callable[[str], Weights]
    tokenizers: Mapping[str, Path]
    processor: Path | None = None
    cfg: float | None = None
    grounding: float | None = None
    zeros_for_empty: bool = False


@dataclass(frozen=True)
class Plan:
    """A model as its configs describe it: sizes, noise, and text encoders that have no weights yet."""

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    noise: NoiseSchedule
    encoders: Mapping[str, TextEncoder]
    text: Conditioner
    images: ImageEncoder | None


def plan(parts: Parts) -> Plan:
    """What a model will be; no weights are read.

    Raises:
        CheckpointError: a setting that is not supported, a broken tokenizer, or parts that do not fit together.
    """
    configs, where = parts.configs, parts.where
    unet = unet_config(configs["unet"], where["unet"])
    autoencoder = autoencoder_config(configs["vae"], where["vae"])
    noise = noise_schedule(configs["scheduler"], where["scheduler"])
    _check_channels(unet, autoencoder, where["unet"])
    encoders = {name: _encoder(parts, name) for name in TEXT_ENCODERS if name in configs}
    text = Conditioner(tuple(encoders.values()), zeros_for_empty=parts.zeros_for_empty)
    _check_texts(unet, text, parts.name)
    _check_grounding(unet, text, parts)
    return Plan(unet, autoencoder, noise, encoders, text, _image_encoder(unet, parts))


Shapes: TypeAlias = Mapping[str, Mapping[str, Shape]]
"""The shapes of the tensors of a model by component and by the keys of our networks."""


def check_networks(configs: Mapping[str, Values], where: Mapping[str, str], shapes: Shapes) -> None:
    """Whether a UNet, or an autoencoder, or both with their noise can be built and filled; no tensor is read.

    `configs`, `where`: as those of `Parts`.

    Raises:
        CheckpointError: as `build_model`.
    """
    unet = unet_config(configs["unet"], where["unet"]) if "unet" in configs else None
    autoencoder = autoencoder_config(configs["vae"], where["vae"]) if "vae" in configs else None
    if "scheduler" in configs:
        noise_schedule(configs["scheduler"], where["scheduler"])
        prediction_kind(configs["scheduler"], where["scheduler"])
    if unet is not None:
        sample_size(configs["unet"], where["unet"])
        check_shapes(_made(lambda: UNet(unet), where["unet"]), shapes["unet"], where["unet"])
    if autoencoder is not None:
        check_shapes(_made(lambda: Autoencoder(autoencoder), where["vae"]), shapes["vae"], where["vae"])
    if unet is not None and autoencoder is not None:
        _check_channels(unet, autoencoder, where["unet"])


def check_parts(parts: Parts, shapes: Shapes) -> None:
    """Whether a model can be built of parts and filled with tensors of these shapes; none is read. Raises as `build_model`."""
    planned = plan(parts)
    check_networks(parts.configs, parts.where, shapes)
    for name, encoder in planned.encoders.items():
        check_text_encoder(encoder, shapes[name], parts.where[name])


def _made(make: Callable[[], Network], where: str) -> Network:
    """A network without weights.

    Raises:
        CheckpointError: torch cannot make it.
    """
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, OverflowError) as error:  # sizes that no tensor may have
        said = str(error).split("\n")[0]
        raise CheckpointError(
            f"{where}: no network of these sizes can be made ({said}); expected the sizes of its weights"
        ) from None


def build_model(parts: Parts, options: LoadOptions) -> LatentDiffusion:
    """The model, frozen. Whatever its configs say wrong is known before any weights are read.

    Raises:
        ConfigError: no such device, or a tile without tiling.
        CheckpointError: a setting that is not supported, parts that do not fit together, or weights that do not fit their config.
    """
    device, dtype = resolve(options.device, options.dtype)
    parts = parts if options.grounding is None else replace(parts, grounding=options.grounding)
    configs, where, planned = parts.configs, parts.where, plan(parts)
    images, tiling = planned.images, make_tiling(options.tiling, options.tile)
    unet = _made(lambda: UNet(planned.unet), where["unet"])
    autoencoder = _made(lambda: Autoencoder(planned.autoencoder, tiling), where["vae"])
    for network in (unet, autoencoder):
        set_memory(network, options.memory)

    files: dict[str, tuple[Path, ...]] = {}
    home = HOME if options.offload else device

    def load(name: str, network: nn.Module, dtype: torch.dtype) -> None:
        weights = parts.weights(name)
        fill(network, weights.tensors, weights.where, device=home, dtype=dtype)
        files[name] = weights.files

    load("unet", unet, dtype)
    load("vae", autoencoder, _autoencoder_dtype(planned.unet, planned.autoencoder, dtype))
    for name, encoder in planned.encoders.items():
        weights = parts.weights(name)
        fill_text_encoder(encoder, weights, home, dtype)
        files[name] = weights.files
    if images is not None:
        tower, projection = (parts.weights(name) for name in IMAGE_ENCODER)
        fill_image_encoder(images, tower, projection, home, dtype)
        files |= {"image_encoder": tower.files, "image_project": projection.files}
    height, width = sample_size(configs["unet"], where["unet"])
    factor = planned.autoencoder.factor
    return LatentDiffusion(
        parts.name,
        unet,
        autoencoder,
        planned.text,
        planned.noise,
        prediction=prediction_kind(configs["scheduler"], where["scheduler"]),
        default_size=(width * factor, height * factor),
        default_cfg=default_cfg(planned.unet) if parts.cfg is None else parts.cfg,
        files=files,
        grounder=_grounder(unet, planned.text, parts.grounding, images),
        offload=device if home != device else None,
    )


def _encoder(parts: Parts, name: str) -> TextEncoder:
    tokenizer = parts.tokenizers[name]
    return build_text_encoder(parts.configs[name], parts.where[name], tokenizer, projection=name != TEXT_ENCODERS[0])


def _image_encoder(unet: UNetConfig, parts: Parts) -> ImageEncoder | None:
    """The image encoder of a model that is grounded on images; other models have no use for one."""
    name = IMAGE_ENCODER[0]
    if unet.grounded != "text-image" or name not in parts.configs:
        return None
    encoder = build_image_encoder(parts.configs[name], parts.where[name], parts.processor)
    if encoder.channels != unet.context_channels:
        raise CheckpointError(
            f"{parts.where[name]}: projection_dim is {encoder.channels}; expected {unet.context_channels}, as wide as the images "
            "that the position net of the UNet takes"
        )
    return encoder


def _grounder(unet: UNet, text: Conditioner, share: float | None, images: ImageEncoder | None) -> Grounder | None:
    if unet.position_net is None:
        return None
    return Grounder(text.encoders[0], unet.position_net, SHARE if share is None else share, images)


def _check_grounding(unet: UNetConfig, text: Conditioner, parts: Parts) -> None:
    if unet.grounded is None and parts.grounding is not None:
        raise CheckpointError(
            f"{parts.name}: grounding is {parts.grounding}, the share of the steps in which a GLIGEN model sees the boxes, and "
            f"this model ({family(unet)}) does not see boxes; leave the option out, or name a GLIGEN model"
        )
    if parts.grounding is not None and not 0 <= parts.grounding <= 1:
        raise CheckpointError(f"{parts.name}: grounding is {parts.grounding}; expected a share of the steps, from 0 to 1")
    if unet.grounded is not None and text.encoders[0].pooled_channels != unet.context_channels:
        raise CheckpointError(
            f"{parts.name}: its position net takes phrases of width {unet.context_channels}, its text encoder's are of width "
            f"{text.encoders[0].pooled_channels}"
        )


def _autoencoder_dtype(unet: UNetConfig, autoencoder: AutoencoderConfig, dtype: torch.dtype) -> torch.dtype:
    """SDXL's autoencoder overflows in fp16, unless its config says that it was mended."""
    # The autoencoders of the other families say the same by default, and do not overflow.
    upcast = unet.added_channels is not None and autoencoder.force_upcast and dtype == torch.float16
    return torch.float32 if upcast else dtype


def _check_channels(unet: UNetConfig, autoencoder: AutoencoderConfig, where: str) -> None:
    channels = autoencoder.latent_channels
    if unet.in_channels != channels or unet.out_channels != channels:
        kind = EXTRA_CHANNELS.get(unet.in_channels - channels, "a UNet of other inputs and outputs")
        raise CheckpointError(
            f"{where}: this is {kind}, with {unet.in_channels} channels in and {unet.out_channels} out beside an autoencoder of "
            f"{channels}, which is not supported; supported are UNets that take and give latents"
        )


def _check_texts(unet: UNetConfig, text: Conditioner, name: str) -> None:
    lengths = {encoder.length for encoder in text.encoders}
    if len(lengths) > 1:
        raise CheckpointError(
            f"{name}: its text encoders take {' and '.join(map(str, sorted(lengths)))} tokens; expected as many"
        )
    if unet.context_channels != text.channels:
        raise CheckpointError(
            f"{name}: its UNet attends to texts of width {unet.context_channels}, its text encoder's are of width {text.channels}"
        )
    if (unet.added_channels is None) != (text.pooled_channels is None):
        raise CheckpointError(
            f"{name}: {'a second' if text.pooled_channels is None else 'no second'} text encoder is expected by its UNet, "
            f"and it has {len(text.encoders)}"
        )
    if unet.added_channels is not None and unet.pooled_channels != text.pooled_channels:
        raise CheckpointError(
            f"{name}: its UNet takes pooled texts of width {unet.pooled_channels}, its text encoder's are of width "
            f"{text.pooled_channels}"
        )
