"""Weights and configs on disk: read, recognised when they are something else, filled in strictly, written.

Only safetensors are read. A component is a folder with a `config.json` and its weights, as diffusers writes them.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from ...framework.errors import CheckpointError
from ...framework.files import is_file, is_folder
from .headers import absent, read_header, read_json
from .key_maps import KeyMap, Shape

SHOWN = 10  # keys of each kind, in an error


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
    if not is_file(path):
        there = "it has " + ", ".join(sorted(p.name for p in folder.iterdir())[:SHOWN]) if is_folder(folder) else "no such folder"
        what = absent(path) if os.path.lexists(path) else "no such file"
        raise CheckpointError(f"{path}: {what}; a component of a diffusers folder has one ({there})")
    return read_json(path)


def load_weights(files: Sequence[Path]) -> Weights:
    """The tensors of one component in its files (see `find_weights`), on the CPU and in the dtypes of the files.

    Raises:
        CheckpointError: a file is truncated, empty, a git-lfs pointer, a web page, of a dtype that cannot be computed with, or
            has a key that another has too.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        read_header(path)  # whose errors are for people
        found = load_file(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise CheckpointError(f"{path}: the key {twice[0]} is in another shard too; download the shards again")
        tensors.update(found)
    return Weights(tensors, tuple(files))


def renamed(weights: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    """Weights under the keys of a network. What the map does not know keeps its key, for `fill` to complain of."""
    known = {target: source.apply(weights[source.key]) for target, source in keys.sources.items()}
    return {**known, **{key: weights[key] for key in keys.unknown}}


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
        CheckpointError: keys are missing, unexpected or of another shape (the message counts them and shows the first of each),
            or hold whole numbers where the network computes with fractions.
    """
    expected = module.state_dict()
    check_shapes(module, {key: tuple(tensor.shape) for key, tensor in weights.items()}, where)
    quantised = [key for key, tensor in expected.items() if tensor.is_floating_point() and not weights[key].is_floating_point()]
    if quantised:
        found = f"{quantised[0]} is {str(weights[quantised[0]].dtype).removeprefix('torch.')}, expected floating point"
        more = f", and {len(quantised) - 1} more" if len(quantised) > 1 else ""
        raise CheckpointError(f"{where}: {found}{more}; quantised weights are not read: take a file in fp32, fp16 or bf16")
    ready = {key: tensor.to(device, dtype if tensor.is_floating_point() else None) for key, tensor in weights.items()}
    module.load_state_dict(ready, assign=True)
    module.requires_grad_(False).eval()


def check_shapes(module: nn.Module, shapes: Mapping[str, Shape], where: str) -> None:
    """Whether tensors of these shapes are all that a module needs, and no others. Raises as `fill`."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    problems = {
        "missing": [key for key in expected if key not in shapes],
        "unexpected": [key for key in shapes if key not in expected],
        "of another shape": [
            f"{key} {list(shapes[key])}, expected {list(shape)}"
            for key, shape in expected.items()
            if key in shapes and shapes[key] != shape
        ],
    }
    if any(problems.values()):
        counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in problems.items())
        name = type(module).__name__
        raise CheckpointError(f"{where}: these weights are not a {name} of this config: {counts}{_shown(problems)}")


def save_component(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], stem: str, dtype: torch.dtype | None
) -> None:
    """Write `config.json` and `<stem>.safetensors` into a folder; floating-point tensors become `dtype`, unless it is None.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    ready = {key: tensor.to("cpu", dtype if tensor.is_floating_point() else None) for key, tensor in weights.items()}
    path = folder / f"{stem}.safetensors"
    try:
        save_file({key: tensor.contiguous() for key, tensor in ready.items()}, path, {"format": "pt"})
    except SafetensorError as error:  # its own words for what the system said, such as a full disk
        raise OSError(errno.EIO, str(error), str(path)) from None
    path.chmod(0o644)  # safetensors writes files that only their owner may read


def write_config(folder: Path, values: Mapping[str, Any], name: str = "config.json") -> None:
    """Write a JSON file as diffusers does: sorted keys, two spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shown(problems: Mapping[str, list[str]]) -> str:
    lines: list[str] = []
    for kind, keys in problems.items():
        if keys:
            more = f"\n    and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"\n  {kind}:\n    " + "\n    ".join(keys[:SHOWN]) + more)
    return "".join(lines)
