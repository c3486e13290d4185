"""Configurations as data: presets, merging, settings from text, and a validation that reports every problem at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from lsregen.framework import ConfigError, Guidance, Schedule, Term, discover
from lsregen.framework.config.merging import apply_sets, expanded, merge
from lsregen.framework.config.presets import load_preset, presets
from lsregen.framework.config.resolve import validate
from lsregen.framework.config.yaml_text import parse_yaml
from lsregen.framework.plugins.registry import Registered

PLUGINS = discover(only=())
TERM = {"extractor": "cross_attention", "distance": "box_energy"}


@dataclass(frozen=True)
class Latent:
    """An extractor of another kind."""

    kind: ClassVar[str] = "latent"


def with_latent() -> Any:
    registered = Registered("latent", "extractor", Latent, "acme", "1")
    return replace(PLUGINS, extractors=MappingProxyType({**PLUGINS.extractors, "latent": registered}))


def problems(config: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(config, PLUGINS)
    return str(caught.value).split("\n")


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_is_valid_and_survives_the_round_trip(name: str) -> None:
    preset = load_preset(name)
    assert preset["description"]
    assert preset["source"]
    resolved = validate(preset, PLUGINS)
    assert resolved.terms or resolved.model, "it pulls, or names a model that needs no pull"
    assert validate(resolved.as_dict(), PLUGINS) == resolved
    assert validate(json.loads(json.dumps(resolved.as_dict())), PLUGINS) == resolved
    assert validate(parse_yaml(resolved.to_yaml(), "here"), PLUGINS) == resolved


def test_the_published_methods_are_there() -> None:
    assert {"attend-and-excite", "layout-guidance", "semantic-layout"} <= set(presets())


def test_an_empty_configuration_is_the_defaults() -> None:
    resolved = validate({}, PLUGINS)
    assert resolved.as_dict() == {
        "steps": 50,
        "cfg": None,
        "sampler": {"name": "ddim", "eta": 0.0, "until": 1.0},
        "seed": 0,
        "guidance": {},
    }


def test_options_of_the_default_sampler_can_be_set_without_naming_it() -> None:
    assert validate({"sampler": {"eta": 1}}, PLUGINS).as_dict()["sampler"] == {"name": "ddim", "eta": 1.0, "until": 1.0}


def test_a_model_is_kept_and_what_is_for_people_is_not() -> None:
    resolved = validate({"model": "x", "description": "d", "source": "s"}, PLUGINS).as_dict()
    assert resolved["model"] == "x"
    assert not {"description", "source"} & set(resolved)


def test_guidance_built_by_hand_is_described_by_the_names_its_plugins_are_registered_by() -> None:
    extractor, distance = PLUGINS.extractor("cross_attention").cls(), PLUGINS.distance("box_energy").cls()
    guidance = Guidance([Term(extractor, distance, Schedule(gamma=3, from_=0.25), "mine")])
    resolved = validate({}, PLUGINS).with_terms(guidance.terms, PLUGINS)
    assert resolved.as_dict()["guidance"]["mine"]["distance"] == {"name": "box_energy", "raster": "area"}
    assert resolved.as_dict()["guidance"]["mine"]["from"] == 0.25
    assert validate(resolved.as_dict(), PLUGINS) == resolved


# Merging


def test_later_values_go_over_earlier_ones_mapping_by_mapping() -> None:
    base = {"steps": 50, "guidance": {"a": {**TERM, "gamma": 1}, "b": TERM}}
    merged = merge(base, {"steps": 10}, {"guidance": {"a": {"gamma": 2}}})
    assert merged["steps"] == 10
    assert merged["guidance"]["a"] == {"extractor": {"name": "cross_attention"}, "distance": {"name": "box_energy"}, "gamma": 2}
    assert list(merged["guidance"]) == ["a", "b"]
    assert base["guidance"]["a"]["gamma"] == 1  # type: ignore[index]


def test_a_list_replaces_a_list() -> None:
    base = {"guidance": {"a": {"extractor": {"name": "cross_attention", "layers": ["mid", "up"]}}}}
    merged = merge(base, {"guidance": {"a": {"extractor": {"layers": ["down"]}}}})
    assert merged["guidance"]["a"]["extractor"] == {"name": "cross_attention", "layers": ["down"]}


def test_the_same_plugin_keeps_its_options_and_another_one_does_not() -> None:
    base = {"sampler": {"name": "ddim", "eta": 0.5}}
    assert merge(base, {"sampler": "ddim"})["sampler"] == {"name": "ddim", "eta": 0.5}
    assert merge(base, {"sampler": "ddpm"})["sampler"] == {"name": "ddpm"}
    assert merge(base, {"sampler": {"eta": 1}})["sampler"] == {"name": "ddim", "eta": 1}


def test_an_empty_mapping_empties_one() -> None:
    preset = load_preset("attend-and-excite")
    assert preset["guidance"]["semantic"]["refine"]
    assert apply_sets(preset, ["guidance.semantic.refine={}"])["guidance"]["semantic"]["refine"] == {}
    assert merge(preset, {"guidance": {}})["guidance"] == {}
    assert merge(preset, {}) == expanded(preset)


def test_merging_changes_none_of_its_inputs() -> None:
    base = {"guidance": {"a": {"distance": {"name": "l2"}}}}
    merged = merge(base, {})
    merged["guidance"]["a"]["distance"]["name"] = "other"
    assert base["guidance"]["a"]["distance"]["name"] == "l2"


def test_plain_names_are_expanded_and_nothing_else_is() -> None:
    assert expanded({"sampler": "ddim", "model": "m", "guidance": {"a": TERM, "b": 3}}) == {
        "sampler": {"name": "ddim"},
        "model": "m",
        "guidance": {"a": {"extractor": {"name": "cross_attention"}, "distance": {"name": "box_energy"}}, "b": 3},
    }


# Settings from text


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("steps=10", ("steps",), 10),
        ("cfg=2.5", ("cfg",), 2.5),
        ("cfg=null", ("cfg",), None),
        ("cfg=1e-3", ("cfg",), 0.001),
        (" steps = 10", ("steps",), 10),
        ("sampler=ddpm", ("sampler", "name"), "ddpm"),
        ("sampler.eta=1", ("sampler", "eta"), 1),
        ("guidance.layout.gamma=40", ("guidance", "layout", "gamma"), 40),
        ("guidance.layout.stop_forever=false", ("guidance", "layout", "stop_forever"), False),
        ("guidance.layout.extractor.layers=[mid, up]", ("guidance", "layout", "extractor", "layers"), ["mid", "up"]),
        ("guidance.layout.distance=max_token", ("guidance", "layout", "distance", "name"), "max_token"),
        ("guidance.layout.distance.raster=truncate", ("guidance", "layout", "distance", "raster"), "truncate"),
        ("guidance.layout.refine={0.1: [0.5, 20]}", ("guidance", "layout", "refine"), {0.1: [0.5, 20]}),
        ("description=a=b", ("description",), "a=b"),
    ],
)
def test_a_setting_is_read_as_yaml_and_put_in_its_place(text: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = apply_sets(load_preset("layout-guidance"), [text])
    validate(found, PLUGINS)
    for part in path:
        found = found[part]
    assert found == value


def test_settings_apply_in_order_and_leave_the_rest_alone() -> None:
    preset = load_preset("layout-guidance")
    found = apply_sets(preset, ["steps=10", "guidance.layout.gamma=40", "steps=20"])
    expected = expanded(preset)
    expected["guidance"]["layout"]["gamma"] = 40
    assert found == {**expected, "steps": 20}


def test_a_whole_term_can_be_added() -> None:
    found = apply_sets({}, ["guidance.mine={extractor: cross_attention, distance: l2}", "guidance.mine.gamma=3"])
    assert validate(found, PLUGINS).terms[0].schedule.gamma == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "--set 'steps': expected key=value, such as guidance.layout.gamma=40"),
        ("=3", "--set '=3': expected key=value, such as guidance.layout.gamma=40"),
        ("guidance..gamma=3", "--set 'guidance..gamma=3': expected key=value, such as guidance.layout.gamma=40"),
        (
            "guidance.layuot.gamma=3",
            "--set 'guidance.layuot.gamma=3': the guidance has no term 'layuot' (did you mean 'layout'?); terms: layout",
        ),
        ("steps=[1", "--set 'steps=[1': the value is not YAML: "),
        ("steps=a: b", "--set 'steps=a: b': the value is not YAML: "),
    ],
)
def test_a_malformed_setting_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_sets(load_preset("layout-guidance"), [text])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_setting_of_a_term_without_guidance_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="has no term 'layout'; terms: none; name a preset with --guidance"):
        apply_sets({}, ["guidance.layout.gamma=3"])
    with pytest.raises(ConfigError, match="has no term 'layout'"):
        apply_sets({"guidance": "layout-guidance"}, ["guidance.layout.gamma=3"])


def test_an_unknown_key_in_a_setting_is_refused_by_validation() -> None:
    found = apply_sets(load_preset("layout-guidance"), ["guidance.layout.gama=3", "stpes=3"])
    first, second = problems(found)
    assert first.startswith("stpes: no such setting (did you mean 'steps'?); settings: ")
    assert second.startswith("guidance.layout.gama: no such option for a term (did you mean 'gamma'?); options: ")


# What is wrong


def test_an_unknown_preset_is_answered_with_the_nearest_and_with_all() -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("layuot-guidance")
    assert str(caught.value).startswith("guidance 'layuot-guidance': no such preset (did you mean 'layout-guidance'?); presets: ")


INSTALLED = "installed: attribute_binding, box_energy, boxdiff, cross_entropy, l2, max_token"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stesp": 3}, "stesp: no such setting (did you mean 'steps'?); settings: "),
        ({1: 3}, "1: no such setting; settings: "),
        ({"steps": "ten"}, "steps: 'ten' is not a whole number"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"steps": True}, "steps: True is not a whole number"),
        ({"steps": None}, "steps: None is not a whole number"),
        ({"steps": 0}, "steps: 0 is out of range; expected a whole number from 1 to 10,000"),
        ({"cfg": "high"}, "cfg: 'high' is not a number of at least 0 or nothing"),
        ({"cfg": float("nan")}, "cfg: nan is not a number of at least 0 or nothing"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number"),
        ({"model": 3}, "model: 3 is not text or nothing"),
        ({"sampler": "dimm"}, "sampler: no sampler is called 'dimm' (did you mean 'ddim'?); installed: ddim, ddpm"),
        ({"sampler": None}, "sampler: None does not name a sampler; installed: ddim, ddpm"),
        ({"sampler": {"name": "ddim", "etta": 1}}, "sampler.etta: no such option for sampler 'ddim' (did you mean 'eta'?)"),
        ({"guidance": "layout-guidance"}, "guidance: 'layout-guidance' is not a mapping from term names to terms"),
        ({"guidance": ["a"]}, "guidance: ['a'] is not a mapping from term names to terms"),
        ({"guidance": {"a": 3}}, "guidance.a: 3 is not a mapping with extractor, distance and a schedule"),
        (
            {"guidance": {"a": {"extractor": "cross_attention"}}},
            f"guidance.a.distance: None does not name a distance; {INSTALLED}",
        ),
        (
            {"guidance": {"a": {**TERM, "distance": "box_enrgy"}}},
            f"guidance.a.distance: no distance is called 'box_enrgy' (did you mean 'box_energy'?); {INSTALLED}",
        ),
        (
            {"guidance": {"a": {**TERM, "distance": {"name": "l2", "reduction": 3}}}},
            "guidance.a.distance.reduction: 3 is not one of sum, mean",
        ),
        ({"guidance": {"a": {**TERM, "gamma": "x"}}}, "guidance.a.gamma: 'x' is not a number"),
        ({"guidance": {"a": {**TERM, "from": 0.5, "until": 0.2}}}, "guidance.a: from 0.5 is not before until 0.2"),
        ({"guidance": {"a": {**TERM, "decay": "linaer"}}}, "guidance.a.decay: 'linaer' is not one of constant, "),
        (
            {"guidance": {"a": {**TERM, "distence": 1}}},
            "guidance.a.distence: no such option for a term (did you mean 'distance'?)",
        ),
    ],
)
def test_one_problem_is_one_line_with_its_path(config: Any, message: str) -> None:
    (line,) = problems(config)
    assert line.startswith(message)


def test_every_problem_of_a_configuration_is_reported_at_once() -> None:
    config = {
        "stesp": 3,
        "steps": 0,
        "sampler": "euler",
        "guidance": {
            "a": {
                "extractor": {"name": "cross_attention", "heads": 3, "layer": 1},
                "distance": "nope",
                "gamma": "x",
                "site": "z",
            },
            "b": 3,
        },
    }
    paths = [line.split(": ")[0] for line in problems(config)]
    assert paths == [
        "steps",
        "stesp",
        "sampler",
        "guidance.a.extractor.heads",
        "guidance.a.extractor.layer",
        "guidance.a.distance",
        "guidance.a.gamma",
        "guidance.a.site",
        "guidance.b",
    ]


def test_a_distance_that_does_not_take_the_features_is_refused_naming_both() -> None:
    with pytest.raises(ConfigError) as caught:
        validate({"guidance": {"a": {"extractor": "latent", "distance": "box_energy"}}}, with_latent())
    assert str(caught.value) == (
        "guidance.a: distance 'box_energy' accepts features of kind attention, probability, but extractor 'latent' gives latent"
    )


def test_a_misfit_is_reported_together_with_faulty_options() -> None:
    term = {"extractor": "latent", "distance": {"name": "box_energy", "raster": 3}, "gamma": "x"}
    with pytest.raises(ConfigError) as caught:
        validate({"guidance": {"a": term}}, with_latent())
    paths = [line.split(": ")[0] for line in str(caught.value).split("\n")]
    assert paths == ["guidance.a.distance.raster", "guidance.a.gamma", "guidance.a"]


def test_a_raster_rule_that_does_not_exist_is_refused_before_anything_is_loaded() -> None:
    term = {"extractor": "cross_attention", "distance": {"name": "box_energy", "raster": "trunc"}}
    with pytest.raises(
        ConfigError, match=r"^guidance\.a\.distance\.raster: 'trunc' is not one of area, .*did you mean 'truncate'"
    ):
        validate({"guidance": {"a": term}}, with_latent())


def test_features_that_fit_are_accepted() -> None:
    assert validate({"guidance": {"a": {"extractor": "latent", "distance": "l2"}}}, with_latent()).terms
