"""The models of a method: what each was when a plan was made, and whether it still is where a worker looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...framework.errors import ConfigError, told_of
from ...framework.options import plain
from ...framework.report import weights
from .hashes import folder_hashes
from .plan import Method

if TYPE_CHECKING:
    from ...framework.config import Config
    from ...framework.model_names import Find
    from ...framework.plugins import Plugins


def with_described(
    config: Mapping[str, Any], plugins: Plugins, known: dict[str, dict[str, Any]]
) -> tuple[Config, dict[str, dict[str, Any]]]:
    """A configuration with all written out that the sources of its renders refer to, and its models but the main one, described.

    Args:
        known: descriptions by name, to which those that were not there are added.

    Raises:
        ConfigError: a model is not there, or a source cannot be used.
        CheckpointError: its files cannot be used.
    """
    from ...framework.model_names import with_models

    found: dict[str, dict[str, Any]] = {}

    def note(name: str, find: Find | None) -> str:
        found[name] = _described(known, name, find)
        return name

    return with_models(config, plugins, note), found


def settings_at(method: Method, places: Mapping[str, str], known: dict[str, dict[str, Any]]) -> Config:
    """The configuration of a method with its models at other places, all of them but the main one compared with the plan's.

    Args:
        places: by what the plan calls a model.
        known: descriptions by place, to which those that were not there are added.

    Raises:
        ConfigError: a model is not there, or its weights are others.
        CheckpointError: its files cannot be used.
    """
    from ...framework.model_names import with_models
    from ...framework.plugins import discover

    def moved(name: str, find: Find | None) -> str:
        place = places.get(name, name)
        with told_of(moving(name, place)):
            check_same(place, method.models.get(name, {}), _described(known, place, find))
        return place

    return with_models(method.config, discover(), moved)


def moving(planned: str, place: str) -> str:
    """The option that says where a planned model is, as it was given; empty if it is where the plan says."""
    return f"--model {planned}={place}" if place != planned else ""


def _described(known: dict[str, dict[str, Any]], place: str, find: Find | None) -> dict[str, Any]:
    """A model at a place, described once however many methods name it: that may load gigabytes."""
    if place not in known:
        known[place] = describe(place, find)
    return known[place]


def describe(place: str, find: Find | None) -> dict[str, Any]:
    """A model at a place, by its weights: loaded for a moment on the CPU, or, if `find` finds its folder, never loaded."""
    from ...framework.pipeline import Pipeline

    if find is not None:
        folder = find(place)
        return {"name": folder.name, "sha256": folder_hashes(folder)}
    described = plain(Pipeline.load(place, device="cpu", dtype="fp32").model.describe())
    return {key: value for key, value in described.items() if key != "dtype"}  # which is that of the method


def check_same(place: str, planned: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Whether a model is the one that a plan was made with.

    Raises:
        ConfigError: its weights are others.
    """
    one, other = plain(weights(planned)), plain(weights(found))
    if one != other:
        parts = [str(part) for part in dict.fromkeys((*one, *other)) if one.get(part) != other.get(part)]
        raise ConfigError(
            f"model {place!r}: not the weights that the plan was made with (other in {', '.join(parts)}); "
            "make the plan again with this model, or say where the planned one is (--model PLANNED=PLACE)"
        )
