"""Parts of a model from what people have: one file of weights, a bare autoencoder in place of a model's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...framework.errors import CheckpointError, nearest, told_of
from ...framework.files import is_file, is_folder
from ..runtime.assemble import TEXT_ENCODERS, Parts
from .checkpoint import Weights, load_weights, read_config, renamed
from .headers import convert_command, is_pickle
from .key_maps import autoencoder_map
from .names import INDEX
from .recognise import NAMES, NEEDED
from .settings import Values
from .single_file import SingleFile, open_single_file
from .structure import PREDICTIONS, SCALE, SCALES
from .tokenizers import find_tokenizers
from .weight_files import find_weights

ALONE = ("autoencoder", "text-encoder")


def read_file(path: Path, *, vae: Path | None = None, family: str | None = None, prediction_type: str | None = None) -> Parts:
    """The parts of the model in a single safetensors file, in the names of LDM or sgm; no tensor is read yet.

    Args:
        vae: a file or folder with an autoencoder to take instead of the file's own.
        family, prediction_type: override what was recognised; see `open_single_file`.

    Raises:
        CheckpointError: as `open_single_file` and `find_tokenizers`, or the file does not hold a whole model.
    """
    if is_pickle(path):
        raise CheckpointError(
            f"{path}: a pickle, which may run any code when it is opened, and is never loaded; make a folder of safetensors of "
            f"it: {convert_command(path)}"
        )
    single = open_single_file(path, family=family, prediction_type=prediction_type, autoencoder=vae is None)
    if single.found.family in ALONE:
        cure = "; give it as the vae of a model" if single.found.family == "autoencoder" else ""
        raise CheckpointError(f"{path}: {NAMES[single.found.family]}, not a whole model{cure}")
    needed = NEEDED[single.family]
    missing = [part for part in needed if part not in single.configs and not (part == "vae" and vae is not None)]
    if missing:
        cure = "; an autoencoder can be given as the vae" if missing == ["vae"] else ""
        raise CheckpointError(f"{path}: {NAMES[single.family]} without its {' and '.join(missing)}; expected a whole model{cure}")
    parts = parts_of(single)
    return parts if vae is None else with_autoencoder(parts, vae, SCALES.get(single.family, SCALE))


def parts_of(single: SingleFile) -> Parts:
    """The parts of a whole model in a file.

    Raises:
        CheckpointError: as `find_tokenizers`.
    """
    encoders = [name for name in TEXT_ENCODERS if name in NEEDED[single.family]]
    return Parts(
        name=single.path.stem,
        configs=single.configs,
        where=dict.fromkeys(single.configs, str(single.path)),
        weights=lambda component: _tensors(single, component),
        tokenizers=find_tokenizers(single.path, single.family, encoders),
        zeros_for_empty=single.family == "sdxl",
    )


def with_autoencoder(parts: Parts, path: Path, scale: float = SCALE) -> Parts:
    """A model with another autoencoder.

    Args:
        path: a safetensors file, the folder of an autoencoder in the layout of diffusers, or that of a whole model.
        scale: of its latents, if neither it nor the model's own says so.

    Raises:
        CheckpointError: it cannot be read, or is no autoencoder.
    """
    with told_of("vae"):
        config, where, read = _autoencoder_folder(path) if is_folder(path) else _autoencoder_file(path)
    scales = (config.get("scaling_factor"), parts.configs.get("vae", {}).get("scaling_factor"), scale)
    config = {**config, "scaling_factor": next(value for value in scales if value is not None)}

    def weights(component: str) -> Weights:
        return read() if component == "vae" else parts.weights(component)

    return replace(
        parts,
        configs={**parts.configs, "vae": config},
        where={**parts.where, "vae": where},
        weights=weights,
    )


def with_prediction(parts: Parts, prediction_type: str) -> Parts:
    """A model that predicts something else than its scheduler says: `epsilon` or `v_prediction`.

    Raises:
        CheckpointError: neither.
    """
    scheduler = {**parts.configs["scheduler"], "prediction_type": known_prediction(prediction_type)}
    return replace(parts, configs={**parts.configs, "scheduler": scheduler})


def known_prediction(name: str) -> str:
    """A kind of prediction by its name in a scheduler's settings. Raises as `with_prediction`."""
    known = tuple(PREDICTIONS.values())
    if name not in known:
        raise CheckpointError(f"prediction_type is {name!r}; expected one of {', '.join(known)}{nearest(name, known)}")
    return name


def _tensors(single: SingleFile, component: str) -> Weights:
    return Weights(single.weights(component), (single.path,))


def _autoencoder_file(path: Path) -> tuple[Values, str, Callable[[], Weights]]:
    single = open_single_file(path)
    if "vae" not in single.configs:
        raise CheckpointError(f"{path}: {NAMES[single.found.family]}; expected an autoencoder")
    return single.configs["vae"], str(path), lambda: _tensors(single, "vae")


def _autoencoder_folder(path: Path) -> tuple[Values, str, Callable[[], Weights]]:
    folder = path / "vae" if is_file(path / INDEX) else path
    files = find_weights(folder)

    def read() -> Weights:
        weights = load_weights(files.paths)
        return Weights(renamed(weights.tensors, autoencoder_map(weights.tensors)), weights.files)

    return read_config(folder), str(folder / "config.json"), read
