"""The time of whole images: every preset against plain sampling of the same model, and images per second by batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.clock import Timing, alternating, quotient
from benchmarks.records import Record, Row, device_name, print_rows
from benchmarks.reference import Reference
from benchmarks.subjects import LAYOUT, PROMPT, UNETS, Subject, one_run, plugins, with_random_weights
from lsregen.framework import Pipeline, presets
from lsregen.framework.config.presets import load_preset
from lsregen.models.runtime.devices import resolve
from lsregen.models.runtime.latent_diffusion import LatentDiffusion

LAYOUT_GUIDANCE = "layout-guidance"
EVERY_UPDATE = ("guidance.layout.stop_below=null",)  # as many passes on both sides, whatever the weights
STEPS = 50
GOAL = 5.0  # images per second in a batch of eight against diffusers, one at a time


def by_model(names: Sequence[str], model: str) -> dict[str, list[str]]:
    """The presets that are timed on each model: the one that a preset names, else `model`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(load_preset(name).get("model") or model, []).append(name)
    return groups


def by_preset(pipeline: Pipeline, names: Sequence[str], repeats: int) -> list[Row]:
    """One image by each preset, as published, and a plain one of as many steps as the preset's."""
    work: dict[str, Callable[[], object]] = {}
    for name in names:
        steps = pipeline.resolve(name)[0].steps
        work[name] = lambda name=name: _image(pipeline, name)
        work.setdefault(_plain(steps), lambda steps=steps: _image(pipeline, None, steps=steps))
    timings = alternating(work, repeats, pipeline.model.device)
    subject, rows = pipeline.model.name, list[Row]()
    rows += [Row(subject, f"{name}, an image", timing.median, "s", of=tuple(timing.seconds)) for name, timing in timings.items()]
    for name in names:
        plain = timings[_plain(pipeline.resolve(name)[0].steps)]
        rows.append(Row(subject, f"{name} / plain", quotient(timings[name], plain)))
    return rows


def by_batch(pipeline: Pipeline, sizes: Sequence[int], repeats: int, steps: int = STEPS) -> list[Row]:
    """Images per second, plain and by layout-guidance with every update made."""
    work: dict[str, Callable[[], object]] = {}
    for size in sizes:
        work[f"plain, batch {size}"] = lambda size=size: _image(pipeline, None, count=size, steps=steps)
        work[guided(size)] = lambda size=size: _image(pipeline, LAYOUT_GUIDANCE, count=size, steps=steps, sets=EVERY_UPDATE)
    timings = alternating(work, repeats, pipeline.model.device)
    return [
        _per_second(pipeline.model.name, name, size, timings[name])
        for size in sizes
        for name in (f"plain, batch {size}", guided(size))
    ]


def _per_second(subject: str, name: str, count: int, timing: Timing) -> Row:
    each = tuple(count / seconds for seconds in timing.seconds)
    return Row(subject, f"{name}, images per second", count / timing.median, "1/s", of=each)


def guided(batch: int) -> str:
    return f"layout-guidance, batch {batch}"


def of_diffusers(subject: Subject, model: LatentDiffusion, repeats: int, steps: int = STEPS) -> Timing:
    """One image at a time as diffusers' Attend-and-Excite makes it, with as many passes as ours, without its decoding."""
    run, terms = one_run(model, LAYOUT_GUIDANCE, sets=(*EVERY_UPDATE, f"steps={steps}"))
    theirs = Reference.with_weights_of(subject, model)
    (schedule,) = (term.schedule for term in terms.terms)

    def image() -> None:
        z = run.z_T
        for step in run.steps:
            for _ in range(schedule.repeats if schedule.active(step) else 0):
                z = z - theirs.gradient(z, step.t).float() * 1e-3
            theirs.predict(z, step.t)

    return alternating({"image": image}, repeats, model.device)["image"]


def against_diffusers(subject: Subject, pipeline: Pipeline, largest: Row, repeats: int, steps: int = STEPS) -> list[Row]:
    """diffusers' images per second, one at a time, and how many times as many `largest` has, the row of our largest batch."""
    assert isinstance(pipeline.model, LatentDiffusion)
    theirs = of_diffusers(subject, pipeline.model, repeats, steps)
    one = _per_second(subject.family, "diffusers' Attend-and-Excite, one at a time", 1, theirs)
    label = f"{largest.quantity} / diffusers' one at a time"
    return [one, Row(subject.family, label, largest.reached / one.reached, goal=GOAL, more_is_better=True)]


def _plain(steps: int) -> str:
    return f"plain, {steps} steps"


def _image(pipeline: Pipeline, guidance: str | None, **options: Any) -> object:
    return pipeline(PROMPT, layout=guidance and LAYOUT, guidance=guidance, seed=0, **options)


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--model", default="shapeworld-base", show_default=True, help=f"A model, or {', '.join(UNETS)}: random weights.")
@click.option("--preset", "names", multiple=True, help="Only this preset; may be repeated.")
@click.option("--batch", "sizes", type=int, multiple=True, default=(1, 4, 8), show_default=True, help="Batch sizes.")
@click.option("--repeats", default=3, show_default=True, help="Timed repetitions, after one to warm up.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--note", default="", help="What a reader must know of the circumstances.")
def main(
    path: Path | None,
    model: str,
    names: Sequence[str],
    sizes: Sequence[int],
    repeats: int,
    device: str,
    dtype: str,
    note: str,
) -> None:
    """Time whole images. A preset that names a model is timed on that one."""
    place, numbers = resolve(device, dtype)
    subject = Subject(model, (512, 512) if model == "SD 1.5" else (1024, 1024), numbers) if model in UNETS else None

    def load(name: str) -> Pipeline:
        return Pipeline.load(name, device=device, dtype=dtype, plugins=plugins())

    pipeline = load(model) if subject is None else Pipeline(with_random_weights(subject, place), plugins())
    rows = list[Row]()
    for named, those in by_model(names or sorted(presets()), model).items():
        rows += by_preset(pipeline if named == model else load(named), those, repeats)
    rows += by_batch(pipeline, sizes, repeats)
    if subject is not None and place.type == "cuda":
        largest = next(row for row in rows if row.quantity.startswith(guided(max(sizes))))
        rows += against_diffusers(subject, pipeline, largest, repeats)
    print_rows(rows)
    if path is not None:
        Record("image", rows, device=device_name(place), note=note).write(path)


if __name__ == "__main__":
    main()
