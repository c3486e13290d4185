"""The hashes of files, by which reports, plans and results name the weights that they are of."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from .errors import CheckpointError, LsregenError

DECIDING = ("*.safetensors", "*.json", "*.txt", "*.model")


def file_hash(path: Path, error: type[LsregenError] = CheckpointError) -> str:
    """SHA-256 of a file, in hexadecimal digits; remembered until the file changes.

    Raises:
        LsregenError: it cannot be read; of the class `error`.
    """
    try:
        status = path.stat()
        return _hash(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror or type(fault).__name__})") from None


@lru_cache(maxsize=256)
def _hash(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a transformers folder that decides what its model says (`DECIDING`), by name."""
    return {path.name: file_hash(path) for path in sorted({found for pattern in DECIDING for found in folder.glob(pattern)})}
