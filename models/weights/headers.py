"""What is in a file of weights, by its header alone, or in a JSON file beside it; and what a file is that is neither."""

from __future__ import annotations

import codecs
import os
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from safetensors import SafetensorError, safe_open  # pyright: ignore[reportUnknownVariableType]

from ...framework import files
from ...framework.errors import CheckpointError
from .names import PICKLES

READABLE = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
MENDS = {"F8": "save the model again as F16 or BF16, or take the variant that its author published so"}

# How files begin that are given as weights by mistake, what they are, and what to do.
PICKLE = "a pickle, which may run any code when it is opened and is therefore never loaded"
ARCHIVE = "a packed archive; unpack it, and give the file that is inside"
PICTURE = "a picture, not a model"
STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; run `git lfs pull` where it came from"),
    (b"PK\x03\x04", PICKLE),
    *((b"\x80" + bytes([protocol]), PICKLE) for protocol in range(2, 6)),
    (b"GGUF", "a GGUF file of quantised weights, which is not supported; download the model as safetensors"),
    (b"\x89HDF\r\n", "a file of Keras or TensorFlow (HDF5), which is not supported; download the model as safetensors"),
    (b"\x93NUMPY", "an array of numpy, not a model"),
    *((mark, ARCHIVE) for mark in (b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"Rar!", b"BZh")),
    *((mark, PICTURE) for mark in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")),
    (b"%PDF", "a PDF document, not a model"),
)
ONNX = "an ONNX file, which is not supported; download the model as safetensors"
PAGES = (b"<!doctype", b"<html", b"<?xml")
LONGEST_HEADER = 10**8  # bytes of the header of a safetensors file, by its reader
MOST_SETTINGS = 2**26  # bytes of a file of settings; an index of shards, the longest of them, has less than one MB
LOST = "the hub's cache was copied without its blobs; copy the folder blobs too, or download the model again"


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
    out = path.with_suffix("") if path.suffix else path.with_name(f"{path.name}-safetensors")
    return shlex.join(["lsregen", "convert", str(path), str(out)])


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by how it begins; by its ending where that tells nothing. Raises as `foreign`."""
    kind = foreign(path)
    return kind == PICKLE or (kind is None and path.suffix.lower() in PICKLES and not is_safetensors(_start(path)))


def holds_weights(path: Path) -> bool:
    """Whether there is a file at a path that begins as safetensors or a pickle do, whatever its name."""
    try:
        return files.is_file(path) and (is_safetensors(_start(path)) or foreign(path) == PICKLE)
    except CheckpointError:  # it may not be read: `load` says so of a file that has the ending of weights
        return False


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or is no JSON object.
    """
    try:
        values = files.read_json(path, "a JSON object", CheckpointError, MOST_SETTINGS)
    except CheckpointError as error:
        if not files.is_file(path):
            raise
        said = foreign(path) or f"not readable as JSON ({str(error).removeprefix(f'{path}: ')})"
        raise CheckpointError(f"{path} ({_size(path)}): {said}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(values).__name__}")
    return cast("dict[str, Any]", values)


def absent(path: Path) -> str:
    """Why no file can be read at a path, in words; a link into a hub's cache that leads nowhere gets its reason."""
    said = files.look(path).said
    return f"{said}: {LOST}" if os.path.islink(path) and "blobs" in path.readlink().parts else said


def foreign(path: Path) -> str | None:
    """What a file is that stands where weights should, and what to do about it; None if it is none of the well-known mistakes.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    start = _start(path)
    if not start:
        return "the file is empty; download it again"
    if start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(PAGES):
        return "a web page, not the file itself; the download was answered with HTML (a login or an error?)"
    if is_safetensors(start):
        return None
    kind = next((kind for mark, kind in STARTS if start.startswith(mark)), None)
    if kind is None and start[:1] == b"\x08" and b"\0" < start[1:2] < b"\x20" and start[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        return ONNX  # a message of protocol buffers whose first field is the version of its form
    return ARCHIVE if start.startswith(b"PK") and _packs_no_pickle(path) else kind


def _start(path: Path) -> bytes:
    """How a file begins. Raises as `foreign`."""
    if not files.is_file(path):
        raise CheckpointError(f"{files.shortened(path)}: cannot be read ({absent(path)}); expected a file of weights")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({files.reason(error)}); expected a file of weights") from None


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins as safetensors does: by the length of its header, and a JSON object."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER


def _packs_no_pickle(path: Path) -> bool:
    """Whether a whole zip archive is none of torch's, each of which has a `data.pkl`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):  # truncated: who reads it as a pickle says so
        return False


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
