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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

from ...framework.config.options import build, plain
from ...framework.errors import ConfigError
from ...framework.files import parse_json, write_whole
from .jobs import NOT_ONE, Job, JobLines, Lines, Order, check_names

FORMAT = "lsregen-plan"
VERSION = 2


@dataclass(frozen=True)
class Method:
    """A way of making images.

    `guidance`: what it is called in tables. `model`: what is loaded, a name or a path; `described`: what that was when the plan
    was made, hashes of its weights included. `config`: the configuration of its runs, every default filled in. `size`: the policy
    by which the sizes of its jobs were chosen. `dtype`: what its networks compute in. `models`: the others that its configuration
    names, such as one that renders small pictures, each as described, by its name or path there. `enlarged`: the size, width and
    height, that finished images are enlarged to.
    """

    guidance: str
    model: str
    described: dict[str, Any]
    config: dict[str, Any]
    size: str = "model"
    dtype: str = "fp32"
    models: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    enlarged: tuple[int, int] | None = None


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
        from ...framework.pipeline.report import versions

        if not jobs:
            raise ConfigError("a plan without jobs: there is no item, or no method")
        check_names(methods)
        head = _head(origin, methods, batch, seeds, seed, len(jobs), versions()["lsregen"])
        order, digest = Order(methods, batch), hashlib.sha256(_dumped(head))
        for job in jobs:
            order.add(job.number, job.batch, job.method, job.size)
            digest.update(_dumped(job.to_json()))
        return cls(origin, dict(methods), batch, seeds, seed, jobs, head["lsregen"], digest.hexdigest(), order.starts)

    def batches(self) -> Iterator[range]:
        """The numbers of the jobs of each batch, in order."""
        for start, end in zip(self.starts, (*self.starts[1:], len(self.jobs)), strict=True):
            yield range(start, end)

    def named(self, number: int) -> tuple[str, str, int]:
        """The method, the item and the seed of a job; quicker than the whole job."""
        jobs = self.jobs
        if isinstance(jobs, JobLines):
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
        lines = self.jobs.encoded() if isinstance(self.jobs, JobLines) else (_dumped(job.to_json()) for job in self.jobs)
        write_whole(path, chain([_dumped(self.head())], lines))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan of a file, which must be as it was written, and one that `of` would have made.

        Raises:
            ConfigError: it cannot be read, is no plan, is of another version of this format, or was changed; or as `of`.
        """
        lines = Lines(path)
        values = _header(lines.bytes_of(0), path)
        head, jobs = build(_Head, values, f"{path}: header", "a plan"), JobLines(lines)
        check_names(head.methods)
        kept = {key: value for key, value in values.items() if key != "digest"}
        if _digest({"format": FORMAT, "version": VERSION, **kept}, jobs.encoded()) != head.digest or head.jobs != len(jobs):
            raise ConfigError(
                f"{path}: changed or cut off since it was made (its digest is another); make the plan again with "
                "`lsregen evaluate plan`, and put changes into its source or its methods"
            )
        starts = jobs.checked(head.methods, head.batch, str(path))
        return cls(head.source, head.methods, head.batch, head.seeds, head.seed, jobs, head.lsregen, head.digest, starts)

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


@dataclass(frozen=True)
class _Head:
    """The first line of a plan, less `format` and `version`."""

    lsregen: str
    source: Origin
    methods: dict[str, Method]
    batch: int
    seeds: int
    seed: int
    jobs: int
    digest: str

    def __post_init__(self) -> None:
        for name, least in {"batch": 1, "seeds": 1, "seed": 0, "jobs": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: {getattr(self, name)}; expected at least {least}")


def _header(line: bytes, path: Path) -> dict[str, Any]:
    """What the first line says, less its format and version, which are those of today."""
    try:
        found: object = parse_json(line.decode(), str(path))
    except (UnicodeDecodeError, ConfigError):
        found = None
    head = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if head.pop("format", None) != FORMAT:
        raise ConfigError(f"{path}: not a plan (its first line has no format {FORMAT!r}); {NOT_ONE}")
    if (version := head.pop("version", None)) != VERSION:
        raise ConfigError(
            f"{path}: a plan of version {version!r}, made by lsregen {head.get('lsregen')}; this one reads version "
            f"{VERSION}: make the plan again, or use that lsregen"
        )
    return head


def _digest(head: Mapping[str, Any], lines: Iterable[bytes]) -> str:
    found = hashlib.sha256(_dumped(head))
    for line in lines:
        found.update(line)
    return found.hexdigest()


def _dumped(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _differing(where: str, first: object, second: object) -> list[str]:
    """The paths at which two plain values differ."""
    if first == second:
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        one, other = cast("dict[str, object]", first), cast("dict[str, object]", second)
        inner = [_differing(f"{where}.{key}", one.get(key), other.get(key)) for key in dict.fromkeys((*one, *other))]
        return [fault for faults in inner for fault in faults]
    return [where]
