"""Weights and configs on disk: read, recognised when they are something else, filled in strictly, written.

Only safetensors are read. A component is a folder with a `config.json` and its weights, as diffusers writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from ..framework.errors import CheckpointError

STEMS = ("diffusion_pytorch_model", "model")  # of diffusers' networks, of transformers' text encoders
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
SHOWN = 10  # keys of each kind, in an error
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class Weights:
    """The tensors of one component by key, and the files that they came from."""

    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]

    @property
    def where(self) -> str:
        return ", ".join(map(str, self.files))


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The settings in a JSON file of a component's folder.

    Raises:
        CheckpointError: the file is absent, unreadable or no JSON object.
    """
    path = folder / name
    if not path.is_file():
        there = "it has " + ", ".join(sorted(p.name for p in folder.iterdir())[:SHOWN]) if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{path}: no such file; a component of a diffusers folder has one ({there})")
    try:
        values: object = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        kind = _foreign(path) if isinstance(error, ValueError) else None
        raise CheckpointError(f"{path} ({_size(path)}): {kind or f'not readable as JSON ({error})'}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(values).__name__}")
    return cast("dict[str, Any]", values)


def load_weights(folder: Path) -> Weights:
    """The tensors of a component's folder, on the CPU and in the dtypes of the file.

    Raises:
        CheckpointError: no safetensors file, or one that is truncated, empty, a git-lfs pointer, a web page, or of a dtype that
            cannot be computed with.
    """
    path = next((folder / f"{stem}.safetensors" for stem in STEMS if (folder / f"{stem}.safetensors").exists()), None)
    if path is None:
        raise CheckpointError(_no_weights(folder))
    _check_header(path)
    try:
        return Weights(load_file(path), (path,))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} ({_size(path)}): {error}") from None


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    where: str,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Give a module that was built on the meta device its weights, all of them and no others, frozen and in eval mode.

    `device`, `dtype`: what the tensors become on the way; None leaves them as they are. Tensors that need neither are not copied.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; the message counts them and shows the first of each.
    """
    expected = module.state_dict()
    problems = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {list(weights[key].shape)}, expected {list(tensor.shape)}"
            for key, tensor in expected.items()
            if key in weights and weights[key].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in problems.items())
        name = type(module).__name__
        raise CheckpointError(f"{where}: these weights are not a {name} of this config: {counts}{_shown(problems)}")
    ready = {key: tensor.to(device, dtype if tensor.is_floating_point() else None) for key, tensor in weights.items()}
    module.load_state_dict(ready, assign=True)
    module.requires_grad_(False).eval()


def save_component(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], stem: str, dtype: torch.dtype) -> None:
    """Write `config.json` and `<stem>.safetensors` into a folder; floating-point tensors become `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    ready = {key: tensor.to("cpu", dtype if tensor.is_floating_point() else None) for key, tensor in weights.items()}
    path = folder / f"{stem}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in ready.items()}, path, {"format": "pt"})
    path.chmod(0o644)  # safetensors writes files that only their owner may read


def write_config(folder: Path, values: Mapping[str, Any], name: str = "config.json") -> None:
    """Write a JSON file as diffusers does: sorted keys, two spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def sha256(path: Path) -> str:
    """The hash of a file, in hex; remembered until the file changes."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_weights(folder: Path) -> str:
    """Why a component's folder has no weights that can be read, by what it has instead."""
    if not folder.is_dir():
        return f"{folder}: no such folder"
    names = sorted(path.name for path in folder.iterdir())
    expected = f"{folder}: no {' or '.join(f'{stem}.safetensors' for stem in STEMS)}"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        return (
            f"{expected}, only {', '.join(pickles[:SHOWN])}: a pickle, which may run any code when it is opened and is therefore "
            "never read; save the model again as safetensors"
        )
    return f"{expected}; it has {', '.join(names[:SHOWN]) or 'nothing'}"


def _check_header(path: Path) -> None:
    """Refuse, in words, what safetensors would refuse in its own: the header tells how long the file must be."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= size else b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if kind := _foreign(path):
        raise CheckpointError(f"{path} ({_size(path)}): {kind}")
    try:
        header = cast("dict[str, Any]", json.loads(text))
        entries: dict[str, Any] = {key: entry for key, entry in header.items() if key != "__metadata__"}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        dtypes = {key: str(entry["dtype"]) for key, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{path} ({_size(path)}): not a safetensors file, or cut off inside its header") from None
    if end != size:
        what = "truncated" if end > size else "longer than it says"
        raise CheckpointError(f"{path} ({_size(path)}): {what}, its header speaks of {end:,} bytes; download it again")
    if foreign := {key: dtype for key, dtype in dtypes.items() if dtype not in DTYPES}:
        key, dtype = next(iter(foreign.items()))
        raise CheckpointError(f"{path}: {len(foreign)} tensors of dtype {dtype} (such as {key}); known are {', '.join(DTYPES)}")


def _foreign(path: Path) -> str | None:
    """What a file is that stands where weights or a config should, if it is a well-known mistake."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself; run `git lfs pull` where it came from"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the file itself; the download was answered with HTML (a login or an error?)"
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return "a pickle under another name, which may run any code when it is opened and is therefore never read"
    return None


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"


def _shown(problems: Mapping[str, list[str]]) -> str:
    lines: list[str] = []
    for kind, keys in problems.items():
        if keys:
            more = f"\n    and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"\n  {kind}:\n    " + "\n    ".join(keys[:SHOWN]) + more)
    return "".join(lines)
