"""Guidance on a real network, narrow and random: true batches where denoising shares the pass, and half precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import Energy, Features, Layout, Pipeline, Schedule, StepReport, Term
from lsregen.framework.guidance import gradients
from lsregen.models.networks.checkpointing import MEMORY, set_memory

pytestmark = pytest.mark.slow

PROMPTS = ("a red circle and a blue circle", "a red circle", "blue and red")
LAYOUTS = (
    Layout.from_boxes({"red circle": (0.0, 0.1, 0.4, 0.6), "blue circle": (0.5, 0.5, 1.0, 1.0)}),
    Layout.from_boxes({"red circle": (0.5, 0.0, 1.0, 0.5)}),
    Layout.from_boxes({"blue": (0.1, 0.4, 0.6, 1.0), "red": (0.6, 0.0, 1.0, 0.4)}),
)
SEEDS = (3, 0, 8)
HALF = {"fp16": 0.01, "bf16": 0.05}  # relative, of a gradient
ALL = slice(0, 3)
MAPS = CrossAttention(layers=("all",))
PULLED: dict[str, Callable[[StepReport], Tensor]] = {  # where the pull of a step shows
    "before": lambda report: report.z,
    "after": lambda report: report.z_next,
    "noise": lambda report: report.prediction.eps,
}


@pytest.fixture
def load(oracles: Any) -> Callable[[str], Pipeline]:
    return lambda dtype: Pipeline.load(oracles("base").folder, device="cpu", dtype=dtype)


def walked(pipeline: Pipeline, samples: slice, term: Term | None, steps: int) -> StepReport:
    """The last of some steps out of four, of samples with prompts, layouts and seeds of their own; not square."""
    seen: list[StepReport] = []

    def watch(report: StepReport) -> bool:
        seen.append(report)
        return len(seen) < steps

    layouts = None if term is None else LAYOUTS[samples]
    options: dict[str, Any] = {"steps": 4, "cfg": 4.0, "size": (64, 48), "on_step": watch}
    pipeline(PROMPTS[samples], layout=layouts, seed=SEEDS[samples], guidance=term, **options)
    return seen[-1]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-5), (4, 1e-4)])
@pytest.mark.parametrize("site", ["after", "noise"])
def test_samples_of_a_batch_are_pulled_as_alone_where_denoising_shares_the_pass(
    load: Callable[[str], Pipeline], site: str, steps: int, tolerance: float
) -> None:
    pipeline, term = load("fp32"), Term(MAPS, BoxEnergy(), Schedule(gamma=3000, site=site))
    together = walked(pipeline, ALL, term, steps).z_next
    unguided = walked(pipeline, ALL, None, steps).z_next
    for i in range(3):
        alone = walked(pipeline, slice(i, i + 1), term, steps).z_next[0]
        assert relative(together[i], alone) < tolerance
        assert relative(unguided[i], alone) > 100 * tolerance  # the pull is not a trifle


@dataclass(frozen=True)
class Faint(BoxEnergy):
    """So small that its gradient would vanish in float16 on the way through the network."""

    def __call__(self, current: Features, target: Features | None) -> Energy:
        energy = super().__call__(current, target)
        return replace(energy, value=1e-5 * energy.value)


def pull(pipeline: Pipeline, site: str, memory: str = "fast") -> Tensor:
    """What one step moves `[b c h w]`, by a faint energy and a gradient of size 10: far beyond the rounding of two passes."""
    set_memory(pipeline.model.unet, memory)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    term = Term(MAPS, Faint(), Schedule(gamma=10, normalise="rms", site=site))
    plain, guided = (PULLED[site](walked(pipeline, ALL, each, 1)) for each in (None, term))
    return guided - plain


@pytest.mark.parametrize("site", PULLED)
@pytest.mark.parametrize(("dtype", "tolerance"), HALF.items())
def test_half_precision_pulls_as_full_precision_does(
    load: Callable[[str], Pipeline], monkeypatch: pytest.MonkeyPatch, dtype: str, tolerance: float, site: str
) -> None:
    exact, half = pull(load("fp32"), site), load(dtype)
    for found, expected in zip(pull(half, site), exact, strict=True):
        assert relative(found, expected) < tolerance
    monkeypatch.setattr(gradients, "SCALES", gradients.SCALES[-1:])
    lost = min(relative(found, expected) for found, expected in zip(pull(half, site), exact, strict=True))
    assert (lost > 0.1) == (dtype == "fp16")  # bfloat16 needs no scale


@pytest.mark.parametrize(("dtype", "tolerance"), HALF.items())
def test_the_pull_in_half_precision_is_one_in_every_memory_mode(
    load: Callable[[str], Pipeline], dtype: str, tolerance: float
) -> None:
    pipeline = load(dtype)
    for site in PULLED:
        first, *others = (pull(pipeline, site, memory) for memory in MEMORY)
        assert float(first.square().mean()) > 10
        assert all(relative(other, first) < tolerance for other in others)
