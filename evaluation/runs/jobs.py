"""The jobs of a plan: what one says, the file that holds them, and whether they are a plan's."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, cast, overload
from weakref import finalize

from ...framework.config.options import build
from ...framework.config.values import MOST_SIDE
from ...framework.errors import ConfigError, LsregenError
from ...framework.files import MOST_BYTES, look, parse_json, reason, shortened
from ...framework.layout.regions import Layout
from ...framework.layout_files.item import SEEDS
from .expects import Expects

NAME = re.compile(r"[\w@+-][\w@+. -]{0,59}")
"""What a method may be called: it is the name of a folder."""
NOT_ONE = "expected a plan that `lsregen evaluate plan` made"
OWN = ("job", "batch", "method", "item", "seed", "size")
"""What is a job's own; everything else of a line is mostly that of other jobs too."""
OWN_TYPES = [int, int, str, str, int, list]


@dataclass(frozen=True)
class Job:
    """One image to be made. `number`: its place in the plan; `size`: width and height in pixels.

    Raises:
        ConfigError: the seed or a side of the size is out of range.
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
        _check_ranges(self.seed, self.size)

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


def _check_ranges(seed: int, size: Sequence[int]) -> None:
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"seed: {seed} is not in [0, 2^63)")
    if not 1 <= min(size) <= max(size) <= MOST_SIDE:
        raise ConfigError(f"size: {tuple(size)}; expected (width, height) in pixels, both from 1 to {MOST_SIDE:,}")


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
    """The lines of a file, each read when it is asked for: a plan may have a million. Of each its hash is kept.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        place = look(path)
        if place.kind != "file":  # a pipe cannot be read twice, and a device has no end
            raise ConfigError(f"{shortened(path)}: cannot be read ({place.said}); {NOT_ONE}")
        self._path, self._ends, self._marks = path, array("Q"), array("q")
        try:
            self._file = path.open("rb", buffering=0)
            finalize(self, self._file.close)
            buffered = BufferedReader(self._file)
            while line := buffered.readline(MOST_BYTES + 1):
                if len(line) > MOST_BYTES:
                    raise ConfigError(f"{path}: line {len(self) + 1} is longer than {MOST_BYTES:,} bytes; {NOT_ONE}")
                self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
                self._marks.append(hash(line))
            buffered.detach()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({reason(error)}); {NOT_ONE}") from None
        if not self._ends:
            raise ConfigError(f"{path}: an empty file; {NOT_ONE}")

    def __len__(self) -> int:
        return len(self._ends)

    def bytes_of(self, number: int) -> bytes:
        """A line, which is what it was when the file was opened: what is checked once is what is used later.

        Raises:
            ConfigError: it was changed since, or cannot be read any more.
        """
        start = self._ends[number - 1] if number else 0
        try:
            self._file.seek(start)
            line = self._file.read(self._ends[number] - start)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be read any more ({reason(error)})") from None
        if hash(line) != self._marks[number]:
            raise ConfigError(
                f"{self._path}, line {number + 1}: changed while the plan was in use; put the plan back that this command began "
                "with, and give it again"
            )
        return line


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
    if common in known and [type(values.get(key)) for key in OWN] == OWN_TYPES and [*map(type, values["size"])] == [int, int]:
        _check_ranges(values["seed"], values["size"])
    else:
        Job.from_json(values)
        known.add(common)
    return values


def check_names(methods: Iterable[str]) -> None:
    """Whether methods can be called that.

    Raises:
        ConfigError: one cannot be a folder's name.
    """
    for name in methods:
        if not NAME.fullmatch(name):
            raise ConfigError(f"method {name!r}: expected a name that a folder may have: letters, digits, @ + - . and spaces")
