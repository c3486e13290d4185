"""One call of `lsregen generate`: what was asked for, the images made one batch after another, and what is kept of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from .checks import memory_errors
from .drawing import draw_attention, draw_layout
from .interrupts import unbroken
from .metadata import Metadata, encode_png
from .output import FORMAT, is_own, keep_aside, read_own, write_file, write_json
from .shots import Shot

if TYPE_CHECKING:
    from ..framework.pipeline import Pipeline
    from ..framework.report import Report, Result
    from ..framework.types import StepReport
    from .initial import Initial

OnStep = Callable[["StepReport"], None]
OnImage = Callable[["Made"], None]


@dataclass(frozen=True)
class Files:
    """The files of one image; None for a picture that is not there: no boxes, no phrases or trace, no render."""

    image: Path
    layout: Path | None
    attention: Path | None
    source: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.image, self.layout, self.attention, self.source) if path is not None)


@dataclass(frozen=True)
class Job:
    """What to make, and where to put it; every value checked as far as that goes without a model.

    `guidance`: the preset or file as a mapping, and `guidance_name` how the user calls it. `options`: what overrides it, as
    arguments of a `Pipeline`. `model`: None for the default one. `batch`: how many images are made at once. `renders`: whether
    another model makes a picture first. `pulled`: whether any term pulls.
    """

    shots: tuple[Shot, ...]
    guidance: Mapping[str, Any]
    guidance_name: str
    options: Mapping[str, Any]
    model: str | None
    steps: int
    batch: int
    folder: Path
    trace: int
    with_metadata: bool
    initial: Initial | None = None
    renders: bool = False
    pulled: bool = False

    @property
    def kept(self) -> tuple[Shot, ...]:
        """The images that are written."""
        return tuple(shot for shot in self.shots if shot.kept)

    @property
    def batches(self) -> list[tuple[Shot, ...]]:
        """What is made at once, in order: images of one size."""
        runs = [tuple(run) for _, run in groupby(self.shots, key=lambda shot: shot.size)]
        return [run[i : i + self.batch] for run in runs for i in range(0, len(run), self.batch)]

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def stale(self, shot: Shot) -> tuple[Path, ...]:
        """Pictures about an image of that name that this job does not make: an earlier one's would be taken for its own."""
        every = tuple(self.folder / f"{shot.stem}{ending}.png" for ending in ("-layout", "-attention", "-source"))
        return tuple(path for path in every if path not in self.files(shot).all and os.path.lexists(path) and is_own(path))

    def files(self, shot: Shot) -> Files:
        traced = self.trace > 0 and bool(shot.layout.phrases)
        return Files(
            self.folder / f"{shot.stem}.png",
            self.folder / f"{shot.stem}-layout.png" if shot.layout.boxed else None,
            self.folder / f"{shot.stem}-attention.png" if traced else None,
            self.folder / f"{shot.stem}-source.png" if self.renders else None,
        )


