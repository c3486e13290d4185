"""Other models that a configuration names: what renders for an extractor, and what looks at pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..errors import told_of
from ..hashes import folder_hashes
from .field_types import key_of
from .merging import LOAD_KEYS, Config, expanded
from .resolve import checked_source, validate

if TYPE_CHECKING:
    from ..plugins.registry import Plugins

Find: TypeAlias = Callable[[str], Path]
"""Where the folder of a model is that an option names, and that only its plugin can load."""

Change: TypeAlias = Callable[[str, "Find | None"], str]
"""What a model is to be called, by its name and, unless it makes images as the main one does, by what finds its folder."""


def with_models(config: Mapping[str, Any], plugins: Plugins, change: Change, depth: int = 0) -> Config:
    """The same configuration with every model that its terms name called as `change` says; the main one is left alone.

    Options that name a model say so themselves (`option(..., model=...)`). What a render's source leaves to a preset, to a file
    or to defaults is written out. `config` must have passed `validate`.

    Raises:
        ConfigError: a source cannot be used; and what `change` raises. Each names the key that names the model.
    """
    result = expanded(config)
    for name, term in cast("dict[str, Config]", result.get("guidance", {})).items():
        for kind in ("extractor", "distance"):
            values = cast("Config", term[kind])
            for field in fields(plugins.find(kind, values["name"]).cls):
                find, key = field.metadata.get("model"), key_of(field)
                with told_of(f"guidance.{name}.{kind}.{key}"):
                    if find == "source":
                        values[key] = _source(values[key], plugins, change, depth)
                    elif find is not None and values[key]:
                        values[key] = change(values[key], find)
    return result


def described_folder(place: str, find: Find) -> dict[str, Any]:
    """A model that only its plugin can load, described by the files of its folder.

    Raises:
        ConfigError: there is no such folder.
        CheckpointError: a file of it cannot be read.
    """
    folder = find(place)
    return {"name": folder.name, "sha256": folder_hashes(folder)}


def folders_of(plugin: Any, path: str) -> dict[str, dict[str, Any]]:
    """Every model that only a plugin can load and that its options name, described by its files; by its name there.

    Args:
        path: where the plugin stands in the configuration, for errors.

    Raises:
        ConfigError, CheckpointError: as `described_folder`.
    """
    found: dict[str, dict[str, Any]] = {}
    for field in fields(plugin) if is_dataclass(plugin) else ():
        if callable(find := field.metadata.get("model")) and (name := getattr(plugin, field.name)):
            with told_of(f"{path}.{key_of(field)}"):
                found[name] = described_folder(name, cast("Find", find))
    return found


def _source(source: Mapping[str, Any], plugins: Plugins, change: Change, depth: int) -> Config:
    """A source with every default filled in but `cfg`, which is its model's; see `with_models`."""
    config = checked_source(source, plugins, depth)
    apart = {key: config.pop(key) for key in ("model", "size", *LOAD_KEYS) if key in config}
    resolved = validate(config, plugins).as_dict()
    left = {"seed"} if "guidance" in config else {"seed", "guidance"}
    settings = {key: value for key, value in resolved.items() if key not in left}
    return {**apart, "model": change(apart["model"], None), **with_models(settings, plugins, change, depth + 1)}
