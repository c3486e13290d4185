"""The configuration of a run as data: reading, merging, overriding, and one validation that reports every problem at once.

What the values mean is checked by plugin.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from ..errors import ConfigError, PluginError, nearest, shown, told_of
from ..layout.rasters import check_raster
from .field_types import key_of
from .merging import DEFAULTS, KEYS, SOURCE_KEYS, Config, merge, named
from .options import build, convert, join, to_values
from .presets import DEFAULT_MODEL, load_preset
from .yaml_text import load_yaml

if TYPE_CHECKING:
    from ..guidance.run import Term
    from ..guidance.schedule import Schedule
    from ..plugins.registry import Plugins
    from ..protocols import Distance, FeatureExtractor, Sampler

DEEPEST = 4  # renders within renders
KEYED = re.compile(r"[\w.\[\]-]+: ")  # a problem that begins with the path of a setting


@dataclass(frozen=True)
class ResolvedTerm:
    """A term of the guidance with its plugins built, under the names they are registered by."""

    name: str
    extractor_name: str
    extractor: FeatureExtractor
    distance_name: str
    distance: Distance
    schedule: Schedule

    def as_dict(self) -> Config:
        return {
            "extractor": {"name": self.extractor_name, **to_values(self.extractor)},
            "distance": {"name": self.distance_name, **to_values(self.distance)},
            **to_values(self.schedule),
        }


@dataclass(frozen=True)
class ResolvedConfig:
    """A complete configuration: every default filled in, every plugin built. `cfg` is None until a model says its own."""

    steps: int
    cfg: float | None
    sampler_name: str
    sampler: Sampler
    seed: int
    terms: tuple[ResolvedTerm, ...]
    model: str | None = None

    def as_dict(self) -> Config:
        """Plain values, which `validate` takes again."""
        return {
            **({} if self.model is None else {"model": self.model}),
            "steps": self.steps,
            "cfg": self.cfg,
            "sampler": {"name": self.sampler_name, **to_values(self.sampler)},
            "seed": self.seed,
            "guidance": {term.name: term.as_dict() for term in self.terms},
        }

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    def with_terms(self, terms: Sequence[Term], plugins: Plugins) -> ResolvedConfig:
        """The same run with guidance that was built by hand."""
        resolved = tuple(
            ResolvedTerm(
                t.name,
                plugins.name_of("extractor", type(t.extractor)),
                t.extractor,
                plugins.name_of("distance", type(t.distance)),
                t.distance,
                t.schedule,
            )
            for t in terms
        )
        return replace(self, terms=resolved)


def load_guidance(given: Mapping[str, Any] | str | Path | None, plugins: Plugins | None = None) -> Config:
    """A preset by its name, a file by its ending `.yaml`, a mapping as it is, nothing for `none` or None.

    `plugins`: those that bring the presets; all that are installed by default.

    Raises:
        ConfigError: as `load_preset` and `load_yaml`.
    """
    if given is None or (isinstance(given, str) and given == "none"):
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(cast("object", given), str | Path):
        raise ConfigError(
            f"guidance: {shown(given)}: expected a preset's name, a file ending in .yaml, a mapping, a Guidance or terms"
        )
    if isinstance(given, Path) or given.endswith((".yaml", ".yml")):
        return _of_file(Path(given), plugins)
    return load_preset(given) if plugins is None else load_yaml(plugins.preset(given).path)


def _of_file(path: Path, plugins: Plugins | None) -> Config:
    """A configuration whose settings are known and of the right types, told while it is known which file they are of."""
    config = load_yaml(path)
    problems: list[str] = []
    _settings(config, SOURCE_KEYS, problems)
    if problems or not isinstance(config.get("guidance", {}), dict):
        from ..plugins.registry import installed

        with told_of(f"configuration {path}"):
            validate(config, installed(plugins))  # which names everything else that is wrong as well
    return config


def validate(config: Mapping[str, Any], plugins: Plugins, depth: int = 0) -> ResolvedConfig:
    """Build everything a configuration describes.

    Args:
        depth: of a render's source, how many renders it is within; it may have a size, and options of its loader, too.

    Raises:
        ConfigError: every problem at once, a line each: the full path, what was given, what was expected.
    """
    problems: list[str] = []
    given = merge(DEFAULTS, config)
    checked = _settings(given, SOURCE_KEYS if depth else KEYS, problems, ("seed",) if depth else ())
    sampler_name, sampler = _plugin("sampler", checked.get("sampler"), "sampler", plugins, problems, depth)
    guidance = checked["guidance"]
    terms: list[ResolvedTerm] = []
    if not isinstance(guidance, dict):
        problems.append(f"guidance: {shown(guidance)} is not a mapping from term names to terms")
    else:
        for name, term in cast("dict[Any, Any]", guidance).items():
            if (resolved := _term(str(name), term, plugins, problems, depth)) is not None:
                terms.append(resolved)
    if problems:
        raise ConfigError("\n".join(problems))
    return ResolvedConfig(
        checked["steps"], checked["cfg"], sampler_name, sampler, checked["seed"], tuple(terms), checked.get("model")
    )


def source_settings(source: Mapping[str, Any], plugins: Plugins | None = None) -> Config:
    """A render's source with its model named, and with what its preset or file of guidance says; no `guidance` if it names none.

    Without a model it has that of its guidance's preset. `plugins`: as `load_guidance` takes them.

    Raises:
        ConfigError: no such guidance, or a seed.
    """
    given = dict(source)
    if "seed" in given:
        raise ConfigError(f"seed: {given['seed']!r}: a render has the seeds of the images it is made for; leave it out")
    guidance = given.pop("guidance", None)
    base = {"guidance": cast("object", guidance)} if isinstance(guidance, Mapping) else load_guidance(guidance, plugins)
    name = given.pop("model", None) or base.get("model") or DEFAULT_MODEL
    empty: Config = {} if guidance is None else {"guidance": {}}
    settings = {key: value for key, value in base.items() if key not in ("model", "description", "source")}
    return {**merge(empty, settings, given), "model": convert(name, str, "model")}


def checked_source(source: Mapping[str, Any], plugins: Plugins, depth: int = 0) -> Config:
    """`source_settings`, with everything checked that can be without its model. `depth`: how many renders it is within.

    Raises:
        ConfigError: every problem at once, a line each.
    """
    if depth == DEEPEST:
        raise ConfigError(f"renders within more than {DEEPEST} renders; does its guidance name itself?")
    settings = source_settings(source, plugins)
    validate(settings, plugins, depth + 1)
    return settings


def sources_of(plugin: Any) -> dict[str, Mapping[str, Any]]:
    """What renders for a plugin: the sources that its options name, by their keys."""
    named = [f for f in fields(plugin) if f.metadata.get("model") == "source"] if is_dataclass(plugin) else []
    found = {key_of(f): getattr(plugin, f.name) for f in named}
    return {key: source for key, source in found.items() if source is not None}


def _check_sources(plugin: Any, path: str, plugins: Plugins, depth: int) -> None:
    """Whether what renders for a plugin can be used, as far as that can be told without its model.

    Args:
        path: where the plugin stands in the configuration.
        depth: how many renders that is within.

    Raises:
        ConfigError: every problem at once, a line each, with its full path.
    """
    for key, source in sources_of(plugin).items():
        try:
            checked_source(source, plugins, depth)
        except ConfigError as error:
            where, lines = join(path, key), str(error).split("\n")
            keyed = (f"{where}.{line}" if KEYED.match(line) else f"{where}: {line}" for line in lines)
            raise ConfigError("\n".join(keyed)) from None


def _settings(given: Mapping[Any, Any], keys: Mapping[str, Any], problems: list[str], unnamed: Collection[str] = ()) -> Config:
    """The settings that are known and of the right type; the others are noted. `unnamed`: known, but not told of."""
    checked: Config = {}
    for key, value in given.items():
        if key not in keys:
            listed = [each for each in keys if each not in unnamed]
            problems.append(f"{key}: no such setting{nearest(str(key), listed)}; settings: {', '.join(listed)}")
            continue
        try:
            checked[key] = convert(value, keys[key], key)
        except ConfigError as error:
            problems.append(str(error))
    return checked


def _term(name: str, given: Any, plugins: Plugins, problems: list[str], depth: int) -> ResolvedTerm | None:
    """One term; None, with its problems noted, if it cannot be built."""
    from ..guidance.run import Term
    from ..guidance.schedule import Schedule

    path = f"guidance.{name}"
    if not isinstance(given, dict):
        problems.append(f"{path}: {shown(given)} is not a mapping with extractor, distance and a schedule")
        return None
    term = cast("Config", given)
    before = len(problems)
    extractor_name, extractor = _plugin("extractor", term.get("extractor"), f"{path}.extractor", plugins, problems, depth)
    distance_name, distance = _plugin("distance", term.get("distance"), f"{path}.distance", plugins, problems, depth)
    schedule = None
    try:
        values = {key: value for key, value in term.items() if key not in ("extractor", "distance")}
        schedule = build(Schedule, values, path, "a term", beside=("extractor", "distance"))
    except ConfigError as error:
        problems.append(str(error))
    kind, accepts = _kinds(plugins, extractor_name, distance_name)  # from the classes: faulty options do not hide a misfit
    if kind and accepts and kind not in accepts:
        problems.append(
            f"{path}: distance {distance_name!r} accepts features of kind {', '.join(accepts)}, "
            f"but extractor {extractor_name!r} gives {kind}"
        )
    try:
        check_raster(getattr(distance, "raster", "area"))
    except ConfigError as error:
        problems.append(f"{path}.distance.{error}")
    if len(problems) > before or schedule is None:
        return None
    try:
        Term(extractor, distance, schedule, name)
    except ConfigError as error:
        problems.append(f"guidance, {error}")
        return None
    return ResolvedTerm(name, extractor_name, extractor, distance_name, distance, schedule)


def _kinds(plugins: Plugins, extractor: str, distance: str) -> tuple[str, tuple[str, ...]]:
    """What an extractor gives and a distance accepts; empty where there is no such plugin."""
    found, wanted = plugins.extractors.get(extractor), plugins.distances.get(distance)
    return found.cls.kind if found else "", wanted.cls.accepts if wanted else ()


def _plugin(kind: str, given: Any, path: str, plugins: Plugins, problems: list[str], depth: int) -> tuple[str, Any]:
    """A plugin named in a configuration, built with its options."""
    options = dict(cast("Config", chosen)) if isinstance(chosen := named(given), dict) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        known = ", ".join(sorted(getattr(plugins, f"{kind}s"))) or "none"
        problems.append(f"{path}: {shown(given)} does not name a {kind}; installed: {known}")
        return "", None
    try:
        registered = plugins.find(kind, name)
    except PluginError as error:
        problems.append(f"{path}: {error}")
        return name, None
    try:
        made = build(registered.cls, options, path, f"{kind} {name!r}")
        _check_sources(made, path, plugins, depth)
        return name, made
    except ConfigError as error:
        problems.append(str(error))
        return name, None
