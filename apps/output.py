"""Files on disk: a folder that can be written to, files that appear whole or not at all, and nobody else's overwritten."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast
from warnings import catch_warnings, simplefilter

from ..framework.errors import LsregenError
from ..framework.files import is_file, locked, make_folder, read_json, reason, write_whole
from ..framework.layout.image_files import MOST_PIXELS

FORMAT = "lsregen-report"
RESULT = "result.json"  # the scores of a run, in its folder `scores`
"""The `format` of a report.json, by which lsregen knows its own files."""
SOFTWARE = "lsregen"
LOCK = ".lsregen.lock"
UNREADABLE = (OSError, ValueError, SyntaxError)
"""What is raised of a picture that cannot be read."""
NAME_LENGTH = 48  # of a name made from a prompt: with seed and ending it must fit into 255 bytes, four a letter
LONGEST_NAME = 200  # of a given name, in bytes


class OutputError(LsregenError):
    """A file or folder that cannot be written."""


def check_name(name: str) -> str:
    """The name as it is, if files can be called that.

    Raises:
        OutputError: empty, too long, hidden, or with a path in it.
    """
    if not name.strip() or name.startswith(".") or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise OutputError(f"--name {name!r}: expected the beginning of a file name, such as 'cats': no folder (that is --out)")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise OutputError(f"--name of {len(os.fsencode(name))} bytes is too long for a file name; at most {LONGEST_NAME}")
    return name


def slug(prompt: str) -> str:
    """A file name from a prompt: its letters and digits, at most 48 of them, in whole words as far as possible."""
    words = re.findall(r"[^\W_]+", prompt.casefold())
    name = ""
    for word in words:
        joined = f"{name}-{word}" if name else word[:NAME_LENGTH]
        if len(joined) > NAME_LENGTH:
            break
        name = joined
    return name or "image"


@contextmanager
def sole(folder: Path) -> Generator[None]:
    """Make a folder and lock it: until the block ends, no other lsregen command may write images there.

    If the folder did not exist before and is still empty at the end, it is removed.

    Raises:
        OutputError: it cannot be made or written to.
        ConfigError: another command is at work there.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
    taken = f"--out {folder}: another command is making images there; wait until it is done, or choose another --out"
    try:
        try:
            make_folder(folder)
        except OSError as error:
            raise OutputError(f"--out {str(folder)!r}: cannot write there ({reason(error)}); choose another folder") from None
        with locked(folder / LOCK, taken, keep=False):
            yield
    finally:
        with suppress(OSError):  # stops at the first one that is not empty
            for path in made:
                path.rmdir()


def claim(
    paths: Iterable[Path],
    format: str = FORMAT,
    cure: str = "choose another --out or --name",
    known: Collection[Path] = (),
) -> list[Path]:
    """Which of the files exist and will be replaced.

    Args:
        format: of the JSON files among them.
        cure: how to avoid one in the way.
        known: those that were read already, and are lsregen's.

    Raises:
        OutputError: one of them is a folder, or was not made by lsregen.
    """
    old = [path for path in paths if os.path.lexists(path)]
    for path in old:
        if path.is_dir():
            raise OutputError(f"{path}: a folder is in the way; {cure}, or remove it")
        if path not in known and not is_own(path, format):
            what = "" if path.suffix == ".png" else f" (no {format})"
            raise OutputError(f"{path} exists and was not made by lsregen{what}; {cure}, or move it away")
    return old


def is_own(path: Path, format: str = FORMAT) -> bool:
    """Whether a file was made by lsregen: a picture by its `Software`, a JSON file by its `format`."""
    if path.suffix != ".png":
        return read_own(path, format) is not None
    try:
        return (png_text(path, "Software") or "").startswith(SOFTWARE)
    except UNREADABLE:
        return False


def png_text(path: Path, key: str) -> str | None:
    """The text that a PNG file holds under a key. Where it stands behind the pixels, these are unpacked; up to `MOST_PIXELS`.

    Raises:
        OSError, ValueError, SyntaxError: there is no such file, or it cannot be read; all of them are in `UNREADABLE`.
    """
    from PIL import Image

    with catch_warnings():
        simplefilter("ignore", Image.DecompressionBombWarning)  # it is opened to be read, not to be unpacked
        try:
            picture = Image.open(path, formats=["PNG"])
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
    with picture:
        if key not in picture.info and picture.width * picture.height <= MOST_PIXELS:
            picture.load()
        found: object = cast("dict[Any, Any]", picture.info).get(key)
    return found if isinstance(found, str) else None


def read_own(path: Path, format: str = FORMAT) -> dict[str, Any] | None:
    """What a JSON file that lsregen wrote holds; None if it is something else, or not there."""
    try:
        found: object = read_json(path, f"a file of the format {format}")
    except LsregenError:
        return None
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return values if values.get("format") == format else None


def keep_aside(path: Path) -> Path:
    """Copy a file to the first free name beside it, `report-1.json` for `report.json`; nothing is ever replaced.

    A copy that is there already, made by a process that was killed before it went on, is taken for it.

    Raises:
        OutputError: it cannot be read, or the copy not be written.
    """
    try:
        data = path.read_bytes()
        names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
        aside = next(name for name in names if not os.path.lexists(name) or _holds(name, data))
        if not os.path.lexists(aside):
            write_file(aside, data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be kept aside ({reason(error)})") from None
    return aside


def _holds(path: Path, data: bytes) -> bool:
    return is_file(path) and path.stat().st_size == len(data) and path.read_bytes() == data


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or none: whoever looks sees the old one or the new one, never a part.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_whole(path, [data])
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)})") from None


def write_json(path: Path, data: Mapping[str, Any], *, keep: bool = False) -> Path | None:
    """Write JSON for people too; whole or not at all, and raises as `write_file`.

    Args:
        keep: whether what was there, if it is something else, is kept aside; returns where.
    """
    made = (json.dumps(data, indent=2) + "\n").encode()
    aside = keep_aside(path) if keep and path.is_file() and path.read_bytes() != made else None
    write_file(path, made)
    return aside
