"""The models that a configuration names besides the main one, described by their weights."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..pipeline.pipeline import Pipeline
from .options import plain
from .other_models import described_folder, with_models

if TYPE_CHECKING:
    from ..plugins.registry import Plugins
    from .other_models import Find
    from .resolve import Config

Known = dict[str, dict[str, Any]]
"""Descriptions of models by their places."""


def with_described(config: Mapping[str, Any], plugins: Plugins, known: Known) -> tuple[Config, Known]:
    """A configuration with all written out that the sources of its renders refer to, and its models but the main one, described.

    Args:
        known: descriptions by name, to which those that were not there are added.

    Raises:
        ConfigError: a model is not there, or a source cannot be used.
        CheckpointError: its files cannot be used.
    """
    found: Known = {}

    def note(name: str, find: Find | None) -> str:
        found[name] = known_of(known, name, find)
        return name

    return with_models(config, plugins, note), found


def known_of(known: Known, place: str, find: Find | None) -> dict[str, Any]:
    """A model at a place, described once however many configurations name it: that may load gigabytes."""
    if place not in known:
        known[place] = describe(place, find)
    return known[place]


def describe(place: str, find: Find | None) -> dict[str, Any]:
    """A model at a place, by its weights: loaded for a moment on the CPU, or, if `find` finds its folder, never loaded.

    The dtype is left out: it is that of the images.
    """
    if find is not None:
        return described_folder(place, find)
    try:
        return without_dtype(plain(Pipeline.load(place, device="cpu", dtype="fp32").model.describe()))
    finally:
        gc.collect()  # its weights, before another model is loaded


def without_dtype(described: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's description says of its weights, whatever they were computed in."""
    return {key: value for key, value in described.items() if key != "dtype"}
