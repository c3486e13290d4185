"""A model from a folder in the layout of diffusers, component by component."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from ..framework.errors import CheckpointError
from . import INDEX
from .autoencoder import Autoencoder
from .checkpoint import fill, load_weights, read_config
from .configs import autoencoder_config, noise_schedule, prediction_kind, sample_size, unet_config
from .latent_diffusion import LatentDiffusion
from .text import load_text_encoder
from .unet import UNet

SETTINGS = "lsregen.json"  # ours, beside the index: diffusers complains about keys of the index that it does not know
DEFAULT_CFG = 7.5  # what Stable Diffusion is mostly sampled with

COMPONENTS = MappingProxyType(
    {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
)
OTHER_FAMILIES = ("text_encoder_2", "text_encoder_3", "transformer", "controlnet", "prior", "motion_adapter")


def load_folder(path: Path, device: torch.device, dtype: torch.dtype) -> LatentDiffusion:
    """The model in a folder, frozen.

    Raises:
        CheckpointError: the folder cannot be used; the message says which file or setting is at fault.
    """
    if not (path / INDEX).is_file():
        raise CheckpointError(f"{path}: no model folder of diffusers; expected a folder with {INDEX}")
    _check_index(read_config(path, INDEX), path / INDEX)
    where = {part: str(path / part / "config.json") for part in ("unet", "vae")}
    scheduler, scheduler_where = path / "scheduler", str(path / "scheduler" / "scheduler_config.json")
    # Every config before any weights: a setting that is not supported is known at once.
    unet_values = read_config(path / "unet")
    unet_sizes = unet_config(unet_values, where["unet"])
    autoencoder_sizes = autoencoder_config(read_config(path / "vae"), where["vae"])
    schedule = read_config(scheduler, "scheduler_config.json")
    noise, prediction = noise_schedule(schedule, scheduler_where), prediction_kind(schedule, scheduler_where)

    with torch.device("meta"):
        unet, autoencoder = UNet(unet_sizes), Autoencoder(autoencoder_sizes)
    text, text_files = load_text_encoder(path / "tokenizer", path / "text_encoder", device, dtype)
    files = {
        "unet": _load(unet, path / "unet", device, dtype),
        "vae": _load(autoencoder, path / "vae", device, dtype),
        "text_encoder": text_files,
    }
    height, width = sample_size(unet_values, where["unet"])
    factor = autoencoder_sizes.factor
    return LatentDiffusion(
        path.resolve().name,
        unet,
        autoencoder,
        text,
        noise,
        prediction=prediction,
        default_size=(width * factor, height * factor),
        default_cfg=_default_cfg(path),
        files=files,
    )


def _load(network: nn.Module, folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Path, ...]:
    weights = load_weights(folder)
    fill(network, weights.tensors, weights.where, device=device, dtype=dtype)
    return weights.files


def _check_index(index: Mapping[str, Any], where: Path) -> None:
    """Refuse other families by the components that they list."""
    family = index.get("_class_name", "a pipeline without a name")
    for part in OTHER_FAMILIES:
        if (found := _listed(index, part)) is not None:
            raise CheckpointError(f"{where}: {family} has a component {part} ({found}), which is not supported")
    for part, expected in COMPONENTS.items():
        found = _listed(index, part)
        if found is None or found.removesuffix("Fast") != expected:
            raise CheckpointError(f"{where}: component {part} of {family} is {found}; supported is {expected}")


def _listed(index: Mapping[str, Any], part: str) -> str | None:
    """The class of a component in an index, which lists `[library, class]`, or two nulls where there is none."""
    entry = index.get(part)
    pair = cast("list[object]", entry) if isinstance(entry, list) else []
    return str(pair[1]) if len(pair) == 2 and pair[1] else None


def _default_cfg(path: Path) -> float:
    """The classifier-free guidance scale that a model was made for, if its folder says so."""
    if not (path / SETTINGS).is_file():
        return DEFAULT_CFG
    given: object = read_config(path, SETTINGS).get("cfg", DEFAULT_CFG)
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given < float("inf"):
        raise CheckpointError(f"{path / SETTINGS}: cfg is {given!r}; expected a number of at least 0")
    return float(given)
