"""Every distance conforms, and for every property there is one that lacks just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.framework import discover
from lsregen.framework.testing import DISTANCE_PROPERTIES, check_distance
from lsregen.framework.types import Energy, Features
from tests.framework.testing.broken import Unexplained, assert_lacks_only, refuse, variant
from tests.toys import Measure, mean_square

PLUGINS = discover(only=())


def test_the_built_ins_are_looked_at() -> None:
    assert {"box_energy", "l2", "max_token"} <= set(PLUGINS.distances)


@pytest.mark.parametrize("name", PLUGINS.distances)
def test_every_distance_conforms(name: str) -> None:
    conformance = check_distance(PLUGINS.distance(name).cls())
    assert {*conformance.held, *conformance.skipped} == set(DISTANCE_PROPERTIES)


def test_a_distance_that_averages_conforms() -> None:
    check_distance(L2(reduction="mean"))


def test_what_does_not_apply_is_skipped_with_the_reason() -> None:
    conformance = check_distance(MaxToken())
    assert set(conformance.skipped) == {"target_met", "target_declared", "unplaced_ignored"}
    assert all("needs_target = False" in reason for reason in conformance.skipped.values())
    assert not set(conformance.held) & set(conformance.skipped)


def test_a_distance_between_latents_is_not_asked_about_phrases() -> None:
    conformance = check_distance(Measure(mean_square), only=["absent_ignored", "every_kind"])
    assert conformance.held == ("declarations", "shape")
    assert set(conformance.skipped) == {"absent_ignored", "every_kind"}


def distance(changed: Callable[[Tensor, Features, Any], Tensor]) -> Any:
    """A distance whose value is changed, given the right one and the features."""
    return variant(BoxEnergy, {"call": lambda self, c, t: Energy.of(changed(BoxEnergy()(c, t).value, c, t))})


def seeing(change: Callable[[Features, Any], tuple[Features, Any]], base: type = BoxEnergy, **attributes: Any) -> Any:
    """A distance that measures other features than it is given."""
    return variant(base, {"call": lambda self, c, t: base()(*change(c, t)), **attributes})


def only_square(value: Tensor, current: Features, target: Any) -> Tensor:
    refuse(all(m.shape[-1] == m.shape[-2] for m in current.maps))
    return value


def only_attention(value: Tensor, current: Features, target: Any) -> Tensor:
    refuse(current.kind == "attention")
    return value


def clamped_in_place(current: Features, target: Any) -> tuple[Features, Any]:
    target.maps[0].clamp_(max=0.999)
    return current, target


def first_of(features: Any) -> Any:
    return replace(features, maps=features.maps[:1])


@dataclass(frozen=True)
class Diagonal(BoxEnergy):
    raster: str = "diagonal"


BROKEN: dict[str, Callable[[], Any]] = {
    "declarations": lambda: Diagonal(),
    "shape": lambda: distance(lambda v, c, t: v.mean()),
    "finite": lambda: distance(lambda v, c, t: v + 0 * c.maps[0].sum() / c.maps[0].sum()),
    "extreme_boxes": lambda: distance(lambda v, c, t: v + 0 / (1 - t.maps[0]).sum(dim=(1, 3, 4))[:, 0]),  # by what lies outside
    "differentiable": lambda: distance(lambda v, c, t: v.detach()),
    "energy_falls": lambda: distance(lambda v, c, t: 2 * v.detach() - v),
    "target_met": lambda: distance(lambda v, c, t: v + 0.3 * c.present.any(dim=1)),
    "target_declared": lambda: seeing(
        lambda c, t: (replace(c, present=c.present & t.present), None), MaxToken, needs_target=True
    ),
    "per_sample_independence": lambda: distance(lambda v, c, t: v * (1 + v.detach().mean())),
    "absent_ignored": lambda: distance(lambda v, c, t: v * c.present.to(v).mean(dim=1)),
    "unplaced_ignored": lambda: seeing(lambda c, t: (c, replace(t, present=c.present))),
    "dtype_and_device": lambda: distance(lambda v, c, t: v.float()),
    "deterministic": lambda: distance(lambda v, c, t: v * (1 + 1e-5 * torch.rand(()))),
    "inputs_untouched": lambda: seeing(clamped_in_place),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, BoxEnergy), {}), {}),
    "every_kind": lambda: distance(only_attention),
    "non_square": lambda: distance(only_square),
    "several_maps": lambda: seeing(lambda c, t: (first_of(c), first_of(t))),
}


def test_there_is_a_broken_distance_for_every_property() -> None:
    assert set(BROKEN) == set(DISTANCE_PROPERTIES)
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("name", BROKEN)
def test_a_distance_that_lacks_a_property_fails_that_one_alone(name: str) -> None:
    assert_lacks_only(check_distance, BROKEN[name], name)
