"""Tensors out of a pickle (`.bin`, `.ckpt`, `.pt`) without running what is in it.

The reading is torch's, restricted to tensors and plain containers (`weights_only`). Training scripts have stored settings and
callbacks beside the weights; objects of those few libraries become empty stand-ins, anything else is refused by name.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from ...framework.errors import CheckpointError
from .headers import PICKLE, foreign
from .names import SAFE
from .other_kinds import kind_of_keys

WRAPPERS = ("state_dict", "model")  # where a training script puts the weights in its checkpoint
# GLIGEN's checkpoints keep each network apart; under these prefixes they are a single file like the others.
GLIGEN_PARTS = MappingProxyType(
    {"model": "model.diffusion_model.", "autoencoder": "first_stage_model.", "text_encoder": "cond_stage_model.", "diffusion": ""}
)
# What may stand in for by an empty object: settings, callbacks and number types, none of which a network needs.
STOOD_IN = re.compile(
    r"(omegaconf|pytorch_lightning|lightning|lightning_fabric|numpy)\..+"
    r"|typing\.Any|argparse\.Namespace|collections\.defaultdict|pathlib\.\w*Path"
    r"|torch\.nn\.modules\.container\.ParameterDict"  # of textual inversions, which are told by their keys
    r"|builtins\.(dict|list|tuple|int|float|str|bool|object|type)"
)


class _StandIn:
    """An object of a class that is not loaded: takes whatever it is made from and keeps nothing."""

    def __new__(cls, *_: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle by key, on the CPU and in the dtypes of the file; nothing in it is executed.

    The weights are taken out of a `{"state_dict": ...}` or `{"model": ...}`; the networks of GLIGEN's own checkpoints get the
    prefixes of a single file. What is not a tensor is left out. Tensors of torch's current format are mapped, not copied.

    Raises:
        CheckpointError: the file cannot be read, is no pickle of torch, holds an object that no checkpoint needs, or no tensors.
    """
    if (kind := foreign(path)) and kind != PICKLE:
        raise CheckpointError(f"{path}: {kind}")
    zipped = zipfile.is_zipfile(path)
    content = _load(path, _strangers(path) if zipped else [], mmap=zipped)
    tensors = _tensors(content)
    if not tensors and (other := kind_of_keys(_keys(content))):
        raise CheckpointError(f"{path}: this is {other}, which is not supported")
    if not tensors:
        held = type(content).__name__
        keys = ", ".join(map(repr, list(cast("dict[Any, Any]", content))[:5])) if isinstance(content, dict) else ""
        what = f"its keys are {keys}" if keys else f"it holds a {held}"
        raise CheckpointError(f"{path}: no weights in it, {what}; expected tensors by name")
    return tensors


def _load(path: Path, strangers: list[str], *, mmap: bool) -> object:
    library: Any = torch.serialization
    try:
        with warnings.catch_warnings(), library.safe_globals([(_StandIn, name) for name in strangers]):
            warnings.simplefilter("ignore")  # about pickle protocols and old storages: the reading is restricted all the same
            if path.suffix != SAFE:
                return cast("object", torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
            with path.open("rb") as file:  # torch goes by the name, and would not read a pickle of this one
                return cast("object", torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken pickle breaks its reader in many ways
        said = " ".join(str(error).split()) or type(error).__name__
        found = re.search(r"GLOBAL ([\w.]+)", said)
        if found or "Weights only load failed" in said:
            reason = said.partition("WeightsUnpickler error: ")[2] or said  # what comes before is advice to run the file
            raise CheckpointError(_refused(path, [found[1]] if found else [], reason)) from None
        raise CheckpointError(f"{path}: truncated, or no pickle that torch wrote ({said[:200]}); download it again") from None


def _strangers(path: Path) -> list[str]:
    """The classes that a file in torch's zip format names besides tensors; refused unless all of them may be stood in for."""
    try:
        names: list[str] = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:  # as above
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: truncated, or no pickle that torch wrote ({said}); download it again") from None
    if refused := [name for name in names if not STOOD_IN.fullmatch(name)]:
        raise CheckpointError(_refused(path, refused, ""))
    return names


def _refused(path: Path, names: list[str], said: str) -> str:
    what = f"it calls for {', '.join(names[:5])}" if names else said[:200]
    return f"{path}: refused, {what}: no weights need it, and it may do harm; nothing was run. Get the model as safetensors"


def _tensors(content: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint, wherever it keeps them."""
    if not isinstance(content, Mapping):
        return {}
    entries = cast("Mapping[Any, Any]", content)
    if all(isinstance(entries.get(part), Mapping) for part in ("model", "autoencoder", "text_encoder")):
        parts = {prefix: _plain(entries.get(part)) for part, prefix in GLIGEN_PARTS.items()}
        return {prefix + key: tensor for prefix, tensors in parts.items() for key, tensor in tensors.items()}
    for wrapper in WRAPPERS:
        entries = cast("Mapping[Any, Any]", inner) if isinstance(inner := entries.get(wrapper), Mapping) else entries
    return _plain(entries)


def _keys(content: object) -> list[str]:
    """The texts among the keys of a dictionary."""
    return (
        [key for key in cast("Mapping[object, object]", content) if isinstance(key, str)] if isinstance(content, Mapping) else []
    )


def _plain(entries: object) -> dict[str, Tensor]:
    """The tensors of one dictionary, without what else is in it."""
    items = cast("Mapping[Any, Any]", entries).items() if isinstance(entries, Mapping) else ()
    return {key: value.detach() for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
