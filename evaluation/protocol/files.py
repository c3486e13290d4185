"""Files that are whole or not there, whatever becomes of the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file over what was there, and make its folder; the file, its name and its folder are on the disk when this returns.

    A part that a crash left is overwritten: only one process may write to a folder.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name[-80:]}.part")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # a full disk needs the space
    _sync(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that they outlive a cut of power.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
