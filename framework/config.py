"""The configuration of a run as data: reading, merging, overriding, and one validation that reports every problem at once.

What the values mean is checked by plugin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from .arguments import check_within, checked
from .errors import ConfigError, PluginError, nearest, shown, told_of
from .files import MOST_LEVELS, too_deep
from .items import SEEDS
from .options import build, convert, plain, to_values
from .rasters import check_raster
from .values import MOST_STEPS
from .yaml_text import load_yaml, parse_value, parse_yaml

if TYPE_CHECKING:
    from .guidance import Term
    from .plugins import Plugins
    from .schedule import Schedule
    from .types import Distance, FeatureExtractor, Sampler

Config = dict[str, Any]

KEYS: Mapping[str, Any] = {
    "description": str | None,
    "source": str | None,
    "model": str | None,
    "steps": int,
    "cfg": float | None,
    "sampler": Any,
    "seed": int,
    "guidance": Any,
}
DEFAULTS: Mapping[str, Any] = {"steps": 50, "cfg": None, "sampler": "ddim", "seed": 0, "guidance": {}, "model": None}


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


def presets() -> dict[str, Path]:
    """The published methods that ship with the package, by name."""
    folder = Path(str(files(__name__.rpartition(".")[0]))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@checked
def load_preset(name: str) -> Config:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of this name.
    """
    known = presets()
    if name not in known:
        raise ConfigError(
            f"guidance {shown(name)}: no such preset{nearest(name, known)}; presets: {', '.join(known)}; or none, or a file "
            "ending in .yaml"
        )
    return load_yaml(known[name])


def load_guidance(given: Mapping[str, Any] | str | Path | None) -> Config:
    """A preset by its name, a file by its ending `.yaml`, a mapping as it is, nothing for `none` or None.

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
        return _of_file(Path(given))
    return load_preset(given)


def _of_file(path: Path) -> Config:
    """A configuration whose settings are known and of the right types, told while it is known which file they are of."""
    config = load_yaml(path)
    problems: list[str] = []
    _settings(config, {**KEYS, "size": tuple[int, int]}, problems)
    if problems or not isinstance(config.get("guidance", {}), dict):
        from .plugins import discover

        with told_of(f"configuration {path}"):
            validate(config, discover())  # which names everything else that is wrong as well
    return config


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> Config:
    """Later values over earlier ones, mapping by mapping; a list replaces a list, and an empty mapping empties one."""
    merged = expanded(base)
    for override in overrides:
        merged = cast("Config", _over(merged, expanded(override)))
    return merged


def expanded(config: Mapping[str, Any]) -> Config:
    """The same configuration with `sampler`, `extractor` and `distance` as mappings, so that their options can be set."""
    if too_deep(dict(config)):
        raise ConfigError(f"a configuration nested deeper than {MOST_LEVELS} levels; expected the keys {', '.join(KEYS)}")
    result = cast("Config", plain(dict(config)))
    result = {key: _named(value) if key == "sampler" else value for key, value in result.items()}
    guidance = result.get("guidance")
    if isinstance(guidance, dict):
        terms = cast("dict[Any, Any]", guidance)
        result["guidance"] = {
            str(name): {
                key: _named(value) if key in ("extractor", "distance") else value for key, value in cast("Config", term).items()
            }
            if isinstance(term, dict)
            else term
            for name, term in terms.items()
        }
    return result


def apply_sets(config: Mapping[str, Any], sets: Iterable[str], plugins: Plugins | None = None) -> Config:
    """Settings from text, `guidance.layout.gamma=40`; the value is read as YAML.

    Raises:
        ConfigError: not of the form key=value, a value that is not YAML, or a term that the guidance does not have.
    """
    result = expanded(config)
    for text in sets:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {shown(text)}: expected key=value, such as guidance.layout.gamma=40")
        if len(parts) > MOST_LEVELS:
            raise ConfigError(f"--set {shown(text)}: a key of {len(parts)} parts; expected at most {MOST_LEVELS}")
        guidance = result.get("guidance")
        terms = cast("Config", guidance) if isinstance(guidance, dict) else {}
        if parts[0] == "guidance" and len(parts) > 2 and parts[1] not in terms:
            listed = ", ".join(terms) or "none; name a preset with --guidance"
            raise ConfigError(
                f"--set {shown(text)}: the guidance has no term {parts[1]!r}{nearest(parts[1], terms)}; terms: {listed}"
            )
        nested = parse_value(value, f"--set {shown(text)}")
        for part in reversed(parts):
            nested = {part: nested}
        result = cast("Config", _over(result, expanded(nested)))
    return result


def validate(config: Mapping[str, Any], plugins: Plugins, depth: int = 0) -> ResolvedConfig:
    """Build everything a configuration describes.

    Args:
        depth: of a render's source, how many renders it is within; it may have a size too.

    Raises:
        ConfigError: every problem at once, a line each: the full path, what was given, what was expected.
    """
    problems: list[str] = []
    given = merge(DEFAULTS, config)
    checked = _settings(given, {**KEYS, "size": tuple[int, int]} if depth else KEYS, problems, ("seed",) if depth else ())
    for key, least, most in (("steps", 1, MOST_STEPS), ("seed", 0, SEEDS - 1)):
        try:
            check_within(checked.get(key, least), key, least, most)
        except ConfigError as error:
            problems.append(str(error))
    if (cfg := checked.get("cfg")) is not None and cfg < 0:
        problems.append(f"cfg {cfg}: expected a number of at least 0")
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
    from .guidance import Term
    from .schedule import Schedule

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
    options = dict(cast("Config", named)) if isinstance(named := _named(given), dict) else {}
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
    from .model_names import check_sources

    try:
        made = build(registered.cls, options, path, f"{kind} {name!r}")
        check_sources(made, path, plugins, depth)
        return name, made
    except ConfigError as error:
        problems.append(str(error))
        return name, None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _empty(value: object) -> bool:
    return isinstance(value, dict) and not value


def _over(base: Any, override: Any) -> Any:
    """`override` laid over `base`. A mapping that names another plugin replaces it: its options belong to the old one."""
    if not isinstance(base, dict) or not isinstance(override, dict):
        return override
    under, above = cast("Config", base), cast("Config", override)
    if "name" in above and "name" in under and above["name"] != under["name"]:
        return above
    return {
        **under,
        **{key: _over(under[key], value) if key in under and not _empty(value) else value for key, value in above.items()},
    }


__all__ = [
    "DEFAULTS", "KEYS", "Config", "ResolvedConfig", "ResolvedTerm", "apply_sets", "expanded", "load_preset", "load_yaml", "merge",
    "parse_yaml", "presets", "validate",
]  # fmt: skip
