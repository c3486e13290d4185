"""What only a machine with a card can show, in a run of a few minutes: does each preset work there and come out as on the CPU, is
a batch the same as its images alone, and how do steps compare with those of diffusers, in time and in memory.

Every part stands on its own: what one raises is written down and the rest goes on; the file is written after each, and
`--resume` makes what is missing in it.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import excite, image, parity, step
from benchmarks.clock import alternating
from benchmarks.records import Record, Row, device_name, print_rows
from benchmarks.reference import STRENGTH, Reference
from benchmarks.subjects import Subject, one_run, plugins, with_random_weights
from lsregen.evaluation.runs.worker import answers
from lsregen.framework import ConfigError, Pipeline, drained, presets
from lsregen.framework.config.presets import load_preset
from lsregen.models.runtime.devices import resolve

DTYPES = ("fp32", "fp16", "bf16")
BASE = "shapeworld-base"
TF32 = "fp32 with TF32 convolutions"
IN_BATCHES = {"fp32": (None, "layout-guidance", "attend-and-excite"), "fp16": ("layout-guidance",)}
REST = "the time was up"
GRADIENT = 1e-4  # relative, in fp32
LARGE = 2.0**16  # of a strength, so that the latent that the gradient is subtracted from costs it no digits


@dataclass(frozen=True)
class Part:
    """A piece of the run. `seconds`: about, where none of its `kind` has been made before."""

    name: str
    kind: str
    seconds: float
    make: Callable[[], list[Row]]


@dataclass(frozen=True)
class Size:
    """How much is run: all of it on a card, and little of it where the code is tried.

    `narrow`: whether the networks of the published families are; `batch`: images in a large batch; `steps`: of a preset's run,
    `image_steps`: of an image of a published family.
    """

    presets: tuple[str, ...]
    dtypes: tuple[str, ...] = DTYPES
    narrow: bool = False
    steps: int = parity.STEPS
    image_steps: int = image.STEPS
    batch: int = 8
    repeats: int = 5

    def subject(self, family: str, dtype: torch.dtype) -> Subject:
        side = 128 if self.narrow else {"SD 1.5": 512, "SDXL": 1024}[family]
        return Subject(family, (side, side), dtype, self.narrow)


class Parts:
    """All parts of a run on one device, the most wanted first."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size = device, size
        self.half = torch.float32 if device.type == "cpu" else torch.float16  # what steps are timed in

    def __iter__(self) -> Iterator[Part]:
        yield from self._presets("fp32")
        yield from self._full("SD 1.5", 15)
        yield from (
            Part(f"Attend-and-Excite, batch {count}", "excite", 15, partial(self._excite, count)) for count in self._batches
        )
        yield from self._presets("fp16")
        for dtype, names in IN_BATCHES.items():
            chosen = [name for name in names if name is None or name in self.size.presets]
            for name in chosen if dtype in self.size.dtypes else ():
                yield Part(f"batch, {name or 'plain'}, {dtype}", f"batch, {dtype}", 20, partial(self._batch, name, dtype))
        yield from self._full("SDXL", 60)
        yield from self._presets("bf16")
        yield Part("TF32", "TF32", 5, self._tf32)
        yield Part("images", "images", 80, self._images)

    @property
    def _batches(self) -> tuple[int, ...]:
        return (1, self.size.batch)

    def _presets(self, dtype: str) -> Iterator[Part]:
        for name in self.size.presets if dtype in self.size.dtypes else ():
            yield Part(f"{name}, {dtype}", f"preset, {dtype}", 10, partial(self._preset, name, dtype))

    def _full(self, family: str, seconds: float) -> Iterator[Part]:
        yield Part(f"{family}, gradient", f"{family}, gradient", seconds, partial(self._gradient, family))
        yield Part(f"{family}, steps", f"{family}, steps", seconds, partial(self._steps, family))

    # ---- presets, on the models that ship ----

    def _preset(self, name: str, dtype: str) -> list[Row]:
        here = parity.walk(_loaded(_model_of(name), str(self.device), dtype), name, steps=self.size.steps)
        return self._known(name).rows(f"Presets in {dtype} against fp32 on the CPU", name, here, dtype)

    @cached_property
    def _known(self) -> Callable[[str], parity.Known]:
        return cache(lambda name: parity.Known.of(_loaded(_model_of(name), "cpu", "fp32"), name, self.size.steps))

    def _tf32(self) -> list[Row]:
        """What PyTorch's default costs: convolutions of fp32 numbers in TF32."""
        name = "layout-guidance"
        with convolutions("tf32"):
            here = parity.walk(_loaded(BASE, str(self.device), "fp32"), name, steps=self.size.steps)
        rows = self._known(name).rows(f"{TF32}, as is PyTorch's default", name, here, "fp32")
        return [replace(row, goal=None) for row in rows]

    def _batch(self, name: str | None, dtype: str) -> list[Row]:
        subject = f"A batch of {self.size.batch} beside its images alone, {dtype}"
        pipeline = _loaded(BASE, str(self.device), dtype)
        return parity.batch_and_singles(subject, pipeline, name, self.size.batch, self.size.steps, dtype)

    # ---- published families, with random weights ----

    def _gradient(self, family: str) -> list[Row]:
        """Our gradient and our noise against diffusers', in fp32."""
        subject = self.size.subject(family, torch.float32)
        model = with_random_weights(subject, self.device)
        theirs = Reference.with_weights_of(subject, model)
        sets = ("guidance.layout.repeats=1", f"guidance.layout.gamma={LARGE}")
        run, terms = one_run(model, "layout-guidance", sets=sets)
        pull, first = drained(terms.start(run)), run.steps[0]
        with torch.no_grad():
            ours = (run.z_T - drained(pull.before(run.z_T, first))) / pull.log[0].strength * STRENGTH
            noise = drained(pull.predict(run.z_T, first)).eps
        gradient = excite.relative(ours, theirs.gradient(run.z_T, first.t))
        theirs.store.maps.clear()
        rows = [
            Row(str(subject), "gradient of layout-guidance against diffusers, relative", gradient, goal=GRADIENT),
            Row(
                str(subject),
                "guided noise against diffusers, relative",
                excite.relative(noise, theirs.predict(run.z_T, first.t)),
                goal=GRADIENT,
            ),
        ]
        return rows + (excite.apart(subject, self.device) if family == "SD 1.5" else [])

    def _steps(self, family: str) -> list[Row]:
        subject = self.size.subject(family, self.half)
        timings = alternating(step.pieces(subject, self.device), self.size.repeats, self.device)
        return [*step.rows(subject, timings), *excite.memory(str(subject), timings)]

    def _excite(self, count: int) -> list[Row]:
        return excite.rows(self.size.subject("SD 1.5", self.half), self.device, count, self.size.repeats)

    def _images(self) -> list[Row]:
        subject = self.size.subject("SD 1.5", self.half)
        pipeline = Pipeline(with_random_weights(subject, self.device), plugins())
        rows = image.by_batch(pipeline, [self.size.batch], 1, self.size.image_steps)
        return [*rows, *image.against_diffusers(subject, pipeline, rows[-1], 1, self.size.image_steps)]


