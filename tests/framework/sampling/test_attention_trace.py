"""Watching the attention of phrases during a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework.guidance.run import Guidance
from lsregen.framework.layout.regions import Layout, Region
from lsregen.framework.sampling.attention_trace import AttentionTrace
from lsregen.framework.sampling.taps import TapPoint, Taps
from tests.near import near
from tests.toys import UNetDenoiser, draw, make_run, sampled

PROMPTS = ("a red ball", "a blue hat on a cat")
LAYOUTS = (Layout((Region("red ball"),)), Layout((Region("blue hat"), Region("cat"))))
MEAN = CrossAttention(layers=("mid", "first_up"), heads="mean", combine="mean", pieces="mean")


@pytest.mark.parametrize(
    ("shots", "count", "expected"), [(3, 5, [0, 2, 4]), (1, 5, [0]), (9, 4, [0, 1, 2, 3]), (2, 1, [0]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_the_shots_are_spread_from_the_first_step_to_the_last(shots: int, count: int, expected: list[int]) -> None:
    run = make_run(UNetDenoiser(PROMPTS), draw(0, 2, 4, 4, 4), count=count, layouts=LAYOUTS)
    assert sorted(AttentionTrace(run, MEAN, shots).indices) == expected


def test_a_run_that_enters_late_is_watched_from_its_own_first_step_to_its_last() -> None:
    run = make_run(UNetDenoiser(PROMPTS), draw(0, 2, 4, 4, 4), count=8, layouts=LAYOUTS)
    trace = AttentionTrace(replace(run, steps=run.steps[5:]), MEAN, 2)
    sampled(trace.run, Guidance(), trace)
    assert sorted(trace.maps) == [5, 7]


def test_maps_are_those_of_the_latent_denoised_and_the_run_is_not_changed() -> None:
    z = draw(0, 2, 4, 8, 4)
    run = make_run(UNetDenoiser(PROMPTS), z, count=4, layouts=LAYOUTS)
    trace = AttentionTrace(run, MEAN, 2)
    traced, _ = sampled(run, Guidance(), trace)
    plain, _ = sampled(make_run(UNetDenoiser(PROMPTS), z, count=4, layouts=LAYOUTS), Guidance())
    assert near(traced, plain)
    assert sorted(trace.maps) == [0, 3]
    assert trace.maps[0].shape == (2, 2, 4, 2)  # samples, phrases, half the latent's grid
    points = [TapPoint(layer.name, "cross_probs") for layer in run.denoiser.layers if layer.place != "down"]
    points = [point for point in points if "up_blocks.1" not in point.layer]
    taps = Taps(points)
    run.denoiser.observe(z, run.steps[0], taps)
    expected = torch.stack([taps[point] for point in points]).mean(dim=(0, 2))  # [b tokens h w]
    assert torch.allclose(trace.maps[0][0, 0], expected[0, 2:4].mean(dim=0), atol=1e-6)
    assert torch.allclose(trace.maps[0][1, 1], expected[1, 6], atol=1e-6)


def test_the_finest_grid_is_shown() -> None:
    run = make_run(UNetDenoiser(PROMPTS), draw(0, 2, 4, 4, 4), count=1, layouts=LAYOUTS)
    trace = AttentionTrace(run, CrossAttention(layers=("all",), heads="mean", combine="mean", pieces="mean"), 1)
    sampled(run, Guidance(), trace)
    assert trace.maps[0].shape == (2, 2, 4, 4)
