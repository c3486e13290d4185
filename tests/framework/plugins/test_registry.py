"""Discovery: packages in a temporary folder, healthy and broken, as `pip install` would leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lsregen.framework import ConfigError, LoadOptions, PluginError, Plugins, discover
from lsregen.framework.config.resolve import validate
from lsregen.framework.plugins.class_checks import check_plugin
from lsregen.framework.plugins.registry import Registered

HEAD = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from lsregen.framework import hookimpl, option

@dataclass(frozen=True)
class Pull:
    accepts: ClassVar[tuple[str, ...]] = ("attention",)
    needs_target: ClassVar[bool] = False
    raster: str = option("area", "unused")
    def __call__(self, current, target): ...
"""
REGISTER = """
@hookimpl
def register_distances(register):
    register("pull", Pull)
"""

Install = Callable[..., None]


def only_broken() -> str:
    (broken,) = discover().broken
    return str(broken)


def test_the_built_ins_come_through_the_same_door() -> None:
    plugins = discover(only=())
    assert {"cross_attention"} <= set(plugins.extractors)
    assert {"box_energy", "l2", "max_token"} <= set(plugins.distances)
    assert {"ddim", "ddpm"} <= set(plugins.samplers)
    assert {"diffusers_folder"} <= set(plugins.models)
    assert {"shapeworld", "transformers"} <= set(plugins.detectors)
    assert {plugin.package for plugin in plugins.all()} == {"lsregen"}
    assert not plugins.broken
    assert "shapeworld-base" in plugins.embedded_models()


def test_all_lists_by_kind_and_then_by_name() -> None:
    listed = [(plugin.kind, plugin.name) for plugin in discover(only=()).all()]
    assert listed == sorted(
        listed, key=lambda p: (["extractor", "distance", "sampler", "model", "detector", "engine"].index(p[0]), p[1])
    )


def test_an_installed_package_is_found_with_its_name_and_version(install: Install) -> None:
    install("Acme-Pull", HEAD + REGISTER, version="3.4.5")
    found = discover().distances["pull"]
    assert (found.name, found.kind, found.package, found.version) == ("pull", "distance", "Acme-Pull", "3.4.5")
    assert found.cls.__name__ == "Pull"


def test_a_found_plugin_can_be_named_in_a_configuration(install: Install) -> None:
    install("acme-pull", HEAD + REGISTER)
    plugins = discover()
    config = validate({"guidance": {"x": {"extractor": "cross_attention", "distance": "pull"}}}, plugins)
    assert type(config.terms[0].distance) is plugins.distance("pull").cls
    assert plugins.name_of("distance", plugins.distance("pull").cls) == "pull"


def test_a_class_that_is_not_registered_is_called_by_its_dotted_path() -> None:
    assert discover(only=()).name_of("distance", Plugins) == "lsregen.framework.plugins.registry.Plugins"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_missing", "ModuleNotFoundError: No module named 'a_module_that_is_missing'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        (HEAD + REGISTER.replace("register_distances", "register_distance"), "unknown hook 'register_distance'"),
        (HEAD + REGISTER.replace("(register)", "(registrar)"), "Argument(s) {'registrar'} are declared in the hookimpl"),
        (HEAD + REGISTER.replace("@hookimpl", ""), "it implements no hook of lsregen; mark its functions with @hookimpl"),
        (HEAD.replace("(frozen=True)", "") + REGISTER, "is not a frozen dataclass; write @dataclass(frozen=True) above"),
        (HEAD.replace("@dataclass(frozen=True)", "") + REGISTER, "is not a frozen dataclass"),
        (HEAD + REGISTER.replace(", Pull)", ", Pull())"), "is not a frozen dataclass"),
        (HEAD.replace("    raster: str", "    other: str") + REGISTER, "distance 'pull': Pull has no raster"),
        (HEAD.replace('("attention",)', '("atention",)') + REGISTER, "accepts 'atention' is not one of attention, logits,"),
        (HEAD.replace('("attention",)', '"attention"') + REGISTER, "accepts is 'attention'; expected a tuple of feature kinds"),
        (HEAD.replace('("attention",)', "()") + REGISTER, "accepts is (); expected a tuple of feature kinds"),
        (HEAD + REGISTER.replace('"pull"', '"Pull It"'), "distance 'Pull It': a name is lower case letters, digits and _"),
        (HEAD.replace("raster: str =", "name: str = ''\n    raster: str =") + REGISTER, "an option cannot be called 'name'"),
        (HEAD.replace("raster: str", "raster: 'Missing'") + REGISTER, "NameError: name 'Missing' is not defined"),
        (HEAD + REGISTER + "    register('pull', Pull)\n", "distance 'pull' is already registered by acme-pull 1.2"),
        (HEAD + REGISTER.replace("distances", "extractors"), "extractor 'pull': Pull has no kind, needs, prepare, current"),
        (HEAD + REGISTER.replace("distances", "samplers"), "sampler 'pull': Pull has no schedule, step, stochastic, invert_step"),
        (HEAD + REGISTER.replace("distances", "models"), "model 'pull': Pull has no embedded, takes, recognises, load"),
    ],
)  # fmt: skip
def test_a_broken_package_is_named_with_the_reason_and_leaves_the_others_alone(
    install: Install, source: str, reason: str
) -> None:
    install("acme-pull", source)
    install("zeta", HEAD + REGISTER.replace('"pull"', '"zeta"'))
    plugins = discover()
    (broken,) = plugins.broken
    assert str(broken).startswith("acme-pull 1.2 (entry point plugin = acme_pull): ")
    assert reason in str(broken)
    assert "zeta" in plugins.distances
    assert "pull" not in plugins.distances
    assert "box_energy" in plugins.distances


