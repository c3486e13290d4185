"""Where tokenizers are that a model does not bring along, as a single file never does: every family uses files widely had."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ...framework.errors import CheckpointError
from ...framework.files import is_file, is_folder

log = logging.getLogger(__name__)

FILES = ("vocab.json", "merges.txt")
WHOLE = "tokenizer.json"  # both in one, as newer folders have it
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")  # how it pads, which the maps of attention depend on
ALL = (WHOLE, *FILES, *SETTINGS, "added_tokens.json")


@dataclass(frozen=True)
class Home:
    """The repository and the folder in it whose tokenizer a text encoder was trained with.

    `pads`: whether it pads otherwise than every CLIP tokenizer does where nothing says how.
    """

    repository: str
    folder: str = ""
    pads: bool = False

    def file(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


OPENAI = Home("openai/clip-vit-large-patch14")
SD2 = Home("stabilityai/stable-diffusion-2-1-base", "tokenizer", pads=True)  # the same words, padded with "!"
SDXL = Home("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer_2", pads=True)
HOMES: Mapping[tuple[str, str], Home] = MappingProxyType({("sd2", "text_encoder"): SD2, ("sdxl", "text_encoder_2"): SDXL})


def lacking(folder: Path, home: Home = OPENAI) -> str:
    """What a folder lacks to be a whole tokenizer, in words; empty if it is one.

    It has `tokenizer.json`, or `vocab.json` and `merges.txt`; and says how it pads where CLIP's own way is not meant.
    """
    parts = [name for name in FILES if not is_file(folder / name)]
    lacks = [] if not parts or is_file(folder / WHOLE) else [f"{WHOLE}, or {' and '.join(parts)}"]
    if home.pads and not any(is_file(folder / name) for name in SETTINGS):
        lacks.append(f"{SETTINGS[0]}, which says how it pads")
    return "; ".join(lacks)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer into a new folder, and nothing else that lies beside them.

    Raises:
        OSError: they cannot be read or written.
    """
    target.mkdir(parents=True)
    for name in ALL:
        if is_file(source / name):
            shutil.copyfile(source / name, target / name)


def find_tokenizers(path: Path, family: str, encoders: Iterable[str]) -> dict[str, Path]:
    """The folder of the tokenizer of every text encoder of a single file.

    Beside the file a folder `tokenizer` (`tokenizer_2` for a second encoder), or one in a folder of the file's name; else the
    local cache of the Hugging Face hub. Nothing is downloaded.

    Raises:
        CheckpointError: there is none; says which files to put where.
    """
    return {encoder: _find(path, HOMES.get((family, encoder), OPENAI), encoder) for encoder in encoders}


def folder_tokenizers(path: Path, family: str, encoders: Iterable[str]) -> dict[str, Path]:
    """The folder of the tokenizer of every text encoder of a diffusers folder: its own, else the local cache of the hub.

    Raises:
        CheckpointError: there is none; says which files to put where.
    """
    return {encoder: _of_folder(path, HOMES.get((family, encoder), OPENAI), encoder) for encoder in encoders}


def _find(path: Path, home: Home, encoder: str) -> Path:
    name = encoder.replace("text_encoder", "tokenizer")
    why = "a single file holds no tokenizer, and there is none beside it or in the hub's cache"
    return _first((path.parent / name, path.with_suffix("") / name), home, f"{path}: {why}")


def _of_folder(path: Path, home: Home, encoder: str) -> Path:
    own = path / encoder.replace("text_encoder", "tokenizer")
    expected = f"expected {WHOLE}, or {' and '.join(FILES)}, there or in the hub's cache"
    return _first((own,), home, f"{own}: no tokenizer; {expected}")


def _first(folders: Sequence[Path], home: Home, why: str) -> Path:
    """The first of these folders that is a whole tokenizer, else the one in the hub's cache.

    Raises:
        CheckpointError: there is none; says which files to put into the first of the folders, and what a folder lacks.
    """
    halves: list[str] = []
    for folder in folders:
        if not (lacks := lacking(folder, home)):
            return folder
        if is_folder(folder) and any(folder.iterdir()):
            halves.append(f"{folder} is not whole: it lacks {lacks}")
    cached = _cached(home)
    if cached is None:
        of = f"{home.repository}{f' (folder {home.folder})' if home.folder else ''}"
        said = "; ".join([*halves, why] if halves else [why])
        raise CheckpointError(f"{said}; put {', '.join(FILES)} and {SETTINGS[0]} of {of} into {folders[0]}")
    for half in halves:
        log.warning("%s; took %s instead", half, cached)
    return cached


def _cached(home: Home) -> Path | None:
    """The tokenizer's folder in the hub's cache on this machine, if it is whole there."""
    import huggingface_hub

    look_up = cast("Any", huggingface_hub).try_to_load_from_cache
    found = [look_up(home.repository, home.file(name)) for name in (WHOLE, *FILES, *SETTINGS)]
    folders = dict.fromkeys(Path(one).parent for one in found if isinstance(one, str))
    return next((folder for folder in folders if not lacking(folder, home)), None)
