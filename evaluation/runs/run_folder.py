"""A run of a plan on disk: a picture and a record of every finished job, each whole or not there.

    plan.jsonl                       the plan; a folder belongs to one
    images/METHOD/NNN/JOB.png        the pictures, a thousand jobs to a folder
    records/METHOD/NNN/JOB.json      what became of each job

A record is JSON: `plan`, the digest of its plan; `job`, `method`, `item`, `seed`; `image`, the sha256 of the picture's size and
pixels, or null; `error`, null or its `type` and `message`; `alone`, whether it was made without the others of its batch, since
all together failed; and `measured`: seconds, bytes, the device, versions. All but `measured` is decided by the plan, and by which
of its jobs fail; the hash of an image on one machine and process layout only (docs/explanation/numbers.md). The record is written
after the picture. A job is finished if it has a record, and the picture of which that tells; any other is made again.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...framework.config.options import build, plain
from ...framework.errors import ConfigError
from ...framework.files import is_file, is_there, locked, look, make_folder, read_json, reason, shortened, write_whole
from .jobs import Job
from .plan import Plan

PLAN, IMAGES, RECORDS, LOCK = "plan.jsonl", "images", "records", ".lock"
ENDINGS = {IMAGES: "png", RECORDS: "json"}
PER_FOLDER = 1000
"""Jobs of one folder: file systems and people are slow with more."""
SHORT = 12
"""Digits of a digest, in an error."""


@dataclass(frozen=True)
class Fault:
    """Why a job has no picture: the name of the error's class, and what it says."""

    type: str
    message: str


class DamagedRecord(ConfigError):
    """A record that cannot be read, or tells nothing of its job."""


@dataclass(frozen=True)
class Record:
    """What became of a job; see the beginning of this file.

    Raises:
        ConfigError: neither a picture nor an error, or both.
    """

    job: int
    method: str
    item: str
    seed: int
    image: str | None = None
    error: Fault | None = None
    measured: dict[str, Any] = field(default_factory=dict[str, Any])
    alone: bool = False

    def __post_init__(self) -> None:
        if (self.image is None) == (self.error is None):
            raise ConfigError("expected either the hash of an image or an error")

    @property
    def decided(self) -> dict[str, Any]:
        """All that the plan decides, as plain JSON types: the same in every run of it on one machine and process layout."""
        return {key: value for key, value in plain(self).items() if key != "measured"}


