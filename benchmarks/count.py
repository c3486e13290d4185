"""Exact counts: floating point operations, and bytes kept for a backward. Nothing is run, so every machine finds the same.

Ours is the production path, `GuidanceRun` over the networks at full size; what it is compared with stands in `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import click
import torch

from benchmarks.outline import Cost, counted
from benchmarks.records import Record, Row, print_rows
from benchmarks.reference import Reference
from benchmarks.subjects import Subject, one_run, outlined
from lsregen.framework import Guidance, GuidanceRun, Passes, Prediction, Run, at_once, drained
from lsregen.models.networks.checkpointing import MEMORY, set_memory

GIB = 2**30
MODES = tuple(MEMORY)
ONE_UPDATE = ("guidance.layout.repeats=1",)
ONE_STEP = ("steps=1",)  # a target is made for each
ALL_LAYERS = ("guidance.layout.extractor.layers=[all]",)
SHARED = (*ONE_UPDATE, "guidance.layout.site=after")


class Ours:
    """The passes of one subject, through the production code."""

    def __init__(self, subject: Subject) -> None:
        self.model = outlined(subject)

    def gradient(self, memory: str = "fast", sets: Sequence[str] = ()) -> Cost:
        """One update by layout-guidance: its pass and the backward, before the denoising pass."""
        set_memory(self.model.unet, memory)
        run, terms = self._run("layout-guidance", sets=(*ONE_UPDATE, *sets))
        return self._cost(run, terms, lambda pull: drained(pull.before(run.z_T, run.steps[0])))

    def plain(self) -> Cost:
        """The denoising pass of a step, classifier-free guidance inside."""
        run, terms = self._run()
        return self._cost(run, terms, lambda pull: drained(pull.predict(run.z_T, run.steps[0])))

    def shared(self, sets: Sequence[str] = ()) -> Cost:
        """A whole step whose denoising and guidance share the conditional pass."""
        set_memory(self.model.unet, "fast")
        run, terms = self._run("layout-guidance", sets=(*SHARED, *sets))
        return self._cost(run, terms, lambda pull: drained(pull.predict(run.z_T, run.steps[0])))

    def latents(self) -> Cost:
        """A whole step pulled by `lsregen`; its target, of a fixed picture instead of a render, is made before and not in it."""
        run, terms = self._run("lsregen", sets=ONE_STEP)
        run = replace(run, renderer=lambda _: at_once(torch.zeros(1, 3, 64, 64)))
        return self._cost(run, terms, lambda pull: drained(_step(pull, run)))

    def image(self) -> tuple[int, int]:
        """Steps, and most guided passes, of an image by layout-guidance as published."""
        run, terms = one_run(self.model, "layout-guidance")
        (term,) = terms.terms
        return len(run.steps), sum(term.schedule.repeats for step in run.steps if term.schedule.active(step))

    def _run(self, guidance: str | None = None, sets: Sequence[str] = ()) -> tuple[Run, Guidance]:
        """A run whose first latent is without numbers, as the network is."""
        run, terms = one_run(self.model, guidance, sets=sets)
        return replace(run, z_T=self.model.unet.conv_in.weight.new_zeros(run.z_T.shape, dtype=run.z_T.dtype)), terms

    def _cost(self, run: Run, terms: Guidance, work: Callable[[GuidanceRun], object]) -> Cost:
        pull = drained(terms.start(run))
        given = [*self.model.unet.parameters(), run.z_T]
        with torch.no_grad(), counted(given) as cost:
            work(pull)
        return cost


def _step(pull: GuidanceRun, run: Run) -> Passes[Prediction]:
    """The pull before the first step, and its prediction."""
    z = yield from pull.before(run.z_T, run.steps[0])
    return (yield from pull.predict(z, run.steps[0]))


@dataclass(frozen=True)
class Goals:
    """What the counts of a subject should be at most: against the reference's gradient pass, and against a plain step."""

    flops: float | None = None
    saved: tuple[float, ...] = ()  # by mode
    peak: float | None = None  # GiB, in the mode that spends least
    guided: float | None = None
    shared: float | None = None
    image: float | None = None
    latents: float | None = None


SUBJECTS = {
    "sd15": (
        Subject("SD 1.5", (512, 512)),
        Goals(0.70, (0.15, 0.10, 0.03), guided=1.55, shared=1.31, image=1.56, latents=1.02),
    ),
    "sdxl": (
        Subject("SDXL", (1024, 1024), torch.float16),
        Goals(0.90, (0.31, 0.17, 0.03), peak=0.7, guided=1.83, shared=1.46, latents=1.02),
    ),
    "sdxl-1536": (Subject("SDXL", (1536, 1536), torch.float16), Goals()),
    "sdxl-1920x1440": (Subject("SDXL", (1920, 1440), torch.float16), Goals(peak=1.8)),
}


