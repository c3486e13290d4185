"""One call of `lsregen generate`: what was asked for, the images made one batch after another, and what is kept of them."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from ..framework.layout import Layout
from .checks import memory_errors
from .drawing import draw_attention, draw_layout
from .metadata import Metadata, encode_png
from .output import FORMAT, keep_aside, read_own, write_file

if TYPE_CHECKING:
    from ..framework.pipeline import Pipeline
    from ..framework.report import Report, Result
    from ..framework.types import StepReport

OnStep = Callable[["StepReport"], None]
OnImage = Callable[["Made"], None]


@dataclass(frozen=True)
class Files:
    """The files of one image; None for a picture that is not drawn: no boxes, no phrases or no trace."""

    image: Path
    layout: Path | None
    attention: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.image, self.layout, self.attention) if path is not None)


@dataclass(frozen=True)
class Job:
    """What to make, and where to put it; every value checked as far as that goes without a model.

    `guidance`: the preset or file as a mapping, and `guidance_name` how the user calls it. `options`: what overrides it, as
    arguments of a `Pipeline`. `model`: None for the default one. `seeds`: one per image. `batch`: how many of them at once.
    """

    prompt: str
    negative: str
    layout: Layout
    guidance: Mapping[str, Any]
    guidance_name: str
    options: Mapping[str, Any]
    model: str | None
    steps: int
    seeds: tuple[int, ...]
    batch: int
    size: tuple[int, int] | None
    folder: Path
    name: str
    trace: int
    with_metadata: bool

    @property
    def batches(self) -> list[tuple[int, ...]]:
        return [self.seeds[i : i + self.batch] for i in range(0, len(self.seeds), self.batch)]

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def files(self, seed: int) -> Files:
        stem = f"{self.name}-{seed}"
        boxed = any(region.box is not None for region in self.layout.regions)
        traced = self.trace > 0 and bool(self.layout.phrases)
        return Files(
            self.folder / f"{stem}.png",
            self.folder / f"{stem}-layout.png" if boxed else None,
            self.folder / f"{stem}-attention.png" if traced else None,
        )


@dataclass(frozen=True)
class Made:
    """A finished image: its files, its share of the report, and the seconds it took (a batch's are shared equally)."""

    seed: int
    files: Files
    metadata: Metadata
    energies: tuple[dict[str, Any], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        layout, attention = self.files.layout, self.files.attention
        return {
            "seed": self.seed,
            "path": self.files.image.name,
            "layout": layout.name if layout else None,
            "attention": attention.name if attention else None,
            "batch_seeds": list(self.metadata.batch_seeds),
            "index": self.metadata.index,
            "seconds": round(self.seconds, 4),
            "energies": list(self.energies),
        }


@dataclass
class Work:
    """A job being done: what is finished so far, and the seconds spent, by phase and in total, from `begun` on.

    `reported`: whether the report is written. `aside`: where the report of an earlier run was kept, if it had to be.
    """

    job: Job
    begun: float = field(default_factory=time.perf_counter)
    made: list[Made] = field(default_factory=list[Made])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    guided_passes: int = 0
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
            for seeds in self.job.batches:
                self._batch(pipeline, seeds, on_step, on_image)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self.seconds["total"] = time.perf_counter() - self.begun
            if self.made:
                with unbroken():
                    self._write_report()

    def _batch(self, pipeline: Pipeline, seeds: tuple[int, ...], on_step: OnStep, on_image: OnImage) -> None:
        job = self.job
        several = f"for {len(seeds)} images at once", "lower --batch or --size, or use --dtype fp16"
        doing, cure = several if len(seeds) > 1 else ("for an image", "lower --size, or use --dtype fp16")
        with memory_errors(doing, cure):
            result = pipeline(
                [job.prompt] * len(seeds),
                layout=job.layout,
                negative=job.negative,
                guidance=job.guidance,
                seed=seeds,
                size=job.size,
                on_step=on_step,
                trace=job.trace,
                **job.options,
            )
        for phase, seconds in result.report.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.guided_passes += result.report.guided_passes
        for index in range(len(seeds)):
            with self.timed("write"), unbroken():  # an image that is there and not noted would be in no report
                self._keep(result, index)
            on_image(self.made[-1])

    def _write_report(self) -> None:
        """Write the report of this run; an earlier one is kept aside, unless all of its images were made again."""
        path = self.job.report
        if os.path.lexists(path) and not self._supersedes(read_own(path)):
            self.aside = keep_aside(path)
        write_file(path, (json.dumps(self.report(), indent=2) + "\n").encode())
        self.reported = True

    def _supersedes(self, earlier: Mapping[str, Any] | None) -> bool:
        """Whether an earlier report speaks of no image that is not in this one too."""
        images: object = None if earlier is None else earlier.get("images")
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in cast("list[object]", images)):
            return False  # changed by hand, or not a report
        paths = {str(image.get("path")) for image in cast("list[dict[str, Any]]", images)}
        return paths <= {made.files.image.name for made in self.made}

    def _keep(self, result: Result, index: int) -> None:
        """Write the files of one image, the image last: where there is an image, the pictures about it are there too."""
        report, image = result.report, result.images[index]
        metadata, files = Metadata.of(report, index), self.job.files(report.seeds[index])
        if files.attention is not None and result.attention:
            maps = {step: maps[index].float().numpy() for step, maps in result.attention.items()}
            picture = draw_attention(maps, metadata.layout, metadata.size, self.job.steps)
            write_file(files.attention, encode_png(picture))
        if files.layout is not None:
            write_file(files.layout, encode_png(draw_layout(image, metadata.layout)))
        write_file(files.image, encode_png(image, metadata if self.job.with_metadata else None))
        seconds = sum(report.seconds.values()) / len(report.seeds)
        self.made.append(Made(metadata.seed, files, metadata, _energies(report, index), seconds))

    def energies(self) -> dict[str, tuple[float, float]]:
        """Of each term, its energy when it was first evaluated and when it was last: the mean of all images."""
        ends: dict[str, list[tuple[float, float]]] = {}
        for made in self.made:
            values: dict[str, list[float]] = {}
            for entry in made.energies:
                if entry["energy"] is not None:
                    values.setdefault(entry["term"], []).append(entry["energy"])
            for term, found in values.items():
                ends.setdefault(term, []).append((found[0], found[-1]))
        return {term: (fmean(first for first, _ in pairs), fmean(last for _, last in pairs)) for term, pairs in ends.items()}

    def report(self) -> dict[str, Any]:
        """All finished images, as plain JSON types; there must be one."""
        shared = self.made[0].metadata.to_json()
        own = ("version", "seed", "batch_seeds", "index")
        return {
            "format": FORMAT,
            **{key: value for key, value in shared.items() if key not in own},
            "guidance": self.job.guidance_name,
            "folder": str(self.job.folder),
            "seeds": [made.seed for made in self.made],
            "requested": len(self.job.seeds),
            "interrupted": self.interrupted,
            "guided_passes": self.guided_passes,
            "seconds": {phase: round(seconds, 4) for phase, seconds in self.seconds.items()},
            "images": [made.to_json() for made in self.made],
        }


def _energies(report: Report, index: int) -> tuple[dict[str, Any], ...]:
    """One image's share of the log: every evaluation of every term, in order; None for an energy that is not finite."""
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


@contextmanager
def unbroken() -> Generator[None]:
    """Hold Ctrl-C back until the block is done, and let it act then."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # only the main thread is interrupted, and may change what an interrupt does
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        handler(pressed[0], None)
