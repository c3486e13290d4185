"""Decays, normalisations and rasters that packages bring, by the names that configurations give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lsregen.framework import Box, ConfigError, Layout, Pipeline, Schedule, discover, rasterise
from lsregen.framework.guidance.schedule import DECAYS, NORMALISATIONS
from lsregen.framework.layout.rasters import RASTERS
from lsregen.framework.types import Step

Install = Callable[..., None]
BRINGS = """
from lsregen.framework import hookimpl

@hookimpl
def register_decays(register):
    register("halved", lambda step: 0.5)

@hookimpl
def register_normalisations(register):
    register("l1", lambda gradient: gradient.abs().sum(dim=1))

@hookimpl
def register_rasters(register):
    register("everything", lambda low, high, cells: [1.0] * cells)
"""
BOXES = {"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)}
STEP = Step(index=3, count=10, t=601, alpha_bar=0.25, alpha_bar_prev=0.4)


def test_functions_of_a_package_are_taken_by_their_names(install: Install) -> None:
    install("acme-functions", BRINGS)
    assert Schedule(gamma=8, decay="halved").strength(STEP) == 4
    assert rasterise(Box(0.4, 0.4, 0.6, 0.6), (2, 3), "everything").tolist() == [[1.0] * 3] * 2
    assert {"halved", "constant"} <= set(DECAYS)
    assert {"l1", "none"} <= set(NORMALISATIONS)
    assert {"everything", "area"} <= set(RASTERS)


def test_a_schedule_tells_which_package_its_decay_is_of(install: Install) -> None:
    install("acme-functions", BRINGS, version="3.1")
    plugins = discover()
    assert plugins.versions_of(Schedule(decay="halved")) == {"acme-functions": "3.1"}
    assert plugins.versions_of(Schedule(normalise="l1")) == {"acme-functions": "3.1"}
    assert plugins.versions_of(Schedule()) == {}


@pytest.mark.slow
def test_a_run_uses_them_and_its_report_names_their_package(install: Install) -> None:
    install("acme-functions", BRINGS, version="3.1")
    term = {"extractor": "cross_attention", "distance": "box_energy", "gamma": 1.0, "decay": "halved", "normalise": "l1"}
    pipeline = Pipeline.load("shapeworld-base", device="cpu")
    layout = Layout.from_boxes(BOXES)
    result = pipeline("a red circle and a blue square", layout=layout, guidance={"guidance": {"x": term}}, steps=2)
    assert result.report.as_dict()["versions"]["acme-functions"] == "3.1"


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("decay", "halvd", "did you mean 'halved'"), ("normalise", "l0", "l1"), ("decay", "x", "constant")],
)
def test_an_unknown_name_names_those_of_packages_too(install: Install, option: str, value: str, known: str) -> None:
    install("acme-functions", BRINGS)
    given: dict[str, Any] = {option: value}
    with pytest.raises(ConfigError, match=known):
        Schedule(**given)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("register('Halved', lambda step: 0.5)", "a name is"),
        ("register('halved', 0.5)", "no function"),
        ("register('halved', int)", "no function"),
    ],
)
def test_what_is_no_function_is_refused(install: Install, line: str, why: str) -> None:
    install("acme-functions", f"from lsregen.framework import hookimpl\n@hookimpl\ndef register_decays(register):\n    {line}\n")
    (broken,) = discover().broken
    assert why in broken.error


def test_a_package_does_not_replace_one_of_lsregens(install: Install) -> None:
    install("acme-functions", BRINGS.replace('"halved"', '"constant"'))
    assert Schedule(gamma=8).strength(STEP) == 8
