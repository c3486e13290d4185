"""Where tokenizers are that a model does not bring along, as a single file never does: every family uses files widely had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ..framework.errors import CheckpointError

FILES = ("vocab.json", "merges.txt")
WHOLE = "tokenizer.json"  # both in one, as newer folders have it
SETTINGS = "tokenizer_config.json"  # how it pads, which the maps of attention depend on


@dataclass(frozen=True)
class Home:
    """The repository and the folder in it whose tokenizer a text encoder was trained with."""

    repository: str
    folder: str = ""

    def file(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


OPENAI = Home("openai/clip-vit-large-patch14")
SD2 = Home("stabilityai/stable-diffusion-2-1-base", "tokenizer")  # the same words, padded with "!"
SDXL = Home("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer_2")
HOMES: Mapping[tuple[str, str], Home] = MappingProxyType({("sd2", "text_encoder"): SD2, ("sdxl", "text_encoder_2"): SDXL})


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
    for folder in (path.parent / name, path.with_suffix("") / name):
        if all((folder / file).is_file() for file in (*FILES, SETTINGS)):
            return folder
    why = "a single file holds no tokenizer, and there is none beside it or in the hub's cache"
    return _cached(home) or _refuse(f"{path}: {why}", home, path.parent / name)


def _of_folder(path: Path, home: Home, encoder: str) -> Path:
    own = path / encoder.replace("text_encoder", "tokenizer")
    if (own / WHOLE).is_file() or all((own / file).is_file() for file in FILES):
        return own
    expected = f"expected {WHOLE}, or {' and '.join(FILES)}, there or in the hub's cache"
    return _cached(home) or _refuse(f"{own}: no tokenizer; {expected}", home, own)


def _refuse(what: str, home: Home, place: Path) -> Path:
    of = f"{home.repository}{f' (folder {home.folder})' if home.folder else ''}"
    raise CheckpointError(f"{what}; put {', '.join(FILES)} and {SETTINGS} of {of} into {place}")


def _cached(home: Home) -> Path | None:
    """The tokenizer's folder in the hub's cache on this machine, if all of it is there."""
    import huggingface_hub

    look_up = cast("Any", huggingface_hub).try_to_load_from_cache
    found: list[object] = [look_up(home.repository, home.file(name)) for name in (*FILES, SETTINGS)]
    return Path(found[0]).parent if all(isinstance(one, str) for one in found) and isinstance(found[0], str) else None