class Comparison:
    """The rows of one subject, each count made once."""

    def __init__(self, subject: Subject, goals: Goals) -> None:
        self.subject, self.goals = subject, goals
        self.ours = Ours(subject)

    @cached_property
    def plain(self) -> Cost:
        return self.ours.plain()

    @cached_property
    def reference(self) -> tuple[Cost, Cost]:
        """Its gradient pass and its denoising pass."""
        reference = Reference.outlined(self.subject)
        z, parameters = torch.zeros(1, 4, *self.subject.latent), [*reference.unet.parameters()]
        with counted([z, *parameters]) as gradient:
            reference.gradient(z, 981)
        reference.store.maps.clear()
        with counted([z, *parameters]) as plain:
            reference.predict(z, 981)
        return gradient, plain

    def rows(self) -> list[Row]:
        passes = {mode: self.ours.gradient(mode) for mode in MODES}
        return [*self._against_reference(passes), *self._against_plain(passes[MODES[0]])]

    def _against_reference(self, passes: dict[str, Cost]) -> list[Row]:
        reference, _ = self.reference
        fast, least = passes[MODES[0]], MODES[-1]
        saved: dict[str, float] = dict(zip(MODES, self.goals.saved, strict=False))
        return [
            self._row("gradient pass, reference", reference.flops / 1e12, "TFLOP"),
            *(self._row(f"gradient pass, {mode}", cost.flops / 1e12, "TFLOP") for mode, cost in passes.items()),
            self._row("gradient pass / reference, FLOPs", fast.flops / reference.flops, goal=self.goals.flops),
            self._row("kept for the backward, reference", reference.saved / GIB, "GiB"),
            *(self._row(f"kept for the backward, {mode}", cost.saved / GIB, "GiB") for mode, cost in passes.items()),
            *(
                self._row(f"kept / reference, {mode}", cost.saved / reference.saved, goal=saved.get(mode))
                for mode, cost in passes.items()
            ),
            self._row("peak of live activations, reference", reference.peak / GIB, "GiB"),
            *(
                self._row(f"peak of live activations, {mode}", cost.peak / GIB, "GiB", self.goals.peak if mode == least else None)
                for mode, cost in passes.items()
            ),
        ]

    def _against_plain(self, fast: Cost) -> list[Row]:
        plain, goals = self.plain, self.goals
        steps, most = self.ours.image()
        rows = [
            self._row("plain step", plain.flops / 1e12, "TFLOP"),
            self._row("guided step / plain step, reference", sum(cost.flops for cost in self.reference) / plain.flops),
            self._row("guided step / plain step", 1 + fast.flops / plain.flops, goal=goals.guided),
            self._row("guided step / plain step, shared forward", self.ours.shared().flops / plain.flops, goal=goals.shared),
        ]
        if goals.image is not None:
            ratio = 1 + most * fast.flops / (steps * plain.flops)
            rows.append(self._row("image by layout-guidance / plain image, at most", ratio, goal=goals.image))
            gradient, shared = self.ours.gradient(sets=ALL_LAYERS), self.ours.shared(ALL_LAYERS)
            rows += [
                self._row("guided step / plain step, all layers", 1 + gradient.flops / plain.flops),
                self._row("guided step / plain step, all layers, shared forward", shared.flops / plain.flops),
            ]
        if goals.latents is not None:
            ratio = self.ours.latents().flops / plain.flops
            rows.append(self._row("step pulled by lsregen / plain step", ratio, goal=goals.latents))
        return rows

    def _row(self, quantity: str, reached: float, unit: str = "", goal: float | None = None) -> Row:
        return Row(str(self.subject), quantity, reached, unit, goal)


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--only", type=click.Choice(list(SUBJECTS)), multiple=True, help="Count only this; may be repeated.")
def main(path: Path | None, only: Sequence[str]) -> None:
    """Count floating point operations and kept bytes of the guided pass, against a reference."""
    rows: list[Row] = []
    for name in only or SUBJECTS:
        found = Comparison(*SUBJECTS[name]).rows()
        print_rows(found)
        rows.extend(found)
    if path is not None:
        Record("count", rows, device="none: counted on shapes").write(path)


if __name__ == "__main__":
    main()
