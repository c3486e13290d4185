"""True batches: eight samples with prompts, phrases, layouts, seeds and stops of their own, against eight single runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import Layout, Pipeline, Region, StepReport
from lsregen.framework.layout.regions import Box

pytestmark = pytest.mark.slow

SAMPLES: tuple[tuple[str, Layout], ...] = (
    (
        "a red circle and a blue square",
        Layout.from_boxes({"red circle": (0.05, 0.1, 0.4, 0.45), "blue square": (0.6, 0.5, 0.9, 0.8)}),
    ),
    ("a purple triangle", Layout.from_boxes({"purple triangle": (0.55, 0.05, 0.95, 0.45)})),
    (
        "a green star, a yellow ring and an orange cross",
        Layout.from_boxes(
            {"yellow ring": (0.1, 0.6, 0.4, 0.9), "green star": (0.6, 0.6, 0.9, 0.9), "orange cross": (0.3, 0.1, 0.6, 0.4)}
        ),
    ),
    ("a blue ring and a red star", Layout.from_boxes({"red star": (0.1, 0.1, 0.35, 0.35)})),
    ("a yellow square above a green circle", Layout((Region("yellow square"), Region("green circle", Box(0.3, 0.5, 0.7, 0.9))))),
    ("a large orange circle", Layout.from_boxes({"orange circle": (0.3, 0.3, 0.75, 0.75)})),
    (
        "a red cross and a purple ring",
        Layout.from_boxes({"red cross": (0.0, 0.0, 0.3, 0.3), "purple ring": (0.7, 0.7, 1.0, 1.0)}),
    ),
    ("a small blue triangle", Layout.from_boxes({"blue triangle": (0.4, 0.4, 0.6, 0.6)})),
)
SEEDS = (7, 0, 3, 11, 3, 2, 100, 5)
MARGIN = 1e-2  # between an energy and its threshold, relative: a thousand times what the latents may differ by
FIXED = ("guidance.layout.stop_below=null", "guidance.layout.stop_forever=false", "guidance.layout.repeats=2")


def latents(pipeline: Pipeline, chosen: slice, stop_after: int | None = None, **options: Any) -> tuple[Tensor, Any]:
    """The latents `[b c h w]` after the last step made, and the report."""
    seen: list[StepReport] = []

    def watch(report: StepReport) -> bool:
        seen.append(report)
        return len(seen) != stop_after

    result = pipeline(
        [prompt for prompt, _ in SAMPLES[chosen]],
        layout=[layout for _, layout in SAMPLES[chosen]],
        seed=SEEDS[chosen],
        on_step=watch,
        **options,
    )
    return seen[-1].z_next, result.report


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def compare(pipeline: Pipeline, **options: Any) -> tuple[list[float], Any, list[Any]]:
    together, report = latents(pipeline, slice(0, 8), **options)
    singles = [latents(pipeline, slice(i, i + 1), **options) for i in range(8)]
    errors = [relative(together[i : i + 1], z) for i, (z, _) in enumerate(singles)]
    return errors, report, [single for _, single in singles]


def between(evaluations: Sequence[Sequence[float]]) -> float:
    """A threshold in the middle of the widest gap among all measured energies, where the first ones leave two on each side."""
    _, low, *_, high, _ = sorted(evaluations[0])
    ranked = sorted(energy for energies in evaluations for energy in energies if low <= energy <= high)
    below, above = max(pairwise(ranked), key=lambda pair: pair[1] - pair[0])
    return (below + above) / 2


@pytest.mark.parametrize(
    ("preset", "term", "rule"),
    [
        ("layout-guidance", "layout", "stop_below={}"),
        ("attend-and-excite", "semantic", "refine={{0.0: [{}, 20]}}"),
        ("semantic-layout", "semantic", "refine={{0.0: [{}, 20]}}"),
    ],
)
def test_one_guided_step_of_eight_equals_eight_single_ones(pipeline: Pipeline, preset: str, term: str, rule: str) -> None:
    """With a threshold between the samples, so that some stop before others: each is updated as often as it would be alone."""
    _, probe = latents(pipeline, slice(0, 8), stop_after=1, guidance=preset)
    threshold = between([entry.energy for entry in probe.energies if entry.term == term])
    sets = (f"guidance.{term}.{rule.format(threshold)}",)
    errors, report, singles = compare(pipeline, stop_after=1, guidance=preset, sets=sets)
    measured = [energy for entry in report.energies if entry.term == term for energy in entry.energy if isfinite(energy)]
    assert min(abs(energy - threshold) for energy in measured) > MARGIN * threshold, "no rounding decides"
    updates = [[entry.updated[i] for entry in report.energies] for i in range(8)]
    for i, single in enumerate(singles):
        for name in {entry.term for entry in report.energies}:
            together = sum(entry.updated[i] for entry in report.energies if entry.term == name)
            assert together == sum(entry.updated[0] for entry in single.energies if entry.term == name), (i, name)
    assert len({tuple(made) for made in updates}) > 1, "the samples stop at different times"
    assert max(errors) < 1e-5


@pytest.mark.long
def test_a_whole_image_in_a_batch_of_eight_equals_the_single_one(pipeline: Pipeline) -> None:
    errors, _, _ = compare(pipeline, guidance="layout-guidance", steps=20, sets=FIXED)
    assert max(errors) < 1e-4


def test_samples_of_one_batch_do_not_see_each_other(pipeline: Pipeline) -> None:
    """The first two samples are the same whatever stands beside them."""
    first, _ = latents(pipeline, slice(0, 2), stop_after=3, guidance="layout-guidance", steps=20, sets=FIXED)
    again, _ = latents(pipeline, slice(0, 5), stop_after=3, guidance="layout-guidance", steps=20, sets=FIXED)
    assert relative(again[:2], first) < 1e-5
    assert torch.isfinite(first).all()
