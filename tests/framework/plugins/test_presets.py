"""Presets that packages bring, and which of them is taken where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lsregen.framework import ConfigError, Pipeline, discover, load_preset, presets

Install = Callable[..., None]
BRINGS = """
from pathlib import Path
from lsregen.framework import hookimpl

@hookimpl
def register_presets(register):
    register({name!r}, {path!r}, {options})
"""


def brings(path: Path, name: str = "stronger", options: str = "") -> str:
    return BRINGS.format(name=name, path=str(path), options=options)


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "stronger.yaml"
    path.write_text("steps: 7\nguidance:\n  layout: {extractor: cross_attention, distance: box_energy, gamma: 3}\n")
    return path


def test_lsregens_own_presets_come_by_the_hook() -> None:
    found = discover(only=()).presets
    assert len(found) == 18
    assert {one.package for one in found.values()} == {"lsregen"}
    assert list(found) == sorted(found)


def test_a_preset_of_a_package_is_taken_by_its_name(install: Install, preset: Path) -> None:
    install("acme-presets", brings(preset), version="3.1")
    found = discover().presets["stronger"]
    assert (found.path, found.package, found.version) == (preset, "acme-presets", "3.1")
    assert presets()["stronger"] == preset
    assert load_preset("stronger")["steps"] == 7
    config, guidance = Pipeline.load("shapeworld-base", device="cpu").resolve("stronger")
    assert config.steps == 7
    assert guidance.terms[0].schedule.gamma == 3


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("layout-guidance", "", "already registered by lsregen"),
        ("none", "", "not 'none'"),
        ("mine.yaml", "", "a name is"),
        ("Mine", "", "a name is"),
        ("mine", "fits='masks'", "boxes, phrases"),
        ("mine", "fits='boxes'", "'layout-guidance' of lsregen"),
        ("mine", "fits='boxes', models=('shapeworld-base',)", "of the model shapeworld-base"),
    ],
)
def test_presets_that_cannot_be_taken_are_refused(install: Install, preset: Path, name: str, options: str, why: str) -> None:
    install("acme-presets", brings(preset, name, options))
    (broken,) = discover().broken
    assert broken.package == "acme-presets"
    assert why in broken.error


def test_a_preset_without_a_file_is_refused(install: Install, tmp_path: Path) -> None:
    install("acme-presets", brings(tmp_path / "missing.yaml"))
    (broken,) = discover().broken
    assert "missing.yaml" in broken.error


def test_an_unknown_preset_names_the_nearest_and_what_failed(install: Install) -> None:
    install("acme-presets", "1 / 0")
    with pytest.raises(ConfigError, match="did you mean 'layout-guidance'") as error:
        load_preset("layout-guidence")
    assert "acme-presets" in str(error.value)


def test_a_package_brings_the_default_guidance_of_its_own_model(install: Install, preset: Path) -> None:
    install("acme-presets", brings(preset, options="fits='boxes', models=('acme-small',)"))
    plugins = discover()
    assert plugins.default_guidance("boxes", "acme-small") == "stronger"
    assert plugins.default_guidance("phrases", "acme-small") == "attend-and-excite"
    assert plugins.default_guidance("boxes", "shapeworld-base") == "layout-guidance@shapeworld"
    assert plugins.default_guidance("boxes", "owner/name") == "layout-guidance"
