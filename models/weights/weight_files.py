"""Which files hold the weights of a component's folder: one or several shards, plain or in a variant such as fp16."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ...framework.errors import CheckpointError
from ...framework.files import is_file, is_folder
from .headers import read_json
from .names import INDEX as MODEL_INDEX
from .names import PICKLES

STEMS = ("diffusion_pytorch_model", "model")  # of diffusers' networks, of transformers' text encoders
# A variant is written before the ending; in the name of an index at one of two places, by the version that wrote it.
WHOLE = re.compile(rf"(?:{'|'.join(STEMS)})(?:\.(?P<variant>[\w-]+?))?\.safetensors")
INDEX = re.compile(rf"(?:{'|'.join(STEMS)})(?:\.(?P<before>[\w-]+))?\.safetensors\.index(?:\.(?P<after>[\w-]+))?\.json")
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
PICKLED = re.compile(r"(?:diffusion_)?pytorch_model(?:\.(?P<variant>[\w-]+))?\.bin")
PREFERRED = ("", "fp16", "bf16", "fp32")  # of several variants; others, such as non_ema, come after these
SHOWN = 10  # names, in an error


@dataclass(frozen=True)
class WeightFiles:
    """The files that together hold a component's weights, and the name of their variant; empty for none."""

    paths: tuple[Path, ...]
    variant: str = ""


def find_weights(folder: Path, variant: str | None = None) -> WeightFiles:
    """The weight files of a component's folder: those of `variant`; if it is None the plain ones, else those of any variant.

    Raises:
        CheckpointError: there are none that can be read, none of this variant, or shards are missing.
    """
    if not is_folder(folder):
        raise CheckpointError(f"{folder}: no such folder")
    kind, sharded, name = _chosen([path.name for path in folder.iterdir()], variant, folder)
    return WeightFiles(_shards(folder / name) if sharded else (folder / name,), kind)


def choose_weights(names: Sequence[str], variant: str | None, where: str) -> list[str]:
    """The same of the names of the files in a folder that is not here: one file, or an index and its shards.

    Raises:
        CheckpointError: there are none that can be read, or none of this variant.
    """
    kind, sharded, name = _chosen(names, variant, where)
    if not sharded:
        return [name]
    stem = f"{name.split('.')[0]}.{kind}" if kind else name.split(".")[0]
    return [name, *(one for one in sorted(names) if re.fullmatch(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.safetensors", one))]


def is_index(name: str) -> bool:
    """Whether a file is, by its name, the index of shards."""
    return INDEX.fullmatch(name) is not None


def _chosen(names: Iterable[str], variant: str | None, where: Path | str) -> tuple[str, bool, str]:
    """The variant of the weights to take, whether they are in shards, and the name of their file or index."""
    names = sorted(names)
    # By preference of the variant, then whole before shards.
    found = sorted((_rank(kind), sharded, kind, name) for name in names for kind, sharded in _variants(name))
    if not found:
        raise CheckpointError(_none(where, names))
    fitting = [one for one in found if variant is None or one[2] == variant]
    if not fitting:
        there = ", ".join(sorted({kind or "the plain one" for _, _, kind, _ in found}))
        raise CheckpointError(f"{where}: no weights of the variant {variant!r}; it has {there}: leave the variant out")
    _, sharded, kind, name = fitting[0]
    return kind, sharded, name


def find_pickles(folder: Path) -> tuple[Path, ...]:
    """The pickles that hold the weights of a component's folder: one, or several shards; by preference of the variant.

    Raises:
        CheckpointError: there are none, or shards are missing.
    """
    names = sorted(path.name for path in folder.iterdir()) if is_folder(folder) else []
    whole = [(_rank(match["variant"] or ""), name) for name in names if (match := PICKLED.fullmatch(name))]
    if whole:
        return (folder / min(whole)[1],)
    if indices := [name for name in names if name.endswith(".bin.index.json")]:
        return _shards(folder / indices[0])
    raise CheckpointError(f"{folder}: no weights in safetensors or in a .bin; it has {', '.join(names[:SHOWN]) or 'nothing'}")


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
    missing = [name for name in names if not is_file(index.parent / name)]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(names)} shards are missing ({', '.join(missing[:SHOWN])}); download them too"
        )
    return tuple(index.parent / name for name in names)


def _none(folder: Path | str, names: list[str]) -> str:
    """Why a component's folder has no weights that can be read, by what it has instead."""
    expected = f"{folder}: no {' or '.join(f'{stem}.safetensors' for stem in STEMS)}"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        return (
            f"{expected}, only {', '.join(pickles[:SHOWN])}: a pickle, which may run any code when it is opened and is therefore "
            f"never loaded; make safetensors of it: {_command(folder, pickles[0])}"
        )
    if shards := [name for name in names if SHARD.fullmatch(name)]:
        return f"{expected}, only shards ({', '.join(shards[:SHOWN])}) without their index; download the file *.index.json too"
    return f"{expected}; it has {', '.join(names[:SHOWN]) or 'nothing'}"


def _command(folder: Path | str, pickle: str) -> str:
    """What converts the pickles of a component: those of the whole model that it is of, or the one that there is."""
    if isinstance(folder, str):  # on the hub
        return "download the model's folder, and then lsregen convert FOLDER FOLDER-safetensors"
    whole = is_file(folder.parent / MODEL_INDEX)
    source, out = (folder.parent, folder.parent) if whole else (folder / pickle, folder)
    return f"lsregen convert {source} {out.with_name(f'{out.name}-safetensors')}"
