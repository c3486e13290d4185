"""A file of weights, written again as a folder of diffusers with safetensors: what `lsregen convert` does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..framework.errors import CheckpointError
from . import INDEX
from .assemble import TEXT_ENCODERS
from .checkpoint import save_component, write_config
from .inspect import read_any
from .recognise import NAMES, NEEDED
from .single_file import SingleFile, understand
from .sources import ALONE
from .tokenizers import find_tokenizers

PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "sd1": "StableDiffusionPipeline",
        "sd2": "StableDiffusionPipeline",
        "sdxl": "StableDiffusionXLPipeline",
        "gligen": "StableDiffusionGLIGENPipeline",
        "gligen-text-image": "StableDiffusionGLIGENTextImagePipeline",
    }
)
CLASSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "scheduler": ("diffusers", "DDIMScheduler"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    }
)
STEMS = MappingProxyType({"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"})


def convert_file(path: Path, out: Path, *, family: str | None = None, prediction_type: str | None = None) -> tuple[str, ...]:
    """Write the model in a file as a folder of diffusers; dtypes stay as they are. Nothing in a pickle is run.

    The folder is written beside its place and moved there when it is whole. An autoencoder or a text encoder alone becomes the
    folder of that component.

    Args:
        out: a folder that does not exist yet, or is empty.
        family, prediction_type: override what was recognised; see `single_file.understand`.

    Returns:
        What is still to be done, in words; nothing if the folder can be loaded.

    Raises:
        CheckpointError: the file cannot be read, is of no supported family, lacks a part, or `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists already, and would be overwritten; name a folder that does not exist, or remove it")
    single = understand(read_any(path), family=family, prediction_type=prediction_type)
    alone = single.found.family in ALONE
    if not alone and (lacking := [part for part in NEEDED[single.family] if part not in single.configs]):
        raise CheckpointError(f"{path}: {NAMES[single.family]} without its {' and '.join(lacking)}; expected a whole model")
    unfinished = out.with_name(f"{out.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    for component in single.found.components:
        folder = unfinished if alone else unfinished / component
        weights = single.weights(component)
        save_component(folder, single.configs[component], weights, STEMS.get(component, "model"), None)
    todo = () if alone else _finish(single, unfinished, out)
    if out.exists():
        out.rmdir()  # it is empty
    unfinished.rename(out)
    return todo


def _finish(single: SingleFile, folder: Path, out: Path) -> tuple[str, ...]:
    """Write what is no network: the noise schedule, the tokenizers, and last the index."""
    write_config(folder / "scheduler", single.configs["scheduler"], "scheduler_config.json")
    encoders = [name for name in TEXT_ENCODERS if name in single.configs]
    todo: tuple[str, ...] = ()
    for encoder in encoders:
        name = encoder.replace("text_encoder", "tokenizer")
        try:
            (found,) = find_tokenizers(single.path, single.family, [encoder]).values()
            shutil.copytree(found, folder / name)
        except CheckpointError as error:
            said = str(error).removeprefix(f"{single.path}: ").replace(str(single.path.parent / name), str(out / name))
            todo = (*todo, said)
    write_config(folder, _index(single, encoders), INDEX)
    return todo


def _index(single: SingleFile, encoders: list[str]) -> dict[str, Any]:
    """The `model_index.json`. Parts that lsregen does not use are null, as diffusers writes them when there are none."""
    present = {name: list(CLASSES[name]) for name in ("scheduler", "unet", "vae", *encoders)}
    tokenizers = {name.replace("text_encoder", "tokenizer"): ["transformers", "CLIPTokenizer"] for name in encoders}
    index = {"_class_name": PIPELINES[single.family], "_diffusers_version": "0.30.0", **present, **tokenizers}
    if single.family == "sdxl":
        return {**index, "force_zeros_for_empty_prompt": True, "feature_extractor": [None, None], "image_encoder": [None, None]}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    if single.family == "gligen-text-image":
        del index["feature_extractor"]
        index |= {name: [None, None] for name in ("processor", "image_encoder", "image_project")}
    return index
