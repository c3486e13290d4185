"""The report.json of one call of `lsregen generate`, which is written as the images are finished."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from ..output import keep_aside, write_file
from ..showing.records import RunError, read_report, record_of

LARGE = 1 << 20
OVERHEAD = 20
"""A report of more than `LARGE` bytes is written again when so many times the seconds have passed that it took the last time.

What a killed process (`kill -9`) loses then is what the report would have said of the images since: their energies and seconds.
The images themselves and their settings are in their files; such as have no settings inside (`--no-metadata`) are made again.
"""


@dataclass
class Entries:
    """The images of a report, each at its place in the run. What all of them have in common is said once, in `shared`."""

    shared: dict[str, Any] | None = None
    _own: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    _texts: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, place: int, entry: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """`settings`: what it may have in common with others."""
        if self.shared is None or not self._own:
            self.shared = dict(settings)
        for key in [key for key, value in self.shared.items() if settings[key] != value]:
            value = self.shared.pop(key)
            for other in self._own.values():
                other[key] = value
            self._texts.clear()
        self._own[place] = {**entry, **{key: value for key, value in settings.items() if key not in self.shared}}

    def remove(self, place: int) -> None:
        self._own.pop(place)
        self._texts.pop(place, None)

    @property
    def all(self) -> list[dict[str, Any]]:
        return [self._own[place] for place in sorted(self._own)]

    def text(self) -> str:
        """The images as indented JSON; what was said before is not put into words again."""
        for place in self._own.keys() - self._texts.keys():
            self._texts[place] = indent(json.dumps(self._own[place], indent=2), "    ")
        return ",\n".join(self._texts[place] for place in sorted(self._texts))


@dataclass
class ReportFile:
    """The file: written whole each time, over an earlier one if that speaks of no other images.

    `own`: whether a report is there, whole or damaged. `earlier`: what it says, if it is whole. `aside`: where it is kept, if it
    has to be. `written`: whether this run has written the file. `recorded`: the number of images in the report that this run
    wrote last.
    """

    path: Path
    own: bool = False
    earlier: Mapping[str, Any] | None = None
    aside: Path | None = None
    written: bool = False
    recorded: int = 0
    _again: float = 0.0

    def __post_init__(self) -> None:
        with suppress(RunError):  # not there, damaged, or changed by hand
            found, self.own = read_report(self.path), True
            record_of(self.path, found)
            self.earlier = found

    @property
    def due(self) -> bool:
        """Whether it is time to write it while the run goes on: that of many thousand images takes seconds."""
        return time.perf_counter() >= self._again

    def write(self, head: Mapping[str, Any], entries: Entries) -> None:
        """Write it; an earlier one is kept aside, until all of its images were made again.

        Raises:
            OutputError: it cannot be written; what was there stays.
        """
        begun = time.perf_counter()
        names = {entry["path"] for entry in entries.all}
        superseded = self.earlier is not None and set(paths_of(self.earlier)) <= names
        if not self.written and os.path.lexists(self.path) and not superseded:
            self.aside = keep_aside(self.path)
        top = json.dumps({**head, "images": 0}, indent=2).removesuffix("0\n}")
        data = f"{top}[\n{entries.text()}\n  ]\n}}\n".encode()
        write_file(self.path, data)
        if self.aside is not None and superseded:
            self.aside.unlink(missing_ok=True)
            self.aside = None
        self.written, self.recorded = True, len(names)
        now = time.perf_counter()
        self._again = now if len(data) <= LARGE else now + OVERHEAD * (now - begun)


def paths_of(report: Mapping[str, Any]) -> list[str]:
    """The names of a report's images."""
    return [image["path"] for image in report["images"]]
