"""`lsregen plugins`, `presets` and `tokens`: what they print is what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import MappingProxyType

import pytest
from click.testing import Result

from lsregen.framework.config.options import describe_options
from lsregen.framework.config.presets import load_preset, presets
from lsregen.framework.config.yaml_text import parse_yaml
from lsregen.framework.plugins import registry as plugin_module
from lsregen.framework.plugins.registry import Broken, Plugins, discover

Call = Callable[..., Result]


def test_plugins_for_people(run: Call) -> None:
    lines = run("plugins").stdout.splitlines()
    for plugin in discover().all():
        assert any(line.startswith(f"  {plugin.name} ({plugin.package} {plugin.version})") for line in lines)
        if plugin.kind != "model":
            for option in describe_options(plugin.cls):
                assert any(line.startswith(f"      {option.key}={json.dumps(option.default)}") for line in lines)
    assert any(line.startswith("      ships with: shapeworld-base, shapeworld-gligen") for line in lines)
    assert not any("not loaded" in line for line in lines)


def test_plugins_as_json(run: Call) -> None:
    found = json.loads(run("plugins", "--json").stdout)
    assert found["broken"] == []
    listed = {(p["kind"], p["name"]): p for p in found["plugins"]}
    assert set(listed) == {(p.kind, p.name) for p in discover().all()}
    eta = {option["key"]: option for option in listed["sampler", "ddim"]["options"]}["eta"]
    assert (eta["default"], eta["type"]) == (0.0, "a number from 0 to 1")
    assert eta["help"]
    assert "shapeworld-base" in listed["model", "diffusers_folder"]["embedded"]
    for plugin in listed.values():
        assert plugin["package"] == ("lsregen-ray" if (plugin["kind"], plugin["name"]) == ("engine", "ray") else "lsregen")
        assert plugin["help"]


def test_a_limit_that_names_nobody_is_listed(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSREGEN_PLUGINS", "lsregen-nobody")
    result = run("plugins")
    assert "not loaded: LSREGEN_PLUGINS='lsregen-nobody': no installed distribution is called" in result.stdout


def test_broken_packages_are_listed(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken("lsregen-bad", "0.3", "bad = lsregen_bad", "ModuleNotFoundError: No module named 'lsregen_bad'")
    nothing = Plugins(extractors=MappingProxyType({}), broken=(broken,))
    monkeypatch.setattr(plugin_module, "discover", lambda: nothing)
    result = run("plugins")
    assert result.exit_code == 0
    assert f"not loaded: {broken}" in result.stdout
    assert "extractors: none" in result.stdout
    assert json.loads(run("plugins", "--json").stdout)["broken"][0]["package"] == "lsregen-bad"


def test_presets(run: Call) -> None:
    shown = run("presets").stdout
    everything = json.loads(run("presets", "--json").stdout)
    assert list(everything) == list(presets())
    for name in presets():
        config = load_preset(name)
        assert f"{name}\n    {config['description']}\n    {config['source']}\n" in shown
        assert parse_yaml(run("presets", name).stdout, name) == config
        assert json.loads(run("presets", name, "--json").stdout)["steps"] == config["steps"]


def test_tokens(run: Call) -> None:
    lines = run("tokens", "a red circle").stdout.splitlines()
    assert lines[0].split() == ["token", "piece", "characters", "text"]
    assert lines[3].split()[-1] == "red"
