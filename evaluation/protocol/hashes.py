"""The hashes by which a plan names its files, and a result the weights that measured it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...framework.errors import CheckpointError, LsregenError

DECIDING = ("*.safetensors", "*.json", "*.txt", "*.model")


def file_hash(path: Path, error: type[LsregenError] = CheckpointError) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        LsregenError: it cannot be read; of the class `error`.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror or type(fault).__name__})") from None


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a transformers folder that decides what its model says (`DECIDING`), by name."""
    return {path.name: file_hash(path) for path in sorted({found for pattern in DECIDING for found in folder.glob(pattern)})}
