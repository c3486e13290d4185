"""The jobs of a plan: what one says, the file that holds them, and whether they are a plan's."""

from __future__ import annotations

import json
import mmap
import re
from abc import abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, overload

from ...framework.errors import ConfigError, LsregenError
from ...framework.files import look, parse_json, reason, shortened
from ...framework.items import SEEDS
from ...framework.layout import Layout
from ...framework.options import build
from .expects import Expects

NAME = re.compile(r"[\w@+-][\w@+. -]{0,59}")
"""What a method may be called: it is the name of a folder."""
NOT_ONE = "expected a plan that `lsregen evaluate plan` made"
OWN = ("job", "batch", "method", "item", "seed", "size")
"""What is a job's own; everything else of a line is mostly that of other jobs too."""


@dataclass(frozen=True)
class Job:
    """One image to be made. `number`: its place in the plan; `size`: width and height in pixels.

    Raises:
        ConfigError: the seed is out of range, or a side of the size below 1.
    """

    number: int
    batch: int
    method: str
    item: str
    seed: int
    prompt: str
    negative: str
    layout: Layout
    size: tuple[int, int]
    expects: Expects = field(default_factory=Expects)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:
            raise ConfigError(f"seed: {self.seed} is not in [0, 2^63)")
        if min(self.size) < 1:
            raise ConfigError(f"size: {self.size}; expected (width, height) in pixels, both at least 1")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, as a line of a plan holds them."""
        return {
            "job": self.number,
            "batch": self.batch,
            "method": self.method,
            "item": self.item,
            "seed": self.seed,
            "prompt": self.prompt,
            "negative": self.negative,
            **self.layout.to_json(),
            "size": list(self.size),
            "expects": self.expects.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """The inverse of `to_json`.

        Raises:
            ConfigError, LayoutError: a key is missing or unknown, or a value wrong.
        """
        if "number" in data:
            raise ConfigError("number: no such key for a job; its number is 'job'")
        values = {**data, "number": data.get("job"), "layout": Layout.from_json({"regions": data.get("regions", [])})}
        return build(cls, {key: value for key, value in values.items() if key not in ("job", "regions")}, "", "a job")


class Order:
    """Whether jobs follow each other as those of a plan do. `starts`: the number of the first job of every batch."""

    def __init__(self, methods: Collection[str], most: int) -> None:
        self.starts = array("Q")
        self._methods, self._most = methods, most
        self._count = 0
        self._first: tuple[str, tuple[int, int]] | None = None

    def add(self, number: int, batch: int, method: str, size: tuple[int, int]) -> None:
        """One more.

        Raises:
            ConfigError: it is not numbered in order, or its batch is not of one piece, method and size, or is too large.
        """
        if number != self._count:
            raise ConfigError(f"job {number} in place {self._count}: expected jobs in order, numbered from 0")
        if self._first is None or batch != len(self.starts) - 1:
            if batch != len(self.starts):
                raise ConfigError(f"job {number}: batch {batch}; expected {len(self.starts)}: batches are numbered in order")
            self.starts.append(number)
            self._first = method, size
        one_piece = (method, size) == self._first and number - self.starts[-1] < self._most
        if not one_piece or method not in self._methods:
            raise ConfigError(f"batch {batch}: expected at most {self._most} jobs, of one size and of one method of the plan's")
        self._count += 1


class Lines:
    """The lines of a file, each read when it is asked for: a plan may have a million.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        place = look(path)
        if place.kind != "file":  # a pipe cannot be read twice, and a device has no end
            raise ConfigError(f"{shortened(path)}: cannot be read ({place.said}); {NOT_ONE}")
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({reason(error)}); {NOT_ONE}") from None
        except ValueError:
            raise ConfigError(f"{path}: an empty file; {NOT_ONE}") from None
        self._ends = array("Q")
        end = 0
        while (found := self._data.find(b"\n", end)) >= 0:
            end = found + 1
            self._ends.append(end)
        if end < len(self._data):
            self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends)

    def bytes_of(self, number: int) -> bytes:
        return self._data[self._ends[number - 1] if number else 0 : self._ends[number]]


class LazyJobs(Sequence[Job]):
    """Jobs that are made when they are asked for."""

    @abstractmethod
    def job(self, number: int) -> Job: ...

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | Sequence[Job]:
        numbers = range(len(self))[index]
        return list(map(self.job, numbers)) if isinstance(numbers, range) else self.job(numbers)


class JobLines(LazyJobs):
    """The jobs of a plan's file."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines) - 1

    def job(self, number: int) -> Job:
        return Job.from_json(self.line(number))

    def line(self, number: int) -> dict[str, Any]:
        """A job as plain JSON types."""
        return json.loads(self._lines.bytes_of(number + 1))

    def encoded(self) -> Iterator[bytes]:
        """The lines as they stand in the file."""
        return map(self._lines.bytes_of, range(1, len(self._lines)))

    def checked(self, methods: Collection[str], most: int, where: str) -> Sequence[int]:
        """The number of the first job of every batch, if every line is a job, and all of them are jobs of these methods.

        What a line has in common with others is checked once: items come again with every method and seed.

        Raises:
            ConfigError: a line is no job, or as `Order.add`; names the line.
        """
        order, known = Order(methods, most), set[int]()
        for number in range(len(self)):
            try:
                line = _job_of(self._lines.bytes_of(number + 1), known)
                order.add(line["job"], line["batch"], line["method"], (line["size"][0], line["size"][1]))
            except LsregenError as error:
                raise ConfigError(f"{where}, line {number + 2}: {error}") from None
        return order.starts


def _job_of(line: bytes, known: set[int]) -> dict[str, Any]:
    """A line that is a job. `known`: hashes of what was found to be right before, besides what is a job's own."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        found = parse_json(line.decode("utf-8", "replace"), "a job")
    if b"\\u" in line:
        found = parse_json(line.decode(), "a job")  # half a character would be found where it is written
    if not isinstance(found, dict):
        raise ConfigError(f"a job: expected a mapping, got {type(found).__name__}")
    values = cast("dict[str, Any]", found)
    common = hash(repr([(key, value) for key, value in values.items() if key not in OWN]))
    if common not in known or not _own_right(values):
        Job.from_json(values)
        known.add(common)
    return values


def _own_right(values: Mapping[str, Any]) -> bool:
    """Whether what is a job's own is surely right; `Job.from_json` says what is wrong."""
    job, batch, method, item, seed, size = (values.get(key) for key in OWN)
    whole = type(job) is int and type(batch) is int and type(seed) is int and 0 <= seed < SEEDS
    sides = cast("list[Any]", size) if isinstance(size, list) else []
    return (
        whole and type(method) is str and type(item) is str and len(sides) == 2 and all(type(x) is int and x > 0 for x in sides)
    )


def check_names(methods: Iterable[str]) -> None:
    """Whether methods can be called that.

    Raises:
        ConfigError: one cannot be a folder's name.
    """
    for name in methods:
        if not NAME.fullmatch(name):
            raise ConfigError(f"method {name!r}: expected a name that a folder may have: letters, digits, @ + - . and spaces")
