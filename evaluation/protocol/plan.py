"""A plan: the file of jobs that a comparison is made of. Everything that decides a picture stands in it.

A plan is a file of JSON lines. The first line is its header: `format`, `version`, the `lsregen` that made it, the `source` of
the items, the `methods` by name, the `batch` size, how many `seeds` each item has, the `seed` that decides them, how many `jobs`
there are, and a `digest` of all that and of every line below. Each of those is a job: one image of one item, with one seed, by
one method.

    {"job": 17, "batch": 2, "method": "layout-guidance", "item": "coco-139", "seed": 123456, "prompt": "a dog and a cat",
     "negative": "", "regions": [{"phrase": "dog", "box": [0.1, 0.2, 0.5, 0.9]}], "size": [512, 512],
     "expects": {"classes": {"dog": "dog"}}}

Jobs are numbered from 0 in the order of the lines. Those with one number of `batch` follow each other, and have one method and
size: they are made together, always the same ones, so that neither the engine nor an interruption changes a picture.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast, overload

from ...framework.errors import ConfigError
from ...framework.files import write_whole
from ...framework.items import SEEDS
from ...framework.layout import Layout
from ...framework.options import build, plain
from .expects import Expects

FORMAT = "lsregen-plan"
VERSION = 2
NAME = re.compile(r"[\w@+-][\w@+. -]{0,59}")
"""What a method may be called: it is the name of a folder."""
NOT_ONE = "expected a plan that `lsregen evaluate plan` made"


@dataclass(frozen=True)
class Method:
    """A way of making images.

    `guidance`: what it is called in tables. `model`: what is loaded, a name or a path; `described`: what that was when the plan
    was made, hashes of its weights included. `config`: the configuration of its runs, every default filled in. `size`: the policy
    by which the sizes of its jobs were chosen. `dtype`: what its networks compute in. `models`: the others that its configuration
    names, such as one that renders small pictures, each as described, by its name or path there.
    """

    guidance: str
    model: str
    described: dict[str, Any]
    config: dict[str, Any]
    size: str = "model"
    dtype: str = "fp32"
    models: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


@dataclass(frozen=True)
class Origin:
    """Where the items of a plan come from.

    `source`: the name of its reader. `files`: the sha256 of each file that was read, by its name. `options`: what was asked of
    the reader. `items`: how many there are. `dropped`: how many things were left out, by the reason.
    """

    source: str
    files: dict[str, str] = field(default_factory=dict[str, str])
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    items: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])


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
        values = {**data, "number": data.get("job"), "layout": Layout.from_json({"regions": data.get("regions", [])})}
        return build(cls, {key: value for key, value in values.items() if key not in ("job", "regions")}, "", "a job")


@dataclass(frozen=True)
class Plan:
    """The jobs of a comparison and what they need; see the beginning of this file.

    `batch`: the most jobs made at once. `seeds`: images of each item; `seed`: what the seeds were made of that no item states.
    """

    origin: Origin
    methods: Mapping[str, Method]
    batch: int
    seeds: int
    seed: int
    jobs: Sequence[Job]
    lsregen: str
    digest: str
    starts: Sequence[int]
    """The number of the first job of every batch."""

    @classmethod
    def of(
        cls, origin: Origin, methods: Mapping[str, Method], batch: int, jobs: Sequence[Job], *, seeds: int = 1, seed: int = 0
    ) -> Plan:
        """A new plan of these jobs, made by this lsregen. Each is looked at once, and none is kept here.

        Raises:
            ConfigError: no jobs, jobs that are not numbered from 0, a batch that is not of one piece, method and size, or is too
                large, or a method that cannot be a folder's name.
        """
        from ...framework.report import versions

        if not jobs:
            raise ConfigError("a plan without jobs: there is no item, or no method")
        check_names(methods)
        head = _head(origin, methods, batch, seeds, seed, len(jobs), versions()["lsregen"])
        starts, digest = array("Q"), hashlib.sha256(_dumped(head))
        for job in _checked(jobs, methods, batch):
            if job.batch == len(starts):
                starts.append(job.number)
            digest.update(_line(job))
        return cls(origin, dict(methods), batch, seeds, seed, jobs, head["lsregen"], digest.hexdigest(), starts)

    def batches(self) -> Iterator[range]:
        """The numbers of the jobs of each batch, in order."""
        for start, end in zip(self.starts, (*self.starts[1:], len(self.jobs)), strict=True):
            yield range(start, end)

    def named(self, number: int) -> tuple[str, str, int]:
        """The method, the item and the seed of a job; quicker than the whole job."""
        jobs = self.jobs
        if isinstance(jobs, _JobLines):
            line = jobs.line(number)
            return line["method"], line["item"], line["seed"]
        return jobs[number].method, jobs[number].item, jobs[number].seed

    def head(self) -> dict[str, Any]:
        """The first line of the plan's file, as plain JSON types."""
        head = _head(self.origin, self.methods, self.batch, self.seeds, self.seed, len(self.jobs), self.lsregen)
        return {**head, "digest": self.digest}

    def write(self, path: Path) -> None:
        """Write the plan's file, whole or not at all, over what was there.

        Raises:
            OSError: it cannot be written.
        """
        lines = self.jobs.encoded() if isinstance(self.jobs, _JobLines) else map(_line, self.jobs)
        write_whole(path, chain([_dumped(self.head())], lines))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan of a file, which must be as it was written.

        Raises:
            ConfigError: it cannot be read, is no plan, is of another version of this format, or was changed.
        """
        lines = _Lines(path)
        head = _header(lines.bytes_of(0), path)
        kept = {key: value for key, value in head.items() if key != "digest"}
        if _digest(kept, map(lines.bytes_of, range(1, len(lines)))) != head["digest"] or head["jobs"] != len(lines) - 1:
            raise ConfigError(
                f"{path}: changed or cut off since it was made (its digest is another); make the plan again with "
                "`lsregen evaluate plan`, and put changes into its source or its methods"
            )
        batches = (json.loads(lines.bytes_of(i))["batch"] for i in range(1, len(lines)))
        return cls(
            build(Origin, head["source"], f"{path}: source", "a source"),
            {name: build(Method, method, f"{path}: methods.{name}", "a method") for name, method in head["methods"].items()},
            head["batch"],
            head["seeds"],
            head["seed"],
            _JobLines(lines),
            head["lsregen"],
            head["digest"],
            _changes(batches),
        )

    def differences(self, other: Plan) -> list[str]:
        """In what another plan differs, in words; empty if it is the same plan."""
        if self.digest == other.digest:
            return []
        found: list[str] = []
        mine, theirs = self.head(), other.head()
        for key in ("lsregen", "batch", "seeds", "seed", "jobs"):
            if mine[key] != theirs[key]:
                found.append(f"{key} {mine[key]} and {theirs[key]}")
        for key in ("source", "methods"):
            found += _differing(key, mine[key], theirs[key])
        return found or ["their jobs"]


class _Lines:
    """The lines of a file, each read when it is asked for: a plan may have a million."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or type(error).__name__}); {NOT_ONE}") from None
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


