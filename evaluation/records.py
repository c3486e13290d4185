"""Finished items on disk: one file of JSON lines per row of a benchmark, so that a long run may be interrupted at any time.

The first line holds the settings that decide every item of the file; a file is named after them, so that other settings never
share it. Items are appended whole; a line that a crash cut off is dropped when the file is next opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..framework.errors import ConfigError

Record = dict[str, Any]


class Records:
    """The items of one row.

    Args:
        folder: where the file is, or will be.
        label: how a person calls the row; a part of the file's name.
        settings: everything that decides the items, as JSON types.
        key: the whole number in every item that it is known by.
        shared: go on with a file of the same settings, whatever it is called: rows of other names may be the same row.

    Raises:
        ConfigError: the folder or the file cannot be used.
    """

    def __init__(self, folder: Path, label: str, settings: Mapping[str, Any], key: str = "seed", *, shared: bool = False) -> None:
        self.key = key
        self.settings = dict(settings)
        end = digest(settings)[:12]
        self.name = f"{_slug(label)}-{end}"
        try:
            if shared and not (folder / f"{self.name}.jsonl").exists():
                self.name = min((path.stem for path in folder.glob(f"*-{end}.jsonl")), default=self.name)
            self.path = folder / f"{self.name}.jsonl"
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(f"folder {folder}: results cannot be kept there ({error.strerror}); choose another one") from None

    def read(self) -> dict[int, Record]:
        """The finished items by their key; of an item that was made twice, the later one."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[1:]
        records = [cast("Record", json.loads(line)) for line in lines]
        return {int(record[self.key]): record for record in records}

    def append(self, records: Sequence[Record]) -> None:
        """Keep items, on disk when this returns.

        Raises:
            ConfigError: they cannot be written; all that was kept before stays.
        """
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                while data:  # one write as a rule: other lines cannot get between; a disk that is almost full takes a part
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be written ({error.strerror or type(error).__name__}); what was kept before stays: mend "
                "this, and the same command goes on from there"
            ) from None

    def _open(self) -> None:
        """Begin the file, or mend its end."""
        header = (json.dumps({"settings": self.settings}) + "\n").encode()
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data or not whole:
            part = self.path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(whole or header)
            part.replace(self.path)
        if whole and not _is_header(whole.partition(b"\n")[0]):
            raise ConfigError(f"{self.path}: not a file of lsregen's results; move it away, or choose another folder")


def digest(settings: Mapping[str, Any]) -> str:
    """A hash of settings, in hexadecimal digits; the order of their keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _is_header(line: bytes) -> bool:
    try:
        found: object = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and "settings" in found


def _slug(label: str) -> str:
    return re.sub(r"[^\w@.-]+", "-", Path(label).name).strip("-.")[:60] or "row"
