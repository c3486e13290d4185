"""What `lsregen generate` tells while it works, and at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ...framework.errors import counted

if TYPE_CHECKING:
    from ...framework.pipeline.events import Event
    from .job import Failure, Made
    from .work import Work


class Progress:
    """Lines on stdout, through `echo` if there is one, and a progress bar on stderr, only where somebody can watch it.

    `shown`: of how many images it was told.
    """

    def __init__(self, work: Work, echo: Callable[[str], None] | None) -> None:
        from tqdm import tqdm

        job = work.job
        self.echo, self.shown = echo, 0
        self.unit, self.count = ("image" if job.batch == 1 else "batch"), len(work.pending)
        self.first = 0 if job.initial is None else job.initial.entry
        self.walk = job.config.steps - self.first
        stderr: TextIO | None = sys.stderr
        watched = stderr is not None and stderr.isatty()
        self.bar = tqdm(total=self.walk * self.count, unit="step", leave=False, file=stderr, disable=not watched)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def event(self, event: Event) -> None:
        from ...framework.events import Rendering, Stepped
        from ...framework.pipeline.events import Prepared

        numbered = f"{self.unit} {min(self.bar.n // self.walk + 1, self.count)}/{self.count}" if self.count > 1 else ""
        if isinstance(event, Prepared):
            self.bar.set_description(numbered)
        elif isinstance(event, Rendering):
            self.bar.set_description(f"{numbered} {event.source} renders".strip())
        elif isinstance(event, Stepped):
            self.bar.update()

    def image(self, made: Made) -> None:
        self.shown += 1
        if self.echo is not None:
            self.line(self.echo, f"{click.format_filename(made.files.image)}  {_when(made)}")

    def failure(self, failure: Failure) -> None:
        self.line(say, f"Failed: {click.format_filename(failure.path)}: {failure.error}")

    def line(self, echo: Callable[[str], None], text: str) -> None:
        """A line above the bar, for whoever reads along."""
        with self.bar.external_write_mode():
            echo(text)


def _when(made: Made) -> str:
    return "finished before" if made.earlier else f"{made.seconds:.1f} s"


def summary(work: Work, old: Sequence[Path]) -> None:
    """What there is to say besides the images: what the guidance reached, what was kept, what was replaced."""
    made, there = len(work.made), work.there
    wanted, folder, name = len(work.job.kept), click.format_filename(work.job.folder), work.job.report.name
    if not made:
        if work.interrupted or work.failed:
            say(f"{'Interrupted' if work.interrupted else 'Failed'}; no image was finished.")
        return
    for term, (ends, images) in work.energies().items():
        notes = [*["one evaluation"] * (len(ends) == 1), *[f"mean of {images} images"] * (images > 1)]
        said = " -> ".join(f"{energy:.3g}" for energy in ends)
        say(f"{term}: energy {said}" + (f" ({', '.join(notes)})" if notes else ""))
    if work.skipped_updates:
        say(f"Warning: {work.skipped_updates} updates were left out, because their gradients were not finite.")
    report = f"{'with' if work.reported else 'without a'} {name}"
    if there < made:
        say(f"Warning: {made - there} of the {counted(made, 'finished image')} are no longer in {folder}.")
    if made < wanted or not work.reported:
        rest = " The same command makes the others." if made < wanted else ""
        ended = "Interrupted" if work.interrupted else "Failed"
        say(f"{ended}; {there} of {wanted} images were finished and are kept in {folder}, {report}.{rest}")
    else:
        say(f"{_done(work)}, {report} in {folder}{_cure(work)}.")
    written = {path for image in work.made if not image.earlier for path in image.files.all}
    if work.report.aside is not None:
        say(f"The {name} of an earlier run is kept as {click.format_filename(work.report.aside.name)}.")
    elif work.report.written and not any(image.earlier for image in work.made):
        written.add(work.job.report)
    for count, what in (
        (len(written.intersection(old)), "replaced"),
        (work.removed, "removed: beside the new images of the same names, they would still show the old ones"),
    ):
        if count:
            say(f"{counted(count, 'file')} of an earlier run {'were' if count > 1 else 'was'} {what}.")


def _done(work: Work) -> str:
    before = sum(image.earlier for image in work.made)
    made, seconds = len(work.made) - before, work.took
    if not before:
        return f"{counted(made, 'image')} in {seconds:.1f} s"
    if made:
        return f"{before} were finished before, {made} made in {seconds:.1f} s"
    return f"{counted(before, 'image')} finished before, none made"


def _cure(work: Work) -> str:
    return "; --again makes all" if any(image.earlier for image in work.made) else ""


def say(text: str) -> None:
    click.echo(text, err=True)
