"""The time of a step: plain and guided, ours and diffusers', alternating on one machine, with the same random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import torch

from benchmarks.clock import Timing, alternating, quotient
from benchmarks.count import MODES, ONE_UPDATE, SHARED
from benchmarks.records import Record, Row, device_name, print_rows
from benchmarks.reference import Reference
from benchmarks.subjects import UNETS, Subject, one_run, with_random_weights
from lsregen.framework import drained
from lsregen.models.networks.checkpointing import set_memory
from lsregen.models.runtime.devices import resolve
from lsregen.models.runtime.latent_diffusion import LatentDiffusion

GIB = 2**30
GOALS = {"SD 1.5": 1.7, "SDXL": 2.0}  # guided step / plain step
PLAIN, PLAIN_THERE, GUIDED_THERE, SHARED_PASS = (
    "plain",
    "plain, diffusers",
    "guided, Attend-and-Excite of diffusers",
    "guided, shared",
)


def guided(memory: str) -> str:
    return f"guided, {memory}"


def pieces(
    subject: Subject, device: torch.device, *, reference: bool = True, modes: Sequence[str] = MODES
) -> dict[str, Callable[[], object]]:
    """The steps that are timed, by name. `modes` of memory beside `fast`, which is always timed."""
    model = with_random_weights(subject, device)
    work = {PLAIN: one_step(model, None)}
    if reference:
        work |= _theirs(subject, model)  # in between: what is compared stands side by side
    work |= {guided(mode): one_step(model, "layout-guidance", ONE_UPDATE, mode) for mode in MODES if mode in (MODES[0], *modes)}
    work[SHARED_PASS] = one_step(model, "layout-guidance", SHARED)
    return work


def one_step(
    model: LatentDiffusion, guidance: str | None, sets: tuple[str, ...] = (), memory: str = MODES[0], count: int = 1
) -> Callable[[], object]:
    """One whole step of ours for a batch: the pull, the denoising pass, and the sampler's arithmetic."""
    run, terms = one_run(model, guidance, sets=sets, count=count)
    pull, step = drained(terms.start(run)), run.steps[0]

    @torch.no_grad()
    def work() -> object:
        set_memory(model.unet, memory)
        for term in pull.terms:
            term.stopped.fill_(False)
        z = drained(pull.before(run.z_T, step))
        return pull.after(run.sampler.step(z, drained(pull.predict(z, step)), step, run.noise(step)), step)

    return work


def _theirs(subject: Subject, model: LatentDiffusion) -> dict[str, Callable[[], object]]:
    run, _ = one_run(model)
    explicit, plain = Reference.with_weights_of(subject, model), Reference.with_weights_of(subject, model, explicit=False)
    t, z = run.steps[0].t, run.z_T

    def guided_step() -> None:
        explicit.gradient(z, t)
        explicit.predict(z, t)  # the graph is still alive, as it is there
        explicit.store.maps.clear()  # and gone before the next piece, whose peak is its own

    return {PLAIN_THERE: lambda: plain.predict(z, t), GUIDED_THERE: guided_step}


def rows(subject: Subject, timings: dict[str, Timing]) -> list[Row]:
    """Medians, peaks where they were measured, and ratios."""
    name, plain = str(subject), timings[PLAIN]
    found = [Row(name, f"{what} step", timing.median, "s", of=tuple(timing.seconds)) for what, timing in timings.items()]
    found += [Row(name, f"{what} step, slowest / fastest repetition", timing.spread) for what, timing in timings.items()]
    found += [Row(name, f"{what} step, peak", timing.peak / GIB, "GiB") for what, timing in timings.items() if timing.peak]
    for what in (*filter(timings.__contains__, map(guided, MODES)), SHARED_PASS):
        goal = GOALS[subject.family] if what == guided("fast") else None
        found.append(Row(name, f"{what} / plain step", quotient(timings[what], plain), goal=goal))
    if PLAIN_THERE in timings:
        there = timings[GUIDED_THERE]
        found.append(Row(name, "plain step / diffusers' plain step", quotient(plain, timings[PLAIN_THERE]), goal=1.05))
        found.append(Row(name, "diffusers' guided step / its plain step", quotient(there, timings[PLAIN_THERE])))
        found.append(Row(name, "guided step / diffusers' guided step", quotient(timings[guided("fast")], there), goal=0.70))
    return found


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--family", type=click.Choice(list(UNETS)), default="SD 1.5", show_default=True)
@click.option("--size", default=512, show_default=True, help="Pixels per side.")
@click.option("--repeats", default=3, show_default=True, help="Timed repetitions, after one to warm up.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--reference/--no-reference", default=True, help="Time diffusers' steps too.")
@click.option("--memory", "modes", type=click.Choice(MODES), multiple=True, default=MODES, help="Guided steps of these only.")
@click.option("--note", default="", help="What a reader must know of the circumstances.")
def main(
    path: Path | None,
    family: str,
    size: int,
    repeats: int,
    device: str,
    dtype: str,
    reference: bool,
    modes: tuple[str, ...],
    note: str,
) -> None:
    """Time plain and guided steps."""
    place, numbers = resolve(device, dtype)
    subject = Subject(family, (size, size), numbers)
    found = rows(subject, alternating(pieces(subject, place, reference=reference, modes=modes), repeats, place))
    print_rows(found)
    if path is not None:
        Record("step", found, device=device_name(place), note=note).write(path)


if __name__ == "__main__":
    main()
