"""The models of a method: what each was when a plan was made, and whether it still is where a worker looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...framework.config.options import plain
from ...framework.errors import ConfigError, told_of
from ...framework.pipeline.report import weights
from .plan import Method

if TYPE_CHECKING:
    from ...framework.config.described_models import Known
    from ...framework.config.merging import Config
    from ...framework.config.other_models import Find


def settings_at(method: Method, places: Mapping[str, str], known: Known) -> Config:
    """The configuration of a method with its models at other places, all of them but the main one compared with the plan's.

    Args:
        places: by what the plan calls a model.
        known: descriptions by place, to which those that were not there are added.

    Raises:
        ConfigError: a model is not there, or its weights are others.
        CheckpointError: its files cannot be used.
    """
    from ...framework.config.described_models import known_of
    from ...framework.config.other_models import with_models
    from ...framework.plugins.registry import discover

    def moved(name: str, find: Find | None) -> str:
        place = places.get(name, name)
        with told_of(moving(name, place)):
            check_same(place, method.models.get(name, {}), known_of(known, place, find))
        return place

    return with_models(method.config, discover(), moved)


def moving(planned: str, place: str) -> str:
    """The option that says where a planned model is, as it was given; empty if it is where the plan says."""
    return f"--model {planned}={place}" if place != planned else ""


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
