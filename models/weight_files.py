"""Which files hold the weights of a component's folder: one or several shards, plain or in a variant such as fp16."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..framework.errors import CheckpointError
from .headers import read_json

STEMS = ("diffusion_pytorch_model", "model")  # of diffusers' networks, of transformers' text encoders
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
# A variant is written before the ending; in the name of an index at one of two places, by the version that wrote it.
WHOLE = re.compile(rf"(?:{'|'.join(STEMS)})(?:\.(?P<variant>[\w-]+?))?\.safetensors")
INDEX = re.compile(rf"(?:{'|'.join(STEMS)})(?:\.(?P<before>[\w-]+))?\.safetensors\.index(?:\.(?P<after>[\w-]+))?\.json")
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
PREFERRED = ("", "fp16", "bf16", "fp32")  # of several variants; others, such as non_ema, come after these
SHOWN = 10  # names, in an error


@dataclass(frozen=True)
class WeightFiles:
    """The files that together hold a component's weights, and the name of their variant; empty for none."""

    paths: tuple[Path, ...]
    variant: str = ""


def find_weights(folder: Path) -> WeightFiles:
    """The weight files of a component's folder: the plain ones, else those of a variant.

    Raises:
        CheckpointError: there are none that can be read, or shards are missing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    names = sorted(path.name for path in folder.iterdir())
    # By preference of the variant, then whole before shards.
    found = sorted((_rank(variant), sharded, variant, name) for name in names for variant, sharded in _variants(name))
    if not found:
        raise CheckpointError(_none(folder, names))
    _, sharded, variant, name = found[0]
    return WeightFiles(_shards(folder / name) if sharded else (folder / name,), variant)


def _variants(name: str) -> list[tuple[str, bool]]:
    """The variant of a file by its name, and whether it is the index of shards; nothing if it is neither index nor whole."""
    if match := INDEX.fullmatch(name):
        return [(match["before"] or match["after"] or "", True)]
    if (match := WHOLE.fullmatch(name)) and not SHARD.fullmatch(name):
        return [(match["variant"] or "", False)]
    return []


def _rank(variant: str) -> int:
    return PREFERRED.index(variant) if variant in PREFERRED else len(PREFERRED)


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index of shards names, each once, in order.

    Raises:
        CheckpointError: the index cannot be used, or shards are not there.
    """
    weight_map: object = read_json(index).get("weight_map")
    places = cast("dict[object, object]", weight_map) if isinstance(weight_map, dict) else {}
    names = sorted({str(name) for name in places.values()})
    if not names or any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index}: weight_map is {str(places)[:80]}; expected the name of a file beside it for each key")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(names)} shards are missing ({', '.join(missing[:SHOWN])}); download them too"
        )
    return tuple(index.parent / name for name in names)


def _none(folder: Path, names: list[str]) -> str:
    """Why a component's folder has no weights that can be read, by what it has instead."""
    expected = f"{folder}: no {' or '.join(f'{stem}.safetensors' for stem in STEMS)}"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        return (
            f"{expected}, only {', '.join(pickles[:SHOWN])}: a pickle, which may run any code when it is opened and is therefore "
            "never loaded; save the model again as safetensors"
        )
    if shards := [name for name in names if SHARD.fullmatch(name)]:
        return f"{expected}, only shards ({', '.join(shards[:SHOWN])}) without their index; download the file *.index.json too"
    return f"{expected}; it has {', '.join(names[:SHOWN]) or 'nothing'}"
