"""Files and folders: what is at a path, reading within limits, writing whole or not at all, one writer at a time.

Everything that reads a file of somebody else's goes through here, so that a name that is too long, an endless device, a link to
nothing and a thousand nested brackets are one clear error everywhere.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

from .errors import ConfigError, LsregenError

MOST_BYTES = 2**29
"""More is read of no pipe, as it may never end. Of a file the size is known before: see `most_of_a_file`."""
MOST_LEVELS = 64
"""Data that is nested deeper is refused: what follows its levels by recursion would fail."""
NESTED = (dict, list)

CANNOT_SYNC = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
"""What mounts answer that do not force folders to the disk, and folders that may be written and not read."""

ABSENT = "no such file or folder"


@dataclass(frozen=True)
class Place:
    """What is at a path; a link counts as what it leads to. `said`: the same in words, why nothing is there included."""

    kind: Literal["file", "folder", "pipe", "device", "nothing"]
    said: str

    @property
    def readable(self) -> bool:
        """Whether it can be read from beginning to end: a file, or a pipe."""
        return self.kind in ("file", "pipe")

    @property
    def free(self) -> bool:
        """Whether nothing is there, and a file or folder could be: as far as the folders above it allow that."""
        return self.kind == "nothing" and self.said == ABSENT


def look(path: str | Path) -> Place:
    """What is at a path, whatever the path is; nothing is opened and nothing raised."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            return Place("nothing", f"a link to {os.readlink(path)}, which is not there")
        return Place("nothing", ABSENT)
    except (OSError, ValueError) as error:  # too long, no permission, a file where a folder should be, a NUL
        return Place("nothing", reason(error))
    if stat.S_ISDIR(mode):
        return Place("folder", "a folder")
    if stat.S_ISREG(mode):
        return Place("file", "a file")
    return Place("pipe", "a pipe") if stat.S_ISFIFO(mode) else Place("device", "a device, not a file")


def is_file(path: str | Path) -> bool:
    """Whether a file is at a path; unlike `Path.is_file` it raises for no path."""
    return look(path).kind == "file"


def is_folder(path: str | Path) -> bool:
    """Whether a folder is at a path; unlike `Path.is_dir` it raises for no path."""
    return look(path).kind == "folder"


def is_there(path: str | Path) -> bool:
    """Whether anything is at a path; unlike `Path.exists` it raises for no path."""
    return look(path).kind != "nothing"


def reason(error: OSError | ValueError) -> str:
    """Why the system refused, in its words."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    return said or type(error).__name__


def most_of_a_file() -> int:
    """The size in bytes of the largest file that is read: half of this machine's memory, which then holds its text too."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return sys.maxsize


def read_bytes(path: Path, expected: str, error: type[LsregenError] = ConfigError, most: int | None = None) -> bytes:
    """What a file holds, or a pipe until it ends.

    Args:
        expected: what the file should be, for the message: `a plan`.
        error: what is raised.
        most: the largest size in bytes; by default that of `most_of_a_file`, and `MOST_BYTES` of a pipe.

    Raises:
        LsregenError: of the class `error`: it is not there, is no file, cannot be read, or is too large.
    """
    place, wanted = look(path), f"expected {expected}"
    if not place.readable:
        raise error(f"{shortened(path)}: cannot be read ({place.said}); {wanted}")
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            limit = max(MOST_BYTES, min(size, most_of_a_file())) if most is None else most
            data = file.read(min(size, limit) + 1)
            if size < len(data) <= limit:  # a pipe, or a file that tells no size, or grows
                data += file.read(limit + 1 - len(data))
    except OSError as fault:
        raise error(f"{shortened(path)}: cannot be read ({reason(fault)}); {wanted}") from None
    except MemoryError:
        raise error(f"{shortened(path)}: does not fit into the memory; {wanted}") from None
    if len(data) > limit:
        raise error(f"{shortened(path)}: larger than {limit:,} bytes; {wanted}")
    return data


