"""What the files of a model are, told from their headers: nothing is loaded, and what is wrong is told, not raised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...framework.errors import CheckpointError, LsregenError
from ...framework.plugins.inspection import Component, Inspection
from ..runtime.assemble import check_networks, check_parts
from ..runtime.latent_diffusion import family
from .checkpoint import read_config
from .configs import prediction_kind, unet_config
from .diffusers_folder import check_index, components, read_folder
from .headers import convert_command, is_pickle, read_header
from .key_maps import Shape, autoencoder_map, is_harmless
from .names import INDEX
from .part_sources import ALONE, parts_of
from .recognise import NAMES, Naming, Recognised, recognise
from .single_file import Contents, read_contents, told_beside, understand
from .structure import PREDICTIONS, SCALE
from .unpickle import read_pickle
from .weight_files import find_weights

FOLDER, SINGLE, PICKLED, BARE = "a folder of diffusers", "a single file", "a pickle", "one network alone"
FORMS: Mapping[str, str] = {"single file": SINGLE, "bare": BARE}
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
    if "unet" in found.components and prediction is None:
        missing.append("what it predicts: pass prediction_type=epsilon or v_prediction, or put its yaml beside it")
    if found.zero_terminal_snr:
        notes.append("trained with a zero terminal signal-to-noise ratio")
    if found.ignored:
        notes.append(found.says_ignored)
    if refusal is None:
        lacking, refusal = _file_problem(contents, found, guess=prediction is None)
        missing += lacking
    if pickle:
        refusal = refusal or f"a pickle is never loaded; make a folder of safetensors of it: {convert_command(path)}"
    return Inspection(
        path,
        f"{PICKLED}, read without running what is in it" if pickle else FORMS.get(found.form, "a file of weights"),
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
    shapes: dict[str, Mapping[str, Shape]] = {}
    name, prediction, refusal = "unsupported", None, None
    try:
        check_index(index, path / INDEX)
    except CheckpointError as error:
        refusal = str(error)
    for part in components(index)[0]:
        try:
            found, shapes[part] = _folder_component(path / part)
            parts.append(found)
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
        refusal = _problem(path, parts, shapes)
    title = NAMES.get(name, str(index.get("_class_name", "not supported")))
    return Inspection(path, FOLDER, name, title, tuple(parts), prediction, learnt, tuple(missing), refusal)


def _file_problem(contents: Contents, found: Recognised, guess: bool) -> tuple[list[str], str | None]:
    """What a file lacks besides components, and what loading it would say, told without loading.

    `guess`: nothing tells what it predicts, which has been said already.
    """
    path = contents.path
    try:
        single = understand(contents, prediction_type="epsilon" if guess and "unet" in found.components else None)
        check_floats(path, {name: _component(name, found, contents) for name in found.components})
        shapes = {name: component.shapes for name, component in found.components.items()}
        where = dict.fromkeys(single.configs, str(path))
        scaled = {"scaling_factor": SCALE, **single.configs["vae"]} if "vae" in single.configs else {}
        check_networks({**single.configs, **({"vae": scaled} if scaled else {})}, where, shapes)
    except CheckpointError as error:
        return [], str(error)
    if found.family in ALONE:
        use = "; give it to a model with --vae" if found.family == "autoencoder" else ""
        return [], f"this is {NAMES[found.family]}, not a whole model{use}"
    try:
        parts = parts_of(single)
    except CheckpointError as error:
        return [str(error).removeprefix(f"{path}: ")], None
    try:
        if not found.missing:
            check_parts(parts, shapes)
    except CheckpointError as error:
        return [], str(error)
    return [], None


def check_floats(where: Path, parts: Mapping[str, Component]) -> None:
    """Refuse weights of whole numbers, which loading refuses.

    Raises:
        CheckpointError: a component has some.
    """
    for name, part in parts.items():
        if whole := [dtype for dtype in part.dtypes if not dtype.startswith(("F", "BF"))]:
            raise CheckpointError(
                f"{where}: {name} has weights of dtype {', '.join(whole)}; quantised weights are not read: take a file in fp32, "
                "fp16 or bf16"
            )


def _folder_component(folder: Path) -> tuple[Component, dict[str, Shape]]:
    """A component, and the shapes of its tensors by the keys of our networks."""
    files = find_weights(folder)
    entries = {key: entry for file in files.paths for key, entry in read_header(file).entries.items()}
    shapes = {key: entry.shape for key, entry in entries.items()}
    if folder.name == "vae":
        keys = autoencoder_map(shapes)
        shapes = {**keys.shapes(shapes), **{key: shapes[key] for key in keys.unknown}}
    # Tables of positions, which older versions wrote beside the weights, are no parameters.
    used = [entry for key, entry in entries.items() if not is_harmless(key)]
    parameters = sum(math.prod(entry.shape) for entry in used)
    dtypes = tuple(sorted({entry.dtype for entry in used}))
    naming = "diffusers" if folder.name in ("unet", "vae", "image_project") else "transformers"
    named = f"{naming}, variant {files.variant}" if files.variant else naming
    return Component(folder.name, named, parameters, dtypes, files.paths), shapes


def _problem(path: Path, parts: Sequence[Component], shapes: Mapping[str, Mapping[str, Shape]]) -> str | None:
    """What else keeps a folder from being loaded: its settings, its tokenizers, parts or weights that do not fit together."""
    try:
        check_floats(path, {part.name: part for part in parts})
        check_parts(read_folder(path), shapes)
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
