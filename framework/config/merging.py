"""Configurations laid over one another: what a setting may be called, defaults, and settings from text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias, cast

from ..errors import ConfigError, nearest, shown
from ..files import MOST_LEVELS, too_deep
from ..layout_files.item import SEEDS
from .constraints import NotNegative, Range
from .field_types import type_hints
from .load_options import LoadOptions
from .options import plain
from .values import MOST_STEPS
from .yaml_text import parse_value

Config = dict[str, Any]
Scale: TypeAlias = NotNegative | None

KEYS: Mapping[str, Any] = {
    "description": str | None,
    "source": str | None,
    "model": str | None,
    "steps": Annotated[int, Range(1, MOST_STEPS)],
    "cfg": Scale,
    "sampler": Any,
    "seed": Annotated[int, Range(0, SEEDS - 1)],
    "guidance": Any,
}
LOAD_KEYS = {name: hint for name, hint in type_hints(LoadOptions).items() if name not in ("device", "dtype")}
"""How the model of a render's source is loaded: options of its loader."""
SOURCE_KEYS: Mapping[str, Any] = {**KEYS, "size": tuple[int, int], **LOAD_KEYS}
"""What a render's source may say."""
DEFAULTS: Mapping[str, Any] = {"steps": 50, "cfg": None, "sampler": "ddim", "seed": 0, "guidance": {}, "model": None}


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
    result = {key: named(value) if key == "sampler" else value for key, value in result.items()}
    guidance = result.get("guidance")
    if isinstance(guidance, dict):
        terms = cast("dict[Any, Any]", guidance)
        result["guidance"] = {
            str(name): {
                key: named(value) if key in ("extractor", "distance") else value for key, value in cast("Config", term).items()
            }
            if isinstance(term, dict)
            else term
            for name, term in terms.items()
        }
    return result


def apply_sets(config: Mapping[str, Any], sets: Iterable[str]) -> Config:
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


def named(value: Any) -> Any:
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
