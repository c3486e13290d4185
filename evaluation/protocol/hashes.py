"""The hashes by which a result names the weights that measured it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...framework.errors import CheckpointError

DECIDING = ("*.safetensors", "*.json", "*.txt", "*.model")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a transformers folder that decides what its model says (`DECIDING`), by name."""
    return {path.name: file_hash(path) for path in sorted({found for pattern in DECIDING for found in folder.glob(pattern)})}