@dataclass(frozen=True)
class Made:
    """A finished image: its files, its share of the report, and the seconds it took (a batch's are shared equally)."""

    files: Files
    metadata: Metadata
    energies: tuple[dict[str, Any], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        layout, attention, source = self.files.layout, self.files.attention, self.files.source
        return {
            "seed": self.metadata.seed,
            "path": self.files.image.name,
            "layout_path": layout.name if layout else None,
            "attention_path": attention.name if attention else None,
            **({"source_path": source.name} if source else {}),
            "batch_seeds": [sample.seed for sample in self.metadata.batch],
            "index": self.metadata.index,
            "seconds": round(self.seconds, 4),
            "energies": list(self.energies),
        }


@dataclass
class Work:
    """A job being done: what is finished so far, and the seconds spent, by phase and in total, from `begun` on.

    `removed`: how many pictures about earlier images would have been taken for this run's. `reported`: whether the report is
    written. `aside`: where the report of an earlier run was kept, if it had to be.
    """

    job: Job
    begun: float = field(default_factory=time.perf_counter)
    made: list[Made] = field(default_factory=list[Made])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    guided_passes: int = 0
    skipped_updates: int = 0
    removed: int = 0
    interrupted: bool = False
    reported: bool = False
    aside: Path | None = None

    @contextmanager
    def timed(self, phase: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def run(self, pipeline: Pipeline, on_step: OnStep, on_image: OnImage) -> None:
        """Make and keep every image. What is finished stays, with a report of it, however this ends.

        An interrupt (Ctrl-C) ends it early and is noted; any other error goes on to the caller. `on_image` is told of each image
        once it is kept.
        """
        try:
            for shots in self.job.batches:
                self._batch(pipeline, shots, on_step, on_image)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self.seconds["total"] = time.perf_counter() - self.begun
            if self.made:
                with unbroken():
                    self._write_report()

    def _batch(self, pipeline: Pipeline, shots: tuple[Shot, ...], on_step: OnStep, on_image: OnImage) -> None:
        job, size = self.job, shots[0].size
        several = f"for {len(shots)} images at once", "lower --batch or --size, or use --dtype fp16"
        doing, cure = several if len(shots) > 1 else ("for an image", "lower --size, or use --dtype fp16")
        with memory_errors(doing, cure):
            result = pipeline(
                [shot.prompt for shot in shots],
                layout=[shot.layout for shot in shots],
                negative=[shot.negative for shot in shots],
                guidance=job.guidance,
                seed=[shot.seed for shot in shots],
                size=size,
                on_step=on_step,
                trace=job.trace,
                **({} if job.initial is None else job.initial.arguments),
                **job.options,
            )
        for phase, seconds in result.report.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.guided_passes += result.report.guided_passes
        self.skipped_updates += result.report.skipped_updates
        for index, shot in enumerate(shots):
            if shot.kept:
                with self.timed("write"), unbroken():  # an image that is there and not noted would be in no report
                    self._keep(result, index, shot)
                on_image(self.made[-1])

    def _write_report(self) -> None:
        """Write the report of this run; an earlier one is kept aside, unless all of its images were made again."""
        path = self.job.report
        if os.path.lexists(path) and not self._supersedes(read_own(path)):
            self.aside = keep_aside(path)
        write_json(path, self.report())
        self.reported = True

    def _supersedes(self, earlier: Mapping[str, Any] | None) -> bool:
        """Whether an earlier report speaks of no image that is not in this one too."""
        images: object = None if earlier is None else earlier.get("images")
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in cast("list[object]", images)):
            return False  # changed by hand, or not a report
        paths = {str(image.get("path")) for image in cast("list[dict[str, Any]]", images)}
        return paths <= {made.files.image.name for made in self.made}

    def _keep(self, result: Result, index: int, shot: Shot) -> None:
        """Write the files of one image, the image last: where there is an image, the pictures about it are there too."""
        report, image = result.report, result.images[index]
        metadata, files = Metadata.of(report, index), self.job.files(shot)
        if files.attention is not None and result.attention:
            maps = {step: maps[index].float().numpy() for step, maps in result.attention.items()}
            picture = draw_attention(maps, metadata.layout, metadata.size, self.job.steps)
            write_file(files.attention, encode_png(picture))
        if files.source is not None and result.renders:
            write_file(files.source, encode_png(result.renders[0][index]))
        if files.layout is not None:
            write_file(files.layout, encode_png(draw_layout(image, metadata.layout)))
        write_file(files.image, encode_png(image, metadata if self.job.with_metadata else None))
        for path in self.job.stale(shot):
            path.unlink(missing_ok=True)
            self.removed += 1
        seconds = sum(report.seconds.values()) / len(report.seeds)
        self.made.append(Made(files, metadata, _energies(report, index), seconds))

    def energies(self) -> dict[str, tuple[float, ...]]:
        """Of each term, its energy when it was first evaluated and when it was last, if it was again: the mean of all images."""
        every_of: dict[str, list[list[float]]] = {}
        for made in self.made:
            values: dict[str, list[float]] = {}
            for entry in made.energies:
                if entry["energy"] is not None:
                    values.setdefault(entry["term"], []).append(entry["energy"])
            for term, found in values.items():
                every_of.setdefault(term, []).append(found)
        places = {term: (0,) if all(len(found) == 1 for found in every) else (0, -1) for term, every in every_of.items()}
        return {term: tuple(fmean(found[i] for found in every) for i in places[term]) for term, every in every_of.items()}

    def report(self) -> dict[str, Any]:
        """All finished images, as plain JSON types; there must be one. What they have in common is said once."""
        every = [_described(made.metadata, self.made[0].metadata.seed) for made in self.made]
        shared = {key: value for key, value in every[0].items() if all(other[key] == value for other in every)}
        own = [{key: value for key, value in each.items() if key not in shared} for each in every]
        return {
            "format": FORMAT,
            **shared,
            "guidance": self.job.guidance_name,
            "folder": str(self.job.folder),
            "seeds": [made.metadata.seed for made in self.made],
            "requested": len(self.job.kept),
            "interrupted": self.interrupted,
            "guided_passes": self.guided_passes,
            "skipped_updates": self.skipped_updates,
            "seconds": {phase: round(seconds, 4) for phase, seconds in self.seconds.items()},
            "images": [{**made.to_json(), **differing} for made, differing in zip(self.made, own, strict=True)],
        }


def _described(metadata: Metadata, first: int) -> dict[str, Any]:
    """A picture's settings besides its seed and batch. `first`: the seed of the run's first picture, for the configuration."""
    found = {key: value for key, value in metadata.to_json().items() if key not in ("version", "seed", "batch", "index")}
    return {**found, "config": {**found["config"], "seed": first}}


def _energies(report: Report, index: int) -> tuple[dict[str, Any], ...]:
    """One image's share of the log: every evaluation of every term, in order; None for an energy that was not measured."""
    return tuple(
        {
            "step": entry.step,
            "term": entry.term,
            "energy": entry.energy[index] if math.isfinite(entry.energy[index]) else None,
            "updated": entry.updated[index],
            "strength": entry.strength,
        }
        for entry in report.energies
    )