@contextmanager
def convolutions(precision: str) -> Iterator[None]:
    """Within it, convolutions of fp32 numbers on a card are computed in `ieee` or in `tf32`."""
    settings: Any = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(settings, "fp32_precision"):
        name, value = "fp32_precision", precision
    else:  # before PyTorch 2.9
        settings, name, value = torch.backends.cudnn, "allow_tf32", precision == "tf32"
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)


def _model_of(preset: str) -> str:
    return load_preset(preset).get("model") or BASE


@cache
def _loaded(model: str, device: str, dtype: str) -> Pipeline:
    return Pipeline.load(model, device=device, dtype=dtype, plugins=plugins())


# ---- the run ----


class Broken(Exception):
    """An error broke the device: nothing more can be computed on it by this process."""


@dataclass
class Session:
    """Makes parts until the time is up, and writes the file after each."""

    record: Record
    path: Path | None
    until: float  # of `time.monotonic`
    device: torch.device
    longest: dict[str, float] = field(default_factory=dict[str, float])

    def make(self, parts: Sequence[Part]) -> None:
        """Make the parts that the record does not speak of yet. Raises Broken."""
        done = {*self.record.seconds, *self._tried}
        for part in parts:
            if part.name not in done:
                self._make(part)
        self.write()

    @property
    def _tried(self) -> set[str]:
        return {name for name, why in self.record.unfinished.items() if why != REST}

    def _make(self, part: Part) -> None:
        if time.monotonic() + self.longest.get(part.kind, part.seconds) > self.until:
            return self._unfinished(part, REST)
        self._unfinished(part, "it did not come to its end")  # unless it does
        start = time.monotonic()
        try:
            rows = part.make()
        except Exception as error:  # whatever it is, it is that part's
            self._unfinished(part, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            del error
            if self.device.type == "cuda" and not answers(self.device):
                raise Broken from None
        else:
            seconds = time.monotonic() - start
            self.longest[part.kind] = max(self.longest.get(part.kind, 0.0), seconds)
            rest = {name: why for name, why in self.record.unfinished.items() if name != part.name}
            self.record = replace(
                self.record,
                rows=(*self.record.rows, *rows),
                seconds={**self.record.seconds, part.name: round(seconds, 2)},
                unfinished=rest,
            )
            print_rows(rows)
        self.write()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _unfinished(self, part: Part, why: str) -> None:
        if why != "it did not come to its end":
            click.echo(f"{part.name}: {why}", err=True)
        self.record = replace(self.record, unfinished={**self.record.unfinished, part.name: why})
        self.write()

    def write(self) -> None:
        if self.path is not None:
            self.record.write(self.path)


def _again(seconds: float) -> None:
    """Go on in a new process, which can use the device again."""
    kept = [word for word in sys.argv[1:] if word != "--resume"]
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *kept, "--resume", "--seconds", str(seconds)])


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file, after every part.")
@click.option("--resume", is_flag=True, help="Keep what is in that file, and make what it does not speak of.")
@click.option("--seconds", type=float, default=480.0, show_default=True, help="Begin no part that is not likely to end by then.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--part", "wanted", multiple=True, help="Only parts whose names fit this, as in 'SDXL*'; may be repeated.")
@click.option("--dtype", "dtypes", type=click.Choice(DTYPES), multiple=True, default=DTYPES, help="Presets in these only.")
@click.option("--preset", "names", multiple=True, help="Only this preset; may be repeated.")
@click.option("--steps", type=int, default=parity.STEPS, show_default=True, help="Of a preset's run.")
@click.option("--image-steps", type=int, default=image.STEPS, show_default=True, help="Of an image of SD 1.5.")
@click.option("--batch", type=int, default=8, show_default=True, help="Images in a large batch.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Timed repetitions of a step, after one to warm up.")
@click.option("--narrow", is_flag=True, help="Networks of few channels, to try the code.")
@click.option("--note", default="", help="What a reader must know of the circumstances.")
def main(
    path: Path | None,
    resume: bool,
    seconds: float,
    device: str,
    wanted: Sequence[str],
    names: Sequence[str],
    note: str,
    **size: Any,  # the others are those of `Size`
) -> None:
    """Run everything that only a machine with a card can show."""
    start = time.monotonic()
    try:
        place, _ = resolve(device, "fp32")
    except ConfigError as error:
        click.echo(f"Error: no card to run on: {error}", err=True)
        sys.exit(2)
    torch.set_num_threads(min(4, torch.get_num_threads()))  # more only wait for each other in networks so small
    before = Record.read(path) if resume and path is not None and path.exists() else None
    record = before or Record("gpu", (), device=device_name(place), note=note)
    session = Session(record, path, start + seconds, place)
    parts = Parts(place, Size(tuple(names or sorted(presets())), **size))
    try:
        with convolutions("ieee"):
            session.make([part for part in parts if any(fnmatchcase(part.name, pattern) for pattern in wanted or "*")])
    except Broken:
        _again(session.until - time.monotonic())
    done, rest = session.record.seconds, session.record.unfinished
    click.echo(f"{len(done)} parts in {sum(done.values()):.0f} s; {len(rest)} unfinished{': ' if rest else ''}{', '.join(rest)}")
    sys.exit(1 if session._tried else 0)


if __name__ == "__main__":
    main()