def read_text(path: Path, expected: str, error: type[LsregenError] = ConfigError, most: int | None = None) -> str:
    """A text in UTF-8, with or without a byte-order mark; its lines end by `\\n`. Raises as `read_bytes`, or if it is none."""
    return decoded(read_bytes(path, expected, error, most), str(path), expected, error)


def decoded(data: bytes, where: str, expected: str, error: type[LsregenError] = ConfigError) -> str:
    """Bytes of a file as text; see `read_text`."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as fault:
        raise error(f"{where}: not a text in UTF-8 (byte {fault.start}); expected {expected}") from None


def read_json(path: Path, expected: str, error: type[LsregenError] = ConfigError, most: int | None = None) -> Any:
    """What a JSON file holds. Raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path, expected, error, most), str(path), error, expected)


def parse_json(text: str, where: str, error: type[LsregenError] = ConfigError, expected: str = "") -> Any:
    """JSON in which no mapping has a key twice. NaN and infinity are read as Python reads them: who uses a number checks it.

    Raises:
        LsregenError: of the class `error`: it is something else, is nested deeper than `MOST_LEVELS`, or holds half of a
            character; says at which line and column where that is known.
    """
    wanted = f"; expected {expected}" if expected else ""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise error(f"{where}: the key {twice!r} stands twice in one mapping; give a list of both instead")
        return found

    try:
        data = json.loads(text, object_pairs_hook=unique)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise error(f"{where}: half of a character in a text; expected escapes from \\ud800 to \\udfff in pairs") from None
    except json.JSONDecodeError as fault:
        raise error(f"{where}: not JSON: {fault.msg} (line {fault.lineno}, column {fault.colno}){wanted}") from None
    except RecursionError:
        raise error(f"{where}: nested deeper than {MOST_LEVELS} levels{wanted}") from None
    except ValueError:  # Python reads no whole number of more digits than this
        raise error(f"{where}: a whole number of more than {sys.get_int_max_str_digits():,} digits{wanted}") from None
    if text.count("[") + text.count("{") > MOST_LEVELS and too_deep(data):
        raise error(f"{where}: nested deeper than {MOST_LEVELS} levels{wanted}")
    return data


def too_deep(data: object, most: int = MOST_LEVELS) -> bool:
    """Whether mappings and lists are nested in more than `most` levels."""
    level: list[Any] = [data] if isinstance(data, NESTED) else []
    for _ in range(most):
        level = [child for each in level for child in _items(each) if isinstance(child, NESTED)]
        if not level:
            return False
    return bool(level)


def _items(nested: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return nested.values() if isinstance(nested, dict) else nested


def shortened(path: object, most: int = 120) -> str:
    """A path in a message; the middle of a very long one is left out."""
    text = str(path)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file over what was there, and make its folder; the file, its name and its folder are on the disk when this returns.

    Whoever looks sees the old file or the new one, never a part. What was written aside is removed whatever happens, if the disk
    allows it; what a killed process left is overwritten, so only one process may write a file at a time (`locked`).

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
        with suppress(OSError):  # the disk became read-only: the first error is the one to tell
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
    """Force the names in a folder to the disk, where the system and the mount can.

    Raises:
        OSError: the disk failed.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


@contextmanager
def locked(path: Path, taken: str, *, keep: bool = True) -> Generator[None]:
    """Keep other processes from the same lock; the system ends it with the process, however that ends.

    Args:
        path: the file that is locked; it is made.
        taken: the message if another process has the lock: what it does, and how to go on.
        keep: whether the file stays when the block is done.

    Raises:
        ConfigError: another process has it, or the file cannot be written.
    """
    with _locked_file(path, taken):
        try:
            yield
        finally:
            if not keep:
                with suppress(OSError):
                    path.unlink()


def _locked_file(path: Path, taken: str) -> IO[bytes]:
    try:
        import fcntl
    except ImportError:  # a system without it, where nobody watches
        return BytesIO()
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({reason(error)})") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(taken) from None
        except OSError:  # a file system without locks
            return file
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # whoever had the lock removed the file after it was opened here
