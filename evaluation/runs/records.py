"""Finished items on disk: one file of JSON lines per row of a benchmark, so that a long run may be interrupted at any time.

The first line holds the settings that decide every item of the file; a file is named after them, so that other settings never
share it. Items are appended whole; a line that a crash cut off is dropped when items are next appended. The file is made with
its first item, and one process at a time adds to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from ...framework.errors import ConfigError
from ...framework.files import is_there, locked, look, make_folder, parse_json, reason, shortened

Record = dict[str, Any]


class Records:
    """The items of one row. Nothing is written before the first is appended.

    Args:
        folder: where the file is, or will be.
        label: how a person calls the row; a part of the file's name.
        settings: everything that decides the items, as JSON types.
        key: the whole number in every item that it is known by.

    Raises:
        ConfigError: the folder or the file cannot be used.
    """

    def __init__(self, folder: Path, label: str, settings: Mapping[str, Any], key: str = "seed") -> None:
        self.key = key
        self.settings = dict(settings)
        self.name = f"{_slug(label)}-{digest(settings)[:12]}"
        self.path = folder / f"{self.name}.jsonl"
        self._read: int | None = None  # how many bytes of whole lines there were
        self._ready = False
        self._lock: ExitStack | None = None
        self._check()

    def read(self) -> dict[int, Record]:
        """The finished items by their key; of an item that was made twice, the later one.

        Raises:
            ConfigError: the file cannot be read, or is damaged.
        """
        found: dict[int, Record] = {}
        self._read = 0
        for number, line in enumerate(self._lines(), 1):
            self._read += len(line)
            if number > 1:
                found.update([self._item(line, number)])
        return found

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep others from adding items, as long as the block lasts; the system ends this with the process.

        A file that is not there yet is held from the first item on; one that cannot be written to needs no hold.

        Raises:
            ConfigError: another process is adding items.
        """
        with ExitStack() as self._lock:
            if os.access(self.path, os.W_OK):
                self._lock.enter_context(locked(self.path, self._taken))
            yield

    def append(self, records: Sequence[Record]) -> None:
        """Keep items, on disk when this returns.

        Raises:
            ConfigError: they cannot be written, or hold a number that is not finite; all that was kept before stays.
        """
        data = b"".join(map(self._line, records))
        try:
            if not self._ready:
                self._prepare()
            with self.path.open("ab", buffering=0) as file:
                while data:  # one write as a rule: other lines cannot get between; a disk that is almost full takes a part
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be written ({reason(error)}); what was kept before stays: mend "
                "this, and the same command goes on from there"
            ) from None

    def _prepare(self) -> None:
        """Begin the file, or cut off what a crash left at its end."""
        make_folder(self.path.parent)
        if self._lock is not None and not is_there(self.path):
            self._lock.enter_context(locked(self.path, self._taken))
        whole = sum(map(len, self._lines()))
        if self._read not in (None, whole):
            raise ConfigError(self._taken)
        if not whole:
            self.path.write_bytes(self._header())
        elif whole < self.path.stat().st_size:
            os.truncate(self.path, whole)
        self._ready = True

    @property
    def _taken(self) -> str:
        return f"{self.path}: another process is adding to it; wait for it, or choose another folder"

    def _check(self) -> None:
        """Whether the file is lsregen's, if there is one."""
        place = look(self.path)
        if place.kind == "file":
            with self.path.open("rb") as file:
                first = file.readline()
            begun = not first.endswith(b"\n") and self._header().startswith(first)  # where a crash cut it off
            if not begun and not _is_header(first):
                raise ConfigError(f"{self.path}: not a file of lsregen's results; move it away, or choose another folder")
        elif not place.free:
            raise ConfigError(f"{shortened(self.path)}: results cannot be kept there ({place.said}); choose another folder")

    def _lines(self) -> Iterator[bytes]:
        """The whole lines of the file; what a crash cut off at its end is none."""
        if look(self.path).kind != "file":
            return
        try:
            with self.path.open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read ({reason(error)}); expected lsregen's results") from None

    def _item(self, line: bytes, number: int) -> tuple[int, Record]:
        where = f"{self.path}, line {number}"
        try:
            found: object = json.loads(line)
        except (ValueError, RecursionError):
            found = parse_json(line.decode("utf-8", "replace"), where)
        record = cast("Record", found) if isinstance(found, dict) else {}
        if not isinstance(record.get(self.key), int):
            raise ConfigError(f"{where}: damaged: expected a mapping with {self.key!r}; move the file away, to make it again")
        return int(record[self.key]), record

    def _header(self) -> bytes:
        return (json.dumps({"settings": self.settings}) + "\n").encode()

    def _line(self, record: Record) -> bytes:
        try:
            return (json.dumps(record, allow_nan=False) + "\n").encode()
        except ValueError:
            raise ConfigError(
                f"{self.path}: {self.key} {record.get(self.key)}: a number in it is not finite, so it cannot be kept; are the "
                "weights of what measures damaged?"
            ) from None


def digest(settings: Mapping[str, Any]) -> str:
    """A hash of settings, in hexadecimal digits; the order of their keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _is_header(line: bytes) -> bool:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "settings" in found


def _slug(label: str) -> str:
    return re.sub(r"[^\w@.-]+", "-", Path(label).name).strip("-.")[:60] or "row"