class RunFolder:
    """The folder of a run. Who only looks at it uses `open`, `plan`, `records`, `image_path`, `missing` and `failed`.

    `remedy`: what makes a lost or damaged file of it again, in words.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self._absent = False  # when it was begun
        self.remedy = f"`{shlex.join(['lsregen', 'evaluate', 'run', str(path / PLAN), '--out', str(path)])}` makes it again"

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder in which a run was begun.

        Raises:
            ConfigError: there is none.
        """
        if not is_file(path / PLAN):
            raise ConfigError(
                f"{shortened(path)}: no {PLAN} in it; expected the folder of a run (`lsregen evaluate run PLAN --out FOLDER`)"
            )
        return cls(path, Plan.read(path / PLAN))

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> RunFolder:
        """The folder for a run of this plan; what an interrupted run of it finished is kept. Nothing is made yet: see `make`.

        Raises:
            ConfigError: it holds the run of another plan, or something else, or cannot be one.
        """
        begun = cls(path, plan)
        if (place := look(path)).kind != "folder" and not place.free:
            raise ConfigError(f"folder {shortened(path)}: a run cannot be kept there ({place.said}); choose another folder")
        begun._absent = not begun.made
        if begun.made:
            if other := plan.differences(Plan.read(path / PLAN)):
                raise ConfigError(
                    f"folder {path}: it is the run of another plan, other in {', '.join(other)}; choose another folder"
                )
        elif is_there(path / IMAGES) or is_there(path / RECORDS):
            raise ConfigError(f"folder {path}: it has {IMAGES} or {RECORDS} and no {PLAN}; choose another folder")
        for method in plan.methods:  # one record of each: to read all of a million takes minutes
            any(begun.intact(number) is not None for number in begun._numbers(RECORDS, method))
        return begun

    @property
    def made(self) -> bool:
        """Whether the folder is there, with its plan."""
        return is_file(self.path / PLAN)

    def make(self) -> RunFolder:
        """Make the folder and its plan, if they are not there; returns itself.

        Raises:
            ConfigError: it cannot be written to.
        """
        if not self.made:
            self._in_place(lambda: self.plan.write(self.path / PLAN))
        return self

    def _in_place(self, make: Callable[[], None]) -> None:
        try:
            make()
        except OSError as error:
            raise ConfigError(
                f"folder {self.path}: a run cannot be kept there ({reason(error)}); choose another folder"
            ) from None

    def image_path(self, job: Job | int) -> Path:
        """Where the picture of a job is, once it is finished without an error."""
        return self._path(IMAGES, job)

    def record_path(self, job: Job | int) -> Path:
        """Where the record of a job is, once it is finished."""
        return self._path(RECORDS, job)

    def finished(self) -> set[int]:
        """The numbers of all jobs that have a record, and a picture unless the record tells of an error.

        Raises:
            ConfigError: a record without a picture is not of this plan.
        """
        recorded = self.recorded()
        pictured = self._all(IMAGES)  # listed after the records: pictures are written before them
        bare = {number: self.intact(number) for number in recorded - pictured}
        return recorded - {number for number, record in bare.items() if record is None or record.error is None}

    def recorded(self) -> set[int]:
        """The numbers of all jobs that have a record, whatever it is worth."""
        return self._all(RECORDS)

    def _all(self, kind: str) -> set[int]:
        return {number for method in self.plan.methods for number in self._numbers(kind, method)}

    def _numbers(self, kind: str, method: str) -> Iterator[int]:
        for folder in (self.path / kind / method).glob("*/"):
            for name in os.listdir(folder):  # ten times as fast as paths
                stem, _, ending = name.partition(".")
                if stem.isdecimal() and ending == ENDINGS[kind] and int(stem) < len(self.plan.jobs):
                    yield int(stem)

    def missing(self) -> list[int]:
        """The numbers of all jobs that are not finished, in order."""
        done = self.finished()
        return [number for number in range(len(self.plan.jobs)) if number not in done]

    def records(self) -> Iterator[Record]:
        """The records of all finished jobs, in the order of the jobs.

        Raises:
            DamagedRecord: a record is damaged.
            ConfigError: it is not of this plan.
        """
        for number in sorted(self.finished()):
            yield self.record(number)

    def record(self, number: int) -> Record:
        """The record of a job that has one. Raises as `records`."""
        path = self.record_path(number)

        def damaged(why: object) -> DamagedRecord:
            return DamagedRecord(f"{path}: {why}; {self.remedy}")

        try:
            found: object = read_json(path, "a record")
        except ConfigError as error:
            raise damaged(
                f"cannot be read ({str(error).removeprefix(f'{path}: ').removesuffix('; expected a record')})"
            ) from None
        values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        digest = values.pop("plan", None)
        if not isinstance(digest, str):
            raise damaged("not a record")
        if digest != self.plan.digest:
            raise ConfigError(
                f"{path}: a record of the plan {digest[:SHORT]}, and {self.path / PLAN} is the plan "
                f"{self.plan.digest[:SHORT]}; put that plan back, or run this one in another folder"
            )
        try:
            record = build(Record, values, "", "a record")
        except ConfigError as error:
            raise damaged(str(error).split("\n")[0]) from None
        if (record.job, record.method, record.item, record.seed) != (number, *self.plan.named(number)):
            raise damaged("the record of another job")
        return record

    def intact(self, number: int) -> Record | None:
        """As `record`; None if it is damaged."""
        try:
            return self.record(number)
        except DamagedRecord:
            return None

    def failed(self) -> list[Record]:
        """The records of all jobs that ended with an error, in the order of the jobs; damaged ones tell of none."""
        read = map(self.intact, sorted(self.finished()))
        return [record for record in read if record is not None and record.error is not None]

    @contextmanager
    def held(self) -> Generator[None]:
        """Make the folder if it is not there, and keep others from writing to it. The system ends this with the process.

        Raises:
            ConfigError: another process is writing to it, or has made it of another plan, or it cannot be written to.
        """
        self._in_place(lambda: make_folder(self.path))
        with locked(self.path / LOCK, f"folder {self.path}: another run is at work in it; wait for it, or end it first"):
            if self._absent and self.made:  # by another run, since
                RunFolder.begin(self.path, self.plan)
            self.make()
            yield

    def keep(self, record: Record, image: bytes | None) -> None:
        """Write the record of a job, and its picture before it as a PNG file; both are on disk when this returns.

        The same call replaces the record of an error, and what was lost or damaged; nothing else is ever kept twice.

        Raises:
            ConfigError: they cannot be written; all that was finished before stays.
        """
        try:
            if image is not None:
                write_whole(self.image_path(record.job), [image])
            values = {"plan": self.plan.digest, **plain(record)}
            text = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
            write_whole(self.record_path(record.job), [text.encode("utf-8", "replace")])  # an error may say half a character
        except OSError as error:
            raise ConfigError(
                f"folder {self.path}: job {record.job} cannot be written ({reason(error)}); what was finished before is kept: "
                "mend this, and the same command goes on from there"
            ) from None

    def _path(self, kind: str, job: Job | int) -> Path:
        number = job if isinstance(job, int) else job.number
        method = self.plan.named(number)[0] if isinstance(job, int) else job.method
        return self.path / kind / method / f"{number // PER_FOLDER:03}" / f"{number:06}.{ENDINGS[kind]}"
