"""A job being done: the images made one batch after another, and what is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from ...framework.errors import CheckpointError, ConfigError, LsregenError, PluginError
from ...framework.files import is_file, is_folder
from ...framework.pipeline.events import Event, Finished
from ..checks import memory_errors
from ..interrupts import unbroken
from ..output import FORMAT, OutputError, write_file
from .drawing import draw_attention, draw_layout
from .job import Failure, Job, Made
from .metadata import Metadata, encode_png
from .run_report import Entries, ReportFile, paths_of

if TYPE_CHECKING:
    from PIL import Image

    from ...framework.pipeline.pipeline import Pipeline
    from ...framework.pipeline.report import Report, Result
    from .request import Shot

FATAL = (ConfigError, CheckpointError, OutputError, OSError)
"""Errors that the next images would meet too: settings, weights, disks, memory. Others are of one image, and the rest goes on."""


class Listener(Protocol):
    """Is told of everything that happens in a run, of each image once it is kept, and of each that could not be made."""

    def event(self, event: Event) -> None: ...

    def image(self, made: Made) -> None: ...

    def failure(self, failure: Failure) -> None: ...


@dataclass
class Work:
    """A job being done: what is finished and what failed so far, and the seconds spent, by phase and in total, from `begun` on.

    `made` and `failed` are in no order. `removed`: how many pictures about earlier images would have been taken for this run's.
    """

    job: Job
    report: ReportFile
    begun: float = field(default_factory=time.perf_counter)
    made: list[Made] = field(default_factory=list[Made])
    failed: list[Failure] = field(default_factory=list[Failure])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    guided_passes: int = 0
    skipped_updates: int = 0
    removed: int = 0
    interrupted: bool = False
    _entries: Entries = field(default_factory=Entries)
    _before: float = 0.0

    def __post_init__(self) -> None:
        self._places = {shot.stem: place for place, shot in enumerate(self.job.kept)}

    @property
    def took(self) -> float:
        """The seconds since this command began."""
        return time.perf_counter() - self.begun

    @property
    def reported(self) -> bool:
        """Whether the report on the disk holds every finished image."""
        return self.report.recorded >= len(self.made) or self.unchanged

    @property
    def pending(self) -> list[tuple[Shot, ...]]:
        """What is still to be made at once; all of a batch, if it is one of which an image is made again."""
        done = {made.files.image.stem for made in self.made}
        left = [tuple(shot for shot in shots if shot.stem not in done or self.job.remade) for shots in self.job.batches]
        return [shots for shots in left if any(shot.kept and shot.stem not in done for shot in shots)]

    @property
    def there(self) -> int:
        """How many of the finished images are still there; somebody may have removed the folder meanwhile."""
        return sum(is_file(made.files.image) for made in self.made)

    def resume(self, finished: Sequence[Made]) -> None:
        """Take over images that are finished; and, if the last report speaks of nothing else, the time that they took."""
        for made in finished:
            self._note(made)
        earlier, names = self.report.earlier, {made.files.image.name for made in finished}
        if earlier is not None and finished and set(paths_of(earlier)) <= names:
            for phase, value in earlier.get("seconds", {}).items():
                self.seconds[phase] = self.seconds.get(phase, 0.0) + value
            self._before = self.seconds.pop("total", 0.0)
            self.guided_passes, self.skipped_updates = (_whole(earlier, key) for key in ("guided_passes", "skipped_updates"))

    def run(self, pipeline: Pipeline, listener: Listener) -> None:
        """Make and keep every image that is not finished. What is finished stays, with a report of it, however this ends.

        An interrupt (Ctrl-C) ends it early and is noted. An error of one image is noted, and the rest goes on; any other error
        goes on to the caller.
        """
        try:
            for shots in self.pending:
                self._batch(pipeline, shots, listener)
        except KeyboardInterrupt:
            self.interrupted = True
        except BaseException:
            with suppress(OutputError):  # the first error is the one to tell
                self._write()
            raise
        self._write()

    def _batch(self, pipeline: Pipeline, shots: tuple[Shot, ...], listener: Listener) -> None:
        said = ""
        try:
            result = self._result(pipeline, shots, listener)
        except FATAL:
            raise
        except Exception as error:  # a value that is not finite, or whatever a plugin raises
            if len(self.job.kept) == 1:
                raise
            result, said = None, str(error) if isinstance(error, LsregenError) else f"{type(error).__name__}: {error}"
        # Here the error is gone, and with its traceback all that the batch had computed.
        if result is not None:
            self._keep_all(result, shots, listener)
            return
        first, *others = shots
        if others:  # each alone: one of them may be the only one at fault
            for shot in shots:
                self._batch(pipeline, (shot,), listener)
        else:
            self.failed.append(Failure(first, self.job.files(first).image, said))
            listener.failure(self.failed[-1])

    def _keep_all(self, result: Result, shots: tuple[Shot, ...], listener: Listener) -> None:
        for phase, seconds in result.report.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.guided_passes += result.report.guided_passes
        self.skipped_updates += result.report.skipped_updates
        for index, shot in enumerate(shots):
            if shot.kept:
                with unbroken():  # an image that is there and not noted would be in no report
                    self._keep(result, index, shot)
                listener.image(self.made[-1])

    def _result(self, pipeline: Pipeline, shots: tuple[Shot, ...], listener: Listener) -> Result:
        job = self.job
        several = f"for {len(shots)} images at once", "lower --batch or --size, or use --dtype fp16"
        doing, cure = several if len(shots) > 1 else ("for an image", "lower --size, or use --dtype fp16")
        try:
            with memory_errors(doing, cure):
                request = pipeline.request(
                    [shot.prompt for shot in shots],
                    layout=[shot.layout for shot in shots],
                    negative=[shot.negative for shot in shots],
                    guidance=job.config,
                    seed=[shot.seed for shot in shots],
                    size=next(iter(shots)).size,
                    trace=job.trace,
                    **({} if job.initial is None else job.initial.arguments),
                )
                with closing(pipeline.stream(request)) as events:
                    return _heard(events, listener)
        except SystemExit as error:  # lsregen never does
            raise PluginError(f"a plugin called sys.exit({error.code!r}), and no image was made; uninstall it") from error

    def _write(self, *, final: bool = True) -> None:
        """Write the report; not if there is nothing to say, or if it says all of it already."""
        self.seconds["total"] = self._before + self.took
        if not self.made or not is_folder(self.job.folder) or self.unchanged:
            return
        with unbroken():
            self.report.write(self._head(final), self._entries)

    @property
    def unchanged(self) -> bool:
        """Whether an earlier report says all there is to say: everything was finished."""
        earlier = self.report.earlier
        if earlier is None or self.report.written or self.failed or not all(made.earlier for made in self.made):
            return False
        asked = (len(self.job.kept), False)
        return earlier["images"] == self._entries.all and (earlier.get("requested"), earlier.get("interrupted")) == asked

    def _keep(self, result: Result, index: int, shot: Shot) -> None:
        """Write the files of one image, the image last: if it is there, so are its entry and the pictures about it."""
        begun, report, image = time.perf_counter(), result.report, result.images[index]
        metadata, files = Metadata.of(report, index), self.job.files(shot)
        if not is_folder(self.job.folder):
            raise OutputError(f"{self.job.folder}: the folder is no longer there, with the images that were finished")
        data = encode_png(image, metadata if self.job.with_metadata else None)
        digest = sha256(data).hexdigest()
        pictures = {
            files.attention: files.attention and _attention(result, index, metadata, self.job.config.steps),
            files.source: result.renders[0][index] if result.renders else None,
            files.layout: files.layout and draw_layout(image, metadata.layout),
        }
        for path, picture in pictures.items():
            if path is not None and picture is not None:
                write_file(path, encode_png(picture, about=self.job.about(digest)))
        there = files.only([path for path, picture in pictures.items() if picture is not None])
        seconds = sum(report.seconds.values()) / len(report.seeds)
        made = Made(there, metadata.settings(), report.seeds, index, _energies(report, index), seconds, digest)
        self._note(made)
        try:
            if self.report.due:  # before the image: unless the report is `LARGE`, no image is there without its entry
                with suppress(OutputError):  # the last time tells whether it can be written
                    self._write(final=False)
            write_file(files.image, data)
        except BaseException:
            self._entries.remove(self._place(made))
            self.made.remove(made)
            raise
        for path in self.job.stale(shot):
            path.unlink(missing_ok=True)
            self.removed += 1
        self.seconds["write"] = self.seconds.get("write", 0.0) + time.perf_counter() - begun

    def _note(self, made: Made) -> None:
        self.made.append(made)
        settings = {key: value for key, value in made.settings.items() if key != "seed"}
        settings["config"] = {key: value for key, value in settings["config"].items() if key != "seed"}
        self._entries.add(self._place(made), made.to_json(), settings)

    def _place(self, made: Made) -> int:
        return self._places[made.files.image.stem]

    def energies(self) -> dict[str, tuple[tuple[float, ...], int]]:
        """Of each term, the mean of its first energies and, if there were more, of its last; and of how many images."""
        every_of: dict[str, list[list[float]]] = {}
        for made in self.made:
            values: dict[str, list[float]] = {}
            for entry in made.energies:
                if entry["energy"] is not None:
                    values.setdefault(entry["term"], []).append(entry["energy"])
            for term, found in values.items():
                every_of.setdefault(term, []).append(found)
        places = {term: (0,) if all(len(found) == 1 for found in every) else (0, -1) for term, every in every_of.items()}
        return {
            term: (tuple(fmean(found[i] for found in every) for i in places[term]), len(every))
            for term, every in every_of.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; there must be an image."""
        if self.unchanged and self.report.earlier is not None:
            return dict(self.report.earlier)
        return {**self._head(final=True), "images": self._entries.all}

    def _head(self, final: bool) -> dict[str, Any]:
        """The report without its images. Until it is final it says that the run was interrupted, for that may be."""
        shared = dict(self._entries.shared or {})
        seeds = [entry["seed"] for entry in self._entries.all]
        if "config" in shared:
            shared["config"] = {**shared["config"], "seed": seeds[0]}
        return {
            "format": FORMAT,
            **shared,
            "guidance": self.job.guidance_name,
            "folder": str(self.job.folder),
            "seeds": seeds,
            "requested": len(self.job.kept),
            "interrupted": self.interrupted or not final,
            "failed": [failure.to_json() for failure in self.failed],
            "guided_passes": self.guided_passes,
            "skipped_updates": self.skipped_updates,
            "seconds": {phase: round(seconds, 4) for phase, seconds in self.seconds.items()},
        }


def _heard(events: Iterable[Event], listener: Listener) -> Result:
    """Listen to a run to its end."""
    for event in events:
        listener.event(event)
        if isinstance(event, Finished):
            return event.result
    raise PluginError("the run ended before its first image was there")  # nobody has cancelled it


def _whole(report: Mapping[str, Any], key: str) -> int:
    return value if isinstance(value := report.get(key), int) else 0


def _attention(result: Result, index: int, metadata: Metadata, steps: int) -> Image.Image | None:
    maps = {step: maps[index].float().numpy() for step, maps in result.attention.items()}
    return draw_attention(maps, metadata.layout, metadata.size, steps) if maps else None


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