class _JobLines(LazyJobs):
    """The jobs of a plan's file."""

    def __init__(self, lines: _Lines) -> None:
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


def check_names(methods: Iterable[str]) -> None:
    """Whether methods can be called that.

    Raises:
        ConfigError: one cannot be a folder's name.
    """
    for name in methods:
        if not NAME.fullmatch(name):
            raise ConfigError(f"method {name!r}: expected a name that a folder may have: letters, digits, @ + - . and spaces")


def _head(
    origin: Origin, methods: Mapping[str, Method], batch: int, seeds: int, seed: int, jobs: int, lsregen: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "lsregen": lsregen,
        "source": plain(origin),
        "methods": plain(methods),
        "batch": batch,
        "seeds": seeds,
        "seed": seed,
        "jobs": jobs,
    }


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    head = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if head.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a plan (its first line has no format {FORMAT!r}); {NOT_ONE}")
    if head.get("version") != VERSION:
        raise ConfigError(
            f"{path}: a plan of version {head.get('version')!r}, made by lsregen {head.get('lsregen')}; this one reads version "
            f"{VERSION}: make the plan again, or use that lsregen"
        )
    missing = [key for key in _head(Origin(""), {}, 0, 0, 0, 0, "") if key not in head] + ["digest"] * ("digest" not in head)
    if missing:
        raise ConfigError(f"{path}: its header has no {missing[0]!r}; {NOT_ONE}")
    return head


def _digest(head: Mapping[str, Any], lines: Iterable[bytes]) -> str:
    found = hashlib.sha256(_dumped(head))
    for line in lines:
        found.update(line)
    return found.hexdigest()


def _dumped(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _line(job: Job) -> bytes:
    return _dumped(job.to_json())


def _changes(batches: Iterable[int]) -> Sequence[int]:
    """Where a number other than the one before begins."""
    starts, last = array("Q"), None
    for i, batch in enumerate(batches):
        if batch != last:
            starts.append(i)
            last = batch
    return starts


def _checked(jobs: Iterable[Job], methods: Mapping[str, Method], most: int) -> Iterator[Job]:
    """The jobs as they are, if they are numbered in order, and their batches are of one piece."""
    first, batches = None, 0
    for i, job in enumerate(jobs):
        if job.number != i:
            raise ConfigError(f"job {job.number} in place {i}: expected jobs in order, numbered from 0")
        if first is None or job.batch != first.batch:
            if job.batch != batches:
                raise ConfigError(f"job {i}: batch {job.batch}; expected {batches}: batches are numbered in order")
            first, batches = job, batches + 1
        one_piece = (job.method, job.size) == (first.method, first.size) and i - first.number < most
        if not one_piece or job.method not in methods:
            raise ConfigError(f"batch {job.batch}: expected at most {most} jobs, of one size and of one method of the plan's")
        yield job


def _differing(where: str, first: object, second: object) -> list[str]:
    """The paths at which two plain values differ."""
    if first == second:
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        one, other = cast("dict[str, object]", first), cast("dict[str, object]", second)
        inner = [_differing(f"{where}.{key}", one.get(key), other.get(key)) for key in dict.fromkeys((*one, *other))]
        return [fault for faults in inner for fault in faults]
    return [where]
