"""Models that a configuration names besides the main one: where they stand, and what a source leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lsregen.framework.config.other_models import Find, with_models
from lsregen.framework.config.resolve import load_guidance, source_settings, validate
from lsregen.framework.errors import ConfigError
from lsregen.framework.plugins.registry import discover


def resolved(source: Mapping[str, Any]) -> dict[str, Any]:
    term = {"extractor": {"name": "gligen_inversion", "source": source}, "distance": "l2", "blend": 0.5}
    return validate({"guidance": {"small": term}}, discover()).as_dict()


def named(config: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The models, and whether each has a folder that only its plugin can load."""
    found: list[tuple[str, bool]] = []

    def note(name: str, find: Find | None) -> str:
        found.append((name, find is not None))
        return name

    with_models(config, discover(), note)
    return found


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ({}, "shapeworld-base"),
        ({"model": "/there"}, "/there"),
        ({"guidance": "gligen"}, "shapeworld-gligen"),
        ({"guidance": "gligen", "model": "/there"}, "/there"),
        ({"guidance": {}, "steps": 3}, "shapeworld-base"),
    ],
)
def test_a_source_without_a_model_has_that_of_its_preset(source: Mapping[str, Any], model: str) -> None:
    assert source_settings(source)["model"] == model
    assert named(resolved(source)) == [(model, False)]


def test_a_source_keeps_whether_it_has_a_guidance() -> None:
    """A model that does not see boxes is refused only where none was named."""
    assert "guidance" not in source_settings({"model": "shapeworld-base"})
    assert source_settings({"guidance": "none"})["guidance"] == {}
    plain = with_models(resolved({"model": "a", "size": [32, 32]}), discover(), lambda name, _: name)
    assert plain["guidance"]["small"]["extractor"]["source"] == {
        "model": "a", "size": [32, 32], "steps": 50, "cfg": None, "sampler": validate({}, discover()).as_dict()["sampler"],
    }  # fmt: skip


def test_models_within_sources_are_found_and_called_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "outer.yaml"
    file.write_text("guidance: {a: {extractor: {name: segmentation, model: seg}, distance: cross_entropy, gamma: 1}}\n")
    config = resolved({"model": "small", "guidance": str(file)})
    assert named(config) == [("small", False), ("seg", True)]
    moved = with_models(config, discover(), lambda name, _: f"/at/{name}")
    source = moved["guidance"]["small"]["extractor"]["source"]
    assert (source["model"], source["guidance"]["a"]["extractor"]["model"]) == ("/at/small", "/at/seg")
    file.unlink()  # it stands in the configuration by now
    assert named(moved) == [("/at/small", False), ("/at/seg", True)]
    assert config["guidance"]["small"]["extractor"]["source"]["model"] == "small"


@pytest.mark.parametrize(
    ("preset", "models"),
    [
        ("lsregen", [("shapeworld-gligen", False)]),
        ("segmenter@shapeworld", [("shapeworld-segmenter", True)]),
        ("zestguide", []),
        ("layout-guidance", []),
    ],
)
def test_the_models_of_presets(preset: str, models: list[tuple[str, bool]]) -> None:
    assert named(validate(load_guidance(preset), discover()).as_dict()) == models


def test_a_guidance_that_renders_with_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "self.yaml"
    file.write_text(
        "guidance: {a: {extractor: {name: gligen_inversion, source: {guidance: "
        f"{file}, model: small}}}}, distance: l2, blend: 0.5}}}}\n"
    )
    with pytest.raises(ConfigError, match="renders within more than 4 renders; does its guidance name itself"):
        named(resolved({"guidance": str(file)}))


def test_a_source_that_cannot_be_used_is_named() -> None:
    with pytest.raises(ConfigError, match=r"source\.seed: 3: a render has the seeds of the images it is made for; leave it out"):
        named(resolved({"seed": 3}))


def test_every_mistake_of_a_source_is_found_at_once_and_before_its_model_is_loaded() -> None:
    inner = {"extractor": {"name": "gligen_inversion", "source": {"stesp": 3, "size": 64}}, "distance": "l2", "blend": 2}
    with pytest.raises(ConfigError) as caught:
        resolved({"model": "/nowhere", "sampler": "ddmi", "guidance": {"a": inner}})
    where = "guidance.small.extractor.source"
    said = str(caught.value).split("\n")
    for line, begun in zip(
        said,
        (
            f"{where}.sampler: ",
            f"{where}.guidance.a.extractor.source.stesp: no such setting (did you mean 'steps'?); settings: description, source, "
            "model, steps, cfg, sampler, guidance, size",
            f"{where}.guidance.a.extractor.source.size: 64 is not a list of 2",
            f"{where}.guidance.a.blend: 2.0 is out of range; expected a number from 0 to 1",
        ),
        strict=True,
    ):
        assert line.startswith(begun)
    with pytest.raises(ConfigError, match="source: guidance 'gligne': no such preset"):
        resolved({"guidance": "gligne"})
