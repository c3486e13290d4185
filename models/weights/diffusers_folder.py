"""A model's parts from a folder in the layout of diffusers: an index, and a folder for each component."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ...framework.errors import CheckpointError, nearest
from ...framework.files import is_file
from ..runtime.assemble import IMAGE_ENCODER, TEXT_ENCODERS, Parts
from ..runtime.latent_diffusion import family
from .checkpoint import Weights, load_weights, read_config, renamed
from .configs import unet_config
from .headers import absent
from .key_maps import autoencoder_map
from .names import INDEX
from .settings import Settings
from .tokenizers import folder_tokenizers
from .weight_files import WeightFiles, find_weights

log = logging.getLogger(__name__)

SETTINGS = "lsregen.json"  # ours, beside the index: diffusers complains about keys of the index that it does not know

OWN = ("cfg", "grounding")

COMPONENTS = MappingProxyType(
    {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
)
SECOND = MappingProxyType({"text_encoder_2": "CLIPTextModelWithProjection", "tokenizer_2": "CLIPTokenizer"})  # SDXL's
PROCESSORS = ("processor", "feature_extractor")  # folders that say how pictures are prepared for an image encoder
OTHER_FAMILIES = ("text_encoder_3", "transformer", "controlnet", "prior", "motion_adapter", "image_normalizer")
REFINER = "this is the refiner of Stable Diffusion XL, which is not supported; take the base model"


def read_folder(path: Path, variant: str | None = None) -> Parts:
    """The parts of the model in a folder; no tensor is read yet. `variant`: of its weights, as `find_weights`.

    Raises:
        CheckpointError: no model folder, of an unsupported family, or files of it are missing or broken.
    """
    if not is_file(path / INDEX):
        raise CheckpointError(f"{path}: no model folder of diffusers; expected a folder with {INDEX} ({absent(path / INDEX)})")
    index = read_config(path, INDEX)
    check_index(index, path / INDEX)
    networks = components(index)[0]
    encoders = [name for name in networks if name in TEXT_ENCODERS]
    names = {**dict.fromkeys(networks, "config.json"), "scheduler": "scheduler_config.json"}
    configs = {component: read_config(path / component, name) for component, name in names.items()}
    files = {component: find_weights(path / component, variant) for component in networks}
    if variant is None:
        _tell_of_variants(path, files)
    where = {component: str(path / component / name) for component, name in names.items()}
    return Parts(
        name=_name(path.resolve()),
        configs=configs,
        where=where,
        weights=lambda component: _weights(component, files[component]),
        tokenizers=folder_tokenizers(path, family(unet_config(configs["unet"], where["unet"])), encoders),
        processor=next((path / part for part in PROCESSORS if _prepares(path / part)), None),
        **_own(path),
        zeros_for_empty=Settings(index, str(path / INDEX)).flag("force_zeros_for_empty_prompt", len(encoders) > 1),
    )


def _prepares(folder: Path) -> bool:
    return any(is_file(folder / name) for name in ("preprocessor_config.json", "processor_config.json"))


def _name(path: Path) -> str:
    """What reports call a folder: `owner/name` in the hub's cache (models--OWNER--NAME/snapshots/COMMIT), else its own name."""
    home = path.parent.parent.name.split("--")
    return "/".join(home[1:]) if path.parent.name == "snapshots" and home[0] == "models" and len(home) == 3 else path.name


def _weights(component: str, files: WeightFiles) -> Weights:
    weights = load_weights(files.paths)
    # Autoencoders saved before diffusers 0.17 name their attention otherwise.
    return Weights(renamed(weights.tensors, autoencoder_map(weights.tensors)), weights.files) if component == "vae" else weights


def _tell_of_variants(path: Path, files: Mapping[str, WeightFiles]) -> None:
    for variant in sorted({found.variant for found in files.values()} - {""}):
        parts = ", ".join(name for name, found in files.items() if found.variant == variant)
        log.warning("%s: took the variant %s of %s, for there is no plain one", path, variant, parts)


def components(index: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of a model that an index lists: those with weights, and the others."""
    shown, prepared = (IMAGE_ENCODER, PROCESSORS[:1]) if has_image_encoder(index) else ((), ())
    encoders = [name for name in TEXT_ENCODERS if listed(index, name) is not None]
    tokenizers = (name.replace("text_encoder", "tokenizer") for name in encoders)
    return ("unet", "vae", *encoders, *shown), ("scheduler", *tokenizers, *prepared)


def has_image_encoder(index: Mapping[str, Any]) -> bool:
    """Whether an index lists GLIGEN's encoder of images; with no projection beside it, it is for something else."""
    return all(listed(index, part) is not None for part in IMAGE_ENCODER)


def check_index(index: Mapping[str, Any], where: Path | str) -> None:
    """Refuse other families by the components that they list."""
    family = index.get("_class_name", "a pipeline without a name")
    second = any(listed(index, part) is not None for part in SECOND)
    if second and listed(index, "text_encoder") is None:
        raise CheckpointError(f"{where}: {REFINER}")
    for part in OTHER_FAMILIES:
        if (found := listed(index, part)) is not None:
            raise CheckpointError(f"{where}: {family} has a component {part} ({found}), which is not supported")
    for part, expected in {**COMPONENTS, **(SECOND if second else {})}.items():
        found = listed(index, part)
        if found is None or found.removesuffix("Fast") != expected:
            raise CheckpointError(f"{where}: component {part} of {family} is {found}; supported is {expected}")


def listed(index: Mapping[str, Any], part: str) -> str | None:
    """The class of a component in an index, which lists `[library, class]`, or two nulls where there is none."""
    entry = index.get(part)
    pair = cast("list[object]", entry) if isinstance(entry, list) else []
    return str(pair[1]) if len(pair) == 2 and pair[1] else None


def _own(path: Path) -> dict[str, float]:
    """What a folder says of itself in our own file: the classifier-free guidance scale that the model was made for, and the share
    of the steps that see GLIGEN's boxes.
    """
    if not os.path.lexists(path / SETTINGS):
        return {}
    values, found = read_config(path, SETTINGS), dict[str, float]()
    if unknown := next((key for key in values if key not in OWN), None):
        raise CheckpointError(f"{path / SETTINGS}: {unknown!r} is no setting{nearest(unknown, OWN)}; expected {' or '.join(OWN)}")
    for key in OWN:
        given: object = values.get(key)
        if given is None:
            continue
        if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given < float("inf"):
            raise CheckpointError(f"{path / SETTINGS}: {key} is {given!r}; expected a number of at least 0")
        found[key] = float(given)
    return found
