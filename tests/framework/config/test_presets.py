"""The published numbers, read from the files that ship."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lsregen.distances.attribute_binding import AttributeBinding
from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.boxdiff import BoxDiff
from lsregen.distances.cross_entropy import CrossEntropy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.bound_words import BoundWords
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.extractors.gligen_inversion import GligenInversion
from lsregen.extractors.segmentation import Segmentation
from lsregen.framework import presets
from lsregen.framework.config.options import build
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.sampling.taps import TapLayer, select_layers
from lsregen.framework.types import Step
from lsregen.samplers.ddim import DDIM

FILES = presets()
NAMES = (
    "attend-and-excite", "boxdiff", "gligen", "img2img", "layout-guidance", "lsregen", "lsregen-boxes", "lsregen+semantic",
    "semantic-layout", "syngen", "zestguide",
)  # fmt: skip
EXTRACTORS = {
    "bound_words": BoundWords, "cross_attention": CrossAttention, "gligen_inversion": GligenInversion,
    "segmentation": Segmentation,
}  # fmt: skip
DISTANCES = {
    "attribute_binding": AttributeBinding, "box_energy": BoxEnergy, "boxdiff": BoxDiff, "cross_entropy": CrossEntropy,
    "l2": L2, "max_token": MaxToken,
}  # fmt: skip

EXCITED = CrossAttention(
    layers=("grid:coarsest",), heads="mean", combine="mean", drop="ends", renormalise="softmax", temperature=100.0,
    words="last", smooth_sigma=0.5, smooth_size=3, smooth_kernel="attend_and_excite",
)  # fmt: skip


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load(FILES[name].read_text(encoding="utf-8"))


def named(given: Any) -> dict[str, Any]:
    return {"name": given} if isinstance(given, str) else dict(given)


def parts(preset: str, term: str) -> tuple[Any, Any, Schedule]:
    given = dict(load(preset)["guidance"][term])
    extractor, distance = named(given.pop("extractor")), named(given.pop("distance"))
    looks, measures = EXTRACTORS[extractor.pop("name")], DISTANCES[distance.pop("name")]
    return (
        build(looks, extractor, "extractor", "extractor"),
        build(measures, distance, "distance", "distance"),
        build(Schedule, given, term, "schedule"),
    )


def steps(schedule: Schedule) -> list[int]:
    return [index for index in range(50) if schedule.active(Step(index, 50, 0, 0.5, 0.6))]


def check_refinements(schedule: Schedule) -> None:
    """Those of Attend-and-Excite, which others took over."""
    thresholds = {0: 0.05, 10: 0.5, 20: 0.8}  # of the attention; the energy is one minus it
    due = {index: schedule.refinement(Step(index, 50, 0, 0.5, 0.6)) for index in range(50)}
    found = {index: refinement for index, refinement in due.items() if refinement is not None}
    assert {index: most for index, (_, most) in found.items()} == {0: 20, 10: 20, 20: 20}
    assert {index: 1 - energy for index, (energy, _) in found.items()} == pytest.approx(thresholds)


def test_these_presets_ship_and_each_names_its_paper() -> None:
    found = set(FILES)
    assert set(NAMES) <= found
    for name in NAMES:
        preset = load(name)
        assert preset["steps"] == 50
        assert preset["description"]
        assert "20" in preset["source"]  # a year


@pytest.mark.parametrize("preset", ["attend-and-excite", "semantic-layout"])
def test_the_semantic_pull_has_the_published_numbers(preset: str) -> None:
    extractor, distance, schedule = parts(preset, "semantic")
    assert extractor == EXCITED
    assert isinstance(distance, MaxToken)
    assert (schedule.gamma, schedule.decay, schedule.site, schedule.normalise) == (20, "sqrt_linear", "before", "none")
    assert steps(schedule) == list(range(25))
    check_refinements(schedule)
    assert schedule.final_update
    assert schedule.repeats == 1


def test_layout_guidance_has_the_published_numbers() -> None:
    extractor, distance, schedule = parts("layout-guidance", "layout")
    assert extractor == CrossAttention(layers=("mid", "first_up"), heads="keep", combine="none", drop="none", renormalise="none")
    assert extractor.words == "all"
    assert extractor.pieces == "keep"
    assert extractor.smooth_sigma == 0
    assert isinstance(distance, BoxEnergy)
    assert (schedule.gamma, schedule.decay, schedule.repeats) == (30, "one_minus_alpha_bar", 5)
    assert (schedule.stop_below, schedule.stop_forever) == (0.2, True)
    assert steps(schedule) == list(range(10))


def test_semantic_layout_pulls_both_ways_in_the_first_half() -> None:
    _, _, semantic = parts("semantic-layout", "semantic")
    _, distance, layout = parts("semantic-layout", "layout")
    assert isinstance(distance, BoxEnergy)
    assert steps(semantic) == steps(layout) == list(range(25))
    assert (layout.gamma, layout.repeats, layout.stop_below) == (30, 5, 0.2)
    assert semantic.site == layout.site == "before"


def test_boxdiff_has_the_published_numbers() -> None:
    extractor, distance, schedule = parts("boxdiff", "boxes")
    assert extractor == EXCITED
    assert distance == BoxDiff(top=0.2, reach=1, raster="area")
    assert (schedule.gamma, schedule.decay, schedule.site, schedule.normalise) == (20, "sqrt_linear", "before", "none")
    assert steps(schedule) == list(range(25))
    check_refinements(schedule)
    assert schedule.final_update
    assert schedule.repeats == 1


def test_zestguide_has_the_published_numbers() -> None:
    extractor, distance, schedule = parts("zestguide", "segments")
    assert (extractor.drop, extractor.words, extractor.best, extractor.model) == ("none", "all", 0, "")
    sides = {"down_blocks": (64, 32, 16), "up_blocks": (8, 16, 32, 64)}  # of Stable Diffusion 1.4; deepest and mid: 8
    layers = [
        TapLayer(f"{place}.{i}.attentions.{j}.transformer_blocks.0", place.split("_")[0], i, 64 // side, 8)
        for place, of_blocks in sides.items()
        for i, side in enumerate(of_blocks)
        for j in range(2 if place == "down_blocks" else 3)
        if side > 8
    ]
    chosen = [layer.name.partition(".transformer")[0] for layer in select_layers(layers, extractor.layers)]
    assert chosen == [
        "down_blocks.2.attentions.0", "down_blocks.2.attentions.1",
        *(f"up_blocks.{i}.attentions.{j}" for i in (1, 2) for j in range(3)),
    ]  # fmt: skip
    assert distance == CrossEntropy(scale=10, ignore=0.01, ignore_normalised=0.1, raster="area")
    assert (schedule.gamma, schedule.decay, schedule.site) == (0.3, "sqrt_one_minus_alpha_bar", "after")
    assert (schedule.normalise, schedule.repeats, schedule.refine) == ("linf", 1, {})
    assert steps(schedule) == list(range(26))  # while i <= 50 (1 - tau)
    sampler = named(load("zestguide")["sampler"])
    assert sampler.pop("name") == "ddim"
    noisy = build(DDIM, sampler, "sampler", "sampler")
    assert noisy.eta == 0.5
    assert [i for i in range(50) if i / 50 < noisy.until] == list(range(26))


def test_syngen_has_the_published_numbers() -> None:
    extractor, distance, schedule = parts("syngen", "binding")
    assert extractor == BoundWords(layers=("grid:coarsest",))
    assert distance == AttributeBinding()
    assert (schedule.gamma, schedule.decay, schedule.site, schedule.normalise) == (20, "constant", "before", "none")
    assert (schedule.repeats, schedule.refine, schedule.stop_below) == (1, {}, None)
    assert steps(schedule) == list(range(25))


@pytest.mark.parametrize("preset", ["lsregen", "lsregen+semantic"])
def test_lsregen_pulls_everywhere_through_inversion_in_the_first_tenth(preset: str) -> None:
    extractor, distance, schedule = parts(preset, "small")
    assert extractor == GligenInversion(source={"model": "shapeworld-gligen"}, noise="ddim_inversion", mask="full")
    assert isinstance(distance, L2)
    assert steps(schedule) == list(range(5))
    assert (schedule.site, schedule.repeats, schedule.normalise, schedule.decay) == ("before", 1, "none", "constant")
    assert 0 < (schedule.blend or 0) <= 1


def test_lsregen_in_boxes_differs_in_nothing_else() -> None:
    whole, boxed = load("lsregen"), load("lsregen-boxes")
    extractor = boxed["guidance"]["small"]["extractor"]
    assert (extractor["mask"], extractor["box_power"]) == ("boxes", 0.5)
    boxed["guidance"]["small"]["extractor"] = whole["guidance"]["small"]["extractor"]
    assert {**boxed, "description": ""} == {**whole, "description": ""}


def test_the_semantic_pull_begins_when_the_places_are_settled() -> None:
    _, _, small = parts("lsregen+semantic", "small")
    extractor, distance, semantic = parts("lsregen+semantic", "semantic")
    assert extractor == EXCITED
    assert isinstance(distance, MaxToken)
    assert steps(semantic) == list(range(5, 25))
    assert not set(steps(small)) & set(steps(semantic))
    assert semantic.refine == {}


def test_image_to_image_takes_the_whole_way_to_the_shared_noise() -> None:
    extractor, distance, schedule = parts("img2img", "small")
    assert extractor == GligenInversion(source={"model": "shapeworld-gligen"}, noise="shared", mask="full")
    assert isinstance(distance, L2)
    assert (schedule.blend, schedule.site, schedule.repeats) == (1, "before", 1)
    assert steps(schedule)[0] == 0
