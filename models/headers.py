"""What is in a file of weights, by its header alone, or in a JSON file beside it; and what a file is that is neither."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from safetensors import SafetensorError, safe_open  # pyright: ignore[reportUnknownVariableType]

from ..framework.errors import CheckpointError

READABLE = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
MENDS = {"F8": "save the model again as F16 or BF16, or take the variant that its author published so"}

# How files begin that are given as weights by mistake, what they are, and what to do.
PICKLE = "a pickle, which may run any code when it is opened and is therefore never loaded"
STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; run `git lfs pull` where it came from"),
    (b"PK\x03\x04", PICKLE),
    *((b"\x80" + bytes([protocol]), PICKLE) for protocol in range(2, 6)),
    (b"GGUF", "a GGUF file of quantised weights, which is not supported; download the model as safetensors"),
)
PAGES = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its shape, and its dtype by the name that safetensors gives it (`F16`)."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """The tensors of a file by key, and the texts stored beside them. `where`: the file, for the messages."""

    where: str
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: entry.shape for key, entry in self.entries.items()}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Every dtype that occurs, sorted."""
        return tuple(sorted({entry.dtype for entry in self.entries.values()}))


def read_header(path: Path) -> Header:
    """The header of a safetensors file; no tensor is read.

    Raises:
        CheckpointError: the file cannot be read, is truncated, is no safetensors file, or holds a dtype that cannot
            be computed with.
    """
    if kind := foreign(path):
        mend = f"; make safetensors of it: {convert_command(path)}" if kind == PICKLE else ""
        raise CheckpointError(f"{path} ({_size(path)}): {kind}{mend}")
    try:
        # "np": shapes need no tensor library at all.
        with cast("Any", safe_open)(path, framework="np") as file:
            entries: dict[str, Entry] = {key: _entry(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118 (no mapping)
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} ({_size(path)}): truncated, or no safetensors file ({error}); download it again") from None
    _check_dtypes(path, entries)
    return Header(str(path), MappingProxyType(entries), MappingProxyType(metadata))


def convert_command(path: Path) -> str:
    """The command that makes a folder of safetensors of a file, beside it."""
    return f"lsregen convert {path} {path.with_suffix('')}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or is no JSON object.
    """
    try:
        values: object = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        kind = foreign(path) if isinstance(error, ValueError) else None
        raise CheckpointError(f"{path} ({_size(path)}): {kind or f'not readable as JSON ({error})'}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(values).__name__}")
    return cast("dict[str, Any]", values)


def foreign(path: Path) -> str | None:
    """What a file is that stands where weights should, and what to do about it; None if it is none of the well-known mistakes.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a file of weights") from None
    if not start:
        return "the file is empty; download it again"
    if start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(PAGES):
        return "a web page, not the file itself; the download was answered with HTML (a login or an error?)"
    return next((kind for mark, kind in STARTS if start.startswith(mark)), None)


def _entry(piece: Any) -> Entry:
    return Entry(tuple(piece.get_shape()), str(piece.get_dtype()))


def _check_dtypes(path: Path, entries: Mapping[str, Entry]) -> None:
    unreadable = {key: entry.dtype for key, entry in entries.items() if entry.dtype not in READABLE}
    if unreadable:
        key, dtype = next(iter(unreadable.items()))
        mend = next((text for start, text in MENDS.items() if dtype.startswith(start)), "convert them first")
        known = ", ".join(READABLE)
        raise CheckpointError(f"{path}: {len(unreadable)} tensors of dtype {dtype} (such as {key}); known are {known}; {mend}")


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"
