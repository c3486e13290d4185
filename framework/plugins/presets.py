"""Presets: configurations that packages bring, by their names; and which of them is taken where none is named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..errors import PluginError, shown
from ..files import look

Fits: TypeAlias = Literal["boxes", "phrases"]
"""Which layouts a preset is taken for where no guidance is named: those with boxes or masks, or those with phrases alone."""


@dataclass(frozen=True)
class Preset:
    """A configuration in a YAML file, and the package that brings it.

    `fits`: the layouts that it is taken for where none is named, if any. `models`: the models that it is then taken for, by name;
    without any, it is taken for all that no other preset names.
    """

    name: str
    path: Path
    package: str
    version: str
    fits: Fits | None = None
    models: tuple[str, ...] = ()


def made_preset(
    name: str, path: str | Path, package: str, version: str, *, fits: Fits | None = None, models: Sequence[str] = ()
) -> Preset:
    """A preset as a package registers it.

    Raises:
        PluginError: a bad name, no such file, or `fits` is something else.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_+@.-]*", name) or name == "none" or name.endswith((".yaml", ".yml")):
        raise PluginError(f"preset {shown(name)}: a name is lower case letters, digits and any of _ + @ . -, and not 'none'")
    if (found := look(path)).kind != "file":
        raise PluginError(f"preset {name!r}: {path}: {found.said}")
    if fits is not None and fits not in get_args(Fits):
        raise PluginError(f"preset {name!r}: fits {shown(fits)}: expected one of {', '.join(get_args(Fits))}")
    return Preset(name, Path(path), package, version, fits, tuple(models))


def check_preset(preset: Preset, others: Iterable[Preset]) -> None:
    """Refuse a name that another preset has, or one that is taken for the same layouts of the same model as another.

    Raises:
        PluginError: it is so.
    """
    for other in others:
        if other.name == preset.name:
            raise PluginError(f"preset {preset.name!r} is already registered by {other.package} {other.version}")
        shared = {*preset.models} & {*other.models}
        if preset.fits is not None and preset.fits == other.fits and (shared or not (preset.models or other.models)):
            of = f" of the model {min(shared)}" if shared else ""
            raise PluginError(
                f"preset {preset.name!r}: where no guidance is named, {other.name!r} of {other.package} {other.version} is "
                f"already taken for layouts with {preset.fits}{of}"
            )


def fitting(presets: Mapping[str, Preset], fits: Fits, model: str) -> Preset | None:
    """The preset that is taken for a layout of a model where none is named: one for this model, else one for all."""
    found = [preset for preset in presets.values() if preset.fits == fits]
    return next((preset for preset in found if model in preset.models), next((one for one in found if not one.models), None))