def test_a_package_that_breaks_half_way_registers_nothing(install: Install) -> None:
    install("acme-pull", HEAD + REGISTER + "    register('Bad Name', Pull)\n")
    assert "pull" not in discover().distances


def test_a_broken_package_is_named_when_something_unknown_is_asked_for(install: Install) -> None:
    install("acme-pull", "1 / 0")
    plugins = discover()
    expected = r"no distance is called 'pul'; installed: .*\nnot loaded: acme-pull 1.2 .*ZeroDivisionError"
    with pytest.raises(PluginError, match=expected):
        plugins.distance("pul")
    with pytest.raises(ConfigError, match=r"not loaded: acme-pull 1\.2"):
        plugins.load_model("their-model")


def test_a_name_taken_by_another_package_names_both(install: Install) -> None:
    install("acme-pull", HEAD + REGISTER)
    install("zeta-pull", HEAD + REGISTER, version="7")
    plugins = discover()
    assert plugins.distances["pull"].package == "acme-pull"
    assert "zeta-pull 7 " in str(plugins.broken[0])
    assert "distance 'pull' is already registered by acme-pull 1.2" in str(plugins.broken[0])


def test_a_built_in_name_cannot_be_taken(install: Install) -> None:
    install("acme-pull", HEAD + REGISTER.replace('"pull"', '"l2"'))
    assert discover().distances["l2"].package == "lsregen"
    assert "distance 'l2' is already registered by lsregen" in only_broken()


def test_one_name_may_serve_two_kinds(install: Install) -> None:
    sampler = """
@dataclass(frozen=True)
class Walk:
    stochastic = False
    def schedule(self, noise, count): ...
    def step(self, z, prediction, step, noise): ...
    def invert_step(self, z, prediction, step): ...

@hookimpl
def register_samplers(register):
    register("pull", Walk)
"""
    install("acme-pull", HEAD + REGISTER + sampler)
    plugins = discover()
    assert not plugins.broken
    assert {plugins.distances["pull"].kind, plugins.samplers["pull"].kind} == {"distance", "sampler"}


def test_two_packages_may_use_the_same_entry_point_name(install: Install) -> None:
    install("acme-pull", HEAD + REGISTER, point="plugins")
    install("zeta-pull", HEAD + REGISTER.replace('"pull"', '"push"'), point="plugins")
    plugins = discover()
    assert {"pull", "push"} <= set(plugins.distances)
    assert not plugins.broken


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (None, {"pull", "push"}),
        ("", set[str]()),
        ("acme-pull", {"pull"}),
        ("ACME_pull", {"pull"}),
        (" acme.pull , zeta-pull ", {"pull", "push"}),
    ],
)
def test_the_environment_limits_which_packages_are_loaded(
    install: Install, monkeypatch: pytest.MonkeyPatch, limit: str | None, found: set[str]
) -> None:
    install("Acme-Pull", HEAD + REGISTER)
    install("zeta-pull", HEAD + REGISTER.replace('"pull"', '"push"'))
    if limit is not None:
        install("theta", "1 / 0")
        monkeypatch.setenv("LSREGEN_PLUGINS", limit)
    plugins = discover()
    assert {"pull", "push"} & set(plugins.distances) == found
    assert "box_energy" in plugins.distances
    assert not plugins.broken, "a package that is not wanted is not even imported"


