"""A file of weights, or a folder of pickles, written again as a folder of diffusers with safetensors: `lsregen convert`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ...framework.errors import CheckpointError
from ...framework.files import is_file, is_folder, locked, look, reason
from ..networks.text import load_tokenizer
from ..runtime.assemble import TEXT_ENCODERS
from .checkpoint import load_weights, read_config, save_component, write_config
from .diffusers_folder import SETTINGS, check_index, listed
from .inspect import read_any
from .names import INDEX, SAFE
from .part_sources import ALONE, known_prediction
from .recognise import NAMES, NEEDED
from .single_file import SingleFile, understand
from .tokenizers import copy_tokenizer, find_tokenizers
from .unpickle import read_pickle
from .weight_files import find_pickles, find_weights

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
MARK = ".lsregen-convert"  # in a folder that is not whole yet
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
    _check_free(out)
    single = understand(read_any(path), family=family, prediction_type=prediction_type)
    single.tell_of_ignored()
    alone = single.found.family in ALONE
    if not alone and (lacking := [part for part in NEEDED[single.family] if part not in single.configs]):
        raise CheckpointError(f"{path}: {NAMES[single.family]} without its {' and '.join(lacking)}; expected a whole model")
    with _written(out) as unfinished:
        for component in single.found.components:
            folder = unfinished if alone else unfinished / component
            weights = single.weights(component)
            save_component(folder, single.configs[component], weights, STEMS.get(component, "model"), None)
        return () if alone else _finish(single, unfinished, out)


def convert_folder(path: Path, out: Path, *, prediction_type: str | None = None) -> None:
    """Write a folder of diffusers whose weights are pickles again with safetensors; dtypes and keys stay as they are.

    Parts that lsregen does not use, such as a safety checker, are left out. Nothing in a pickle is run, and `out` is written as
    by `convert_file`.

    Raises:
        CheckpointError: something of the folder is missing or not supported, nothing in it is a pickle, or `out` holds something.
    """
    _check_free(out)
    index = read_config(path, INDEX)
    check_index(index, path / INDEX)
    encoders = [name for name in TEXT_ENCODERS if listed(index, name) is not None]
    networks, tokenizers = ("unet", "vae", *encoders), [name.replace("text_encoder", "tokenizer") for name in encoders]
    configs = {name: read_config(path / name) for name in networks}
    scheduler = read_config(path / "scheduler", "scheduler_config.json")
    for name in tokenizers:
        load_tokenizer(path / name)
    pickles = {name: find_pickles(path / name) for name in networks if not _has_safetensors(path / name)}
    if not pickles:
        raise CheckpointError(f"{path}: its weights are safetensors already; there is nothing to convert")
    told = {} if prediction_type is None else {"prediction_type": known_prediction(prediction_type)}
    kept = {*networks, *tokenizers, "scheduler"}
    absent = {name: [None, None] for name, entry in index.items() if isinstance(entry, list) and name not in kept}
    checker = {"requires_safety_checker": False} if "safety_checker" in index else {}
    with _written(out) as unfinished:
        for name in networks:
            tensors = _unpickled(pickles[name]) if name in pickles else load_weights(find_weights(path / name).paths).tensors
            save_component(unfinished / name, configs[name], tensors, STEMS.get(name, "model"), None)
        write_config(unfinished / "scheduler", {**scheduler, **told}, "scheduler_config.json")
        for name in tokenizers:
            copy_tokenizer(path / name, unfinished / name)
        if is_file(path / SETTINGS):
            shutil.copyfile(path / SETTINGS, unfinished / SETTINGS)
        write_config(unfinished, {**index, **absent, **checker}, INDEX)


def _has_safetensors(folder: Path) -> bool:
    return is_folder(folder) and any(file.suffix == SAFE for file in folder.iterdir())


def _unpickled(files: Sequence[Path]) -> dict[str, Tensor]:
    return {key: tensor for file in files for key, tensor in read_pickle(file).items()}


def _check_free(out: Path) -> None:
    """Refuse a place where something is that would be overwritten, or could not be written to."""
    if out.name in ("", ".."):
        raise CheckpointError(f"{out}: has no name of its own; name the folder to write, which need not exist yet")
    empty = look(out).kind == "folder" and not os.path.islink(out) and not any(out.iterdir())
    if os.path.lexists(out) and not empty:
        raise CheckpointError(f"{out}: exists already, and would be overwritten; name a folder that does not exist, or remove it")
    unfinished = _beside(out)
    if os.path.lexists(unfinished) and not is_file(unfinished / MARK):
        raise CheckpointError(
            f"{unfinished}: {out.name} would be written here until it is whole, and what is here was not made by lsregen; move "
            "it, or name another folder"
        )


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")


@contextmanager
def _written(out: Path) -> Generator[Path]:
    """A folder to write into, beside `out` and moved there when the block ends; whatever goes wrong, nothing of it is left.

    It carries a mark, which is also its lock: what an earlier process has left there is removed, and nothing else ever is.

    Raises:
        CheckpointError: it cannot be written, or another process writes there.
    """
    unfinished = _beside(out)
    above = [folder for folder in (unfinished, *unfinished.parents) if not os.path.lexists(folder)]
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        if not is_file(unfinished / MARK):
            unfinished.mkdir()
        with locked(
            unfinished / MARK, f"{unfinished}: another lsregen convert is writing there; wait for it, or name another folder"
        ):
            try:
                _clear(unfinished)
                yield unfinished
                (unfinished / MARK).unlink()
                if is_folder(out):
                    out.rmdir()  # it is empty
                unfinished.rename(out)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                for folder in above:
                    with suppress(OSError):
                        folder.rmdir()
                raise
    except OSError as error:
        cure = "make room there, or name another folder; nothing of it was kept"
        which = "" if error.filename is None else f"{error.filename}: "
        raise CheckpointError(f"{out}: cannot be written ({which}{reason(error)}); {cure}") from None


def _clear(unfinished: Path) -> None:
    """Remove what an earlier process has left, all but the mark."""
    for entry in unfinished.iterdir():
        if entry.name != MARK:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _finish(single: SingleFile, folder: Path, out: Path) -> tuple[str, ...]:
    """Write what is no network: the noise schedule, the tokenizers, and last the index."""
    write_config(folder / "scheduler", single.configs["scheduler"], "scheduler_config.json")
    encoders = [name for name in TEXT_ENCODERS if name in single.configs]
    todo: tuple[str, ...] = ()
    for encoder in encoders:
        name = encoder.replace("text_encoder", "tokenizer")
        try:
            (found,) = find_tokenizers(single.path, single.family, [encoder]).values()
            copy_tokenizer(found, folder / name)
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
