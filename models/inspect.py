"""What the files of a model are, told from their headers: nothing is loaded, and what is wrong is told, not raised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..framework.errors import CheckpointError, LsregenError
from ..framework.inspection import Component, Inspection
from . import INDEX, PICKLES
from .assemble import TEXT_ENCODERS, plan
from .checkpoint import read_config
from .configs import prediction_kind, unet_config
from .diffusers_folder import check_index, components, read_folder
from .headers import PICKLE, convert_command, foreign, read_header
from .key_maps import is_harmless
from .latent_diffusion import family
from .recognise import NAMES, Naming, Recognised, recognise
from .single_file import Contents, read_contents, told_beside
from .sources import ALONE
from .structure import PREDICTIONS
from .tokenizers import find_tokenizers
from .unpickle import read_pickle
from .weight_files import find_weights

FOLDER, SINGLE, PICKLED, BARE = "a folder of diffusers", "a single file", "a pickle", "one network alone"
NAMINGS: Mapping[Naming, str] = {"unet": "LDM", "autoencoder": "LDM", "clip": "CLIP of transformers", "open_clip": "OpenCLIP"}
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def read_any(path: Path) -> Contents:
    """The contents of a file of weights, safetensors or pickle; of a pickle nothing is run (see `read_pickle`).

    Raises:
        CheckpointError: it cannot be read.
    """
    if not is_pickle(path):
        return read_contents(path)
    tensors = read_pickle(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    dtypes = {key: DTYPES.get(tensor.dtype, str(tensor.dtype)) for key, tensor in tensors.items()}
    return Contents(path, tensors, shapes, dtypes)


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by its ending or, whatever its name says, by how it begins. Raises as `foreign`."""
    return path.suffix.lower() in PICKLES or foreign(path) == PICKLE


def inspect_file(path: Path) -> Inspection:
    """What a file of weights is.

    Raises:
        CheckpointError: it cannot be read, or its keys are of nothing known.
    """
    contents = read_any(path)
    found = recognise(contents.shapes, contents.metadata, str(path))
    pickle = is_pickle(path)
    prediction, learnt = found.prediction, dict(found.learnt)
    notes, missing, refusal = list[str](), list(found.missing), found.refusal
    try:
        if "unet" in found.components and (told := told_beside(path)).prediction is not None:
            prediction, learnt["prediction"] = told.prediction, told.where
    except LsregenError as error:
        refusal = refusal or str(error)
    if found.unknown:
        refusal = refusal or f"{len(found.unknown)} keys belong to nothing known, such as {', '.join(found.unknown[:3])}"
    if "unet" in found.components and prediction is None:
        missing.append("what it predicts: pass prediction_type=epsilon or v_prediction, or put its yaml beside it")
    if found.zero_terminal_snr:
        notes.append("trained with a zero terminal signal-to-noise ratio")
    if found.family in ALONE:
        use = "; give it to a model with --vae" if found.family == "autoencoder" else ""
        refusal = refusal or f"this is {NAMES[found.family]}, not a whole model{use}"
    elif refusal is None:
        missing += _missing_tokenizers(path, found)
    if pickle:
        refusal = refusal or f"a pickle is never loaded; make a folder of safetensors of it: {convert_command(path)}"
    return Inspection(
        path,
        f"{PICKLED}, read without running what is in it" if pickle else SINGLE if found.form == "single file" else BARE,
        found.family,
        NAMES.get(found.family, "not supported"),
        tuple(_component(name, found, contents) for name in found.components),
        None if prediction is None else PREDICTIONS[prediction],
        learnt,
        tuple(missing),
        refusal,
        tuple(notes),
    )


def inspect_folder(path: Path) -> Inspection:
    """What a folder of diffusers is.

    Raises:
        CheckpointError: its index cannot be read.
    """
    index = read_config(path, INDEX)
    parts, missing, learnt = list[Component](), list[str](), dict[str, str]()
    name, prediction, refusal = "unsupported", None, None
    try:
        check_index(index, path / INDEX)
    except CheckpointError as error:
        refusal = str(error)
    for part in components(index)[0]:
        try:
            parts.append(_folder_component(path / part))
        except CheckpointError as error:
            missing.append(str(error))
    try:
        name = family(unet_config(read_config(path / "unet"), str(path / "unet" / "config.json")))
        learnt["family"] = "the structure in unet/config.json"
    except CheckpointError as error:
        refusal = refusal or str(error)
    try:
        settings = read_config(path / "scheduler", "scheduler_config.json")
        prediction = PREDICTIONS[prediction_kind(settings, str(path / "scheduler" / "scheduler_config.json"))]
        said = "scheduler/scheduler_config.json"
        learnt["prediction"] = said if "prediction_type" in settings else f"{said}, which does not say, and so means this"
    except CheckpointError as error:
        missing.append(str(error))
    if refusal is None and not missing:
        refusal = _problem(path)
    title = NAMES.get(name, str(index.get("_class_name", "not supported")))
    return Inspection(path, FOLDER, name, title, tuple(parts), prediction, learnt, tuple(missing), refusal)


def _folder_component(folder: Path) -> Component:
    files = find_weights(folder)
    headers = [read_header(file) for file in files.paths]
    # Tables of positions, which older versions wrote beside the weights, are no parameters.
    entries = [entry for header in headers for key, entry in header.entries.items() if not is_harmless(key)]
    parameters = sum(math.prod(entry.shape) for entry in entries)
    dtypes = tuple(sorted({entry.dtype for entry in entries}))
    naming = "diffusers" if folder.name in ("unet", "vae", "image_project") else "transformers"
    return Component(
        folder.name, f"{naming}, variant {files.variant}" if files.variant else naming, parameters, dtypes, files.paths
    )


def _problem(path: Path) -> str | None:
    """What else keeps a folder from being loaded: its settings, its tokenizers, parts that do not fit together."""
    try:
        plan(read_folder(path))
    except CheckpointError as error:
        return str(error)
    return None


def _component(name: str, found: Recognised, contents: Contents) -> Component:
    component = found.components[name]
    used = {source.key for source in component.keys.sources.values()}
    dtypes = tuple(sorted({contents.dtypes[key] for key in used}))
    own = {"unet": "down_blocks.", "vae": "encoder.down_blocks."}.get(name)
    as_ours = own is not None and any(key.removeprefix(component.prefix).startswith(own) for key in used)
    naming = "diffusers" if as_ours else NAMINGS[component.naming]
    return Component(name, naming, component.parameters, dtypes, (contents.path,))


def _missing_tokenizers(path: Path, found: Recognised) -> list[str]:
    encoders = [name for name in TEXT_ENCODERS if name in found.components]
    try:
        find_tokenizers(path, found.family, encoders)
    except CheckpointError as error:
        return [str(error).removeprefix(f"{path}: ")]
    return []