@pytest.mark.parametrize(("name", "meant"), [("Acme_Pul", "acme-pull"), ("pytset", "pytest")])
def test_a_name_in_the_environment_that_nobody_has_is_listed_with_the_nearest(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    install("acme-pull", HEAD + REGISTER)
    monkeypatch.setenv("LSREGEN_PLUGINS", f"{name}, pytest")
    assert only_broken() == (
        f"LSREGEN_PLUGINS='{name}, pytest': no installed distribution is called {name!r} (did you mean {meant!r}?); "
        "those with plugins: acme-pull, lsregen-ray"
    )
    with pytest.raises(PluginError, match=f"no distance is called 'pull'.*\nnot loaded: LSREGEN_PLUGINS='{name}, pytest': no"):
        discover().distance("pull")


def test_what_the_environment_hides_is_answered_with_the_limit(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme-pull", HEAD + REGISTER)
    monkeypatch.setenv("LSREGEN_PLUGINS", "")
    with pytest.raises(PluginError, match=r"no distance is called 'pull'.*\nLSREGEN_PLUGINS='' limits what is loaded$"):
        discover().distance("pull")
    with pytest.raises(PluginError, match=r"installed: [a-z0-9_, ]+$"):
        discover(only=()).distance("pull")


def test_the_argument_goes_before_the_environment(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme-pull", HEAD + REGISTER)
    monkeypatch.setenv("LSREGEN_PLUGINS", "")
    assert "pull" in discover(only=["acme-pull"]).distances
    monkeypatch.setenv("LSREGEN_PLUGINS", "acme-pull")
    assert "pull" not in discover(only=[]).distances


def test_what_was_found_cannot_be_changed() -> None:
    plugins = discover(only=())
    with pytest.raises(FrozenInstanceError):
        plugins.broken = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        plugins.distances["mine"] = plugins.distances["l2"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        plugins.distances["l2"].name = "mine"  # type: ignore[misc]


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all() -> None:
    with pytest.raises(PluginError) as caught:
        discover(only=()).distance("box_enrgy")
    assert str(caught.value) == (
        "no distance is called 'box_enrgy' (did you mean 'box_energy'?); installed: attribute_binding, box_energy, boxdiff, "
        "cross_entropy, l2, max_token"
    )


def test_finding_plugins_on_an_empty_value_says_that_there_are_none() -> None:
    with pytest.raises(PluginError, match="no sampler is called 'ddim'; installed: none"):
        Plugins().sampler("ddim")


def test_an_unknown_model_is_answered_with_the_nearest_and_with_all() -> None:
    with pytest.raises(ConfigError) as caught:
        discover(only=()).load_model("shapeworld-bas")
    text = str(caught.value)
    assert text.startswith("model 'shapeworld-bas' is neither a model that ships with lsregen (")
    assert "nor an existing path" in text
    assert text.endswith("owner/name (did you mean 'shapeworld-base'?)")


def test_a_path_that_no_loader_recognises_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not recognised by any installed model plugin \(checkpoint_file, diffusers_folder\)"):
        discover(only=()).load_model(tmp_path)


LOADER = """
class Loader:
    embedded = {{"{model}": Path(__file__)}}
    takes = ("tile",)
    def recognises(self, path):
        return path.suffix == ".acme"
    def load(self, path, options):
        return ("loaded", path.name, options.device, options.dtype, options.tile)

@hookimpl
def register_models(register):
    register("acme", Loader())
"""


def test_models_of_other_packages_load_by_name_and_by_path(install: Install, tmp_path: Path) -> None:
    install("acme", HEAD + LOADER.format(model="acme-1"))
    plugins = discover()
    loaded: Any = plugins.load_model("acme-1", device="cpu")
    assert loaded == ("loaded", "acme.py", "cpu", "auto", None)
    (tmp_path / "a.acme").touch()
    loaded = plugins.load_model(tmp_path / "a.acme", dtype="fp16", tile=64, vae=None)
    assert loaded == ("loaded", "a.acme", "auto", "fp16", 64)
    with pytest.raises(ConfigError, match=r"a\.acme: memory is no option of 'acme', which loads it; .* revision, tile$"):
        plugins.load_model(tmp_path / "a.acme", memory="low")
    with pytest.raises(ConfigError) as caught:
        plugins.load_model(tmp_path / "a.acme", memry="low", tile=2)
    unknown, tile = str(caught.value).split("\n")
    assert unknown.startswith("memry: no such option for a model (did you mean 'memory'?); options: device, dtype, ")
    assert tile == "tile: 2 is out of range; expected a whole number of at least 16"


def test_a_loader_that_fails_to_look_at_a_path_is_named(install: Install, tmp_path: Path) -> None:
    install("acme", HEAD + LOADER.format(model="acme-1").replace('path.suffix == ".acme"', "path.open()"))
    with pytest.raises(PluginError, match=r"'acme'.* of acme 1\.2 raised IsADirectoryError"):
        discover().load_model(tmp_path)


def test_a_package_that_was_half_removed_takes_nothing_down(install: Install, tmp_path: Path) -> None:
    install("acme-pull", HEAD + REGISTER)
    (tmp_path / "acme_pull-1.2.dist-info" / "METADATA").write_text("")
    assert discover().distances["pull"].package == "unknown"


def test_an_embedded_model_cannot_be_replaced_by_another_package(install: Install) -> None:
    install("acme", HEAD + LOADER.format(model="shapeworld-base"))
    assert "a model called 'shapeworld-base' ships with lsregen" in only_broken()
    assert discover().embedded_models()["shapeworld-base"][1].package == "lsregen"


def test_a_plugins_value_can_be_narrowed_for_a_test() -> None:
    plugins = discover(only=())
    assert replace(plugins, distances={}).samplers == plugins.samplers


@dataclass
class PlainLoader:
    """A plain dataclass has no hash."""

    embedded: dict[str, Path] = field(default_factory=dict[str, Path])
    takes: tuple[str, ...] = ()

    def recognises(self, path: Path) -> bool:
        return path.suffix == ".plain"

    def load(self, path: Path, options: LoadOptions) -> str:
        return f"{path.name} on {options.device}"

    def inspect(self, path: Path) -> str:
        return path.name

    def convert(self, path: Path, out: Path) -> tuple[str, ...]:
        return (out.name,)


def test_a_loader_without_a_hash_works_in_every_method(tmp_path: Path) -> None:
    loader, path = PlainLoader(), tmp_path / "a.plain"
    path.touch()
    check_plugin("model", "plain", loader)
    with pytest.raises(TypeError):
        hash(loader)
    registered = Registered("plain", "model", loader, "acme", "1.2")
    found = Plugins(models={"plain": registered}, samplers=discover(only=()).samplers)
    assert found.versions_of(loader, found.sampler("ddim").cls()) == {}
    assert found.all()[-1] is registered
    assert found.find("model", "plain") is registered
    assert found.name_of("sampler", found.sampler("ddim").cls) == "ddim"
    assert found.embedded_models() == {}
    assert found.load_model(path, device="cpu") == "a.plain on cpu"  # type: ignore[comparison-overlap]
    assert found.inspect_model(path) == "a.plain"  # type: ignore[comparison-overlap]
    assert found.convert_model(path, tmp_path / "out") == ("out",)


def test_a_misspelt_hook_is_told_which_there_are(install: Install) -> None:
    install("acme", "from lsregen.framework import hookimpl\n\n@hookimpl\ndef register_distance(register): ...\n")
    (broken,) = discover(only=["acme"]).broken
    for said in ("register_distance", "did you mean 'register_distances'", "register_detectors"):
        assert said in broken.error


def test_whatever_a_module_raises_is_one_broken_package_and_an_interruption_passes(install: Install) -> None:
    install("acme", "class Stop(BaseException): pass\n\nraise Stop('here')\n")
    (broken,) = discover(only=["acme"]).broken
    assert "Stop: here" in broken.error
    install("interrupted", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        discover(only=["interrupted"])


def test_a_class_that_no_package_registers_is_said_to_be_one() -> None:
    with pytest.raises(PluginError, match="entry point") as caught:
        discover(only=()).find("extractor", "my_package.looks.Mine")
    assert "my_package.looks.Mine" in str(caught.value)
