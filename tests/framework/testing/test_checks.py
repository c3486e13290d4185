"""How the conformance kit reports, and how properties are chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest
import torch

from lsregen.distances.box_energy import BoxEnergy
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import ConfigError
from lsregen.framework.testing import (
    DISTANCE_PROPERTIES,
    EXTRACTOR_PROPERTIES,
    SAMPLER_PROPERTIES,
    ConformanceError,
    check_distance,
    check_extractor,
    check_model,
    check_sampler,
)
from lsregen.framework.testing.toys import ToyModel
from lsregen.framework.types import Energy, Features
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM
from tests.framework.testing.broken import variant


def test_one_error_names_all_that_is_wrong_and_what_was_not_tried() -> None:
    def detached(self: Any, current: Features, target: Any) -> Energy:
        return Energy.of(BoxEnergy()(current, target).value.detach() + 0.3 * current.present.any(dim=1))

    broken = variant(BoxEnergy, {"call": detached})
    with pytest.raises(ConformanceError) as caught:
        check_distance(broken)
    assert list(caught.value.failed) == ["differentiable", "target_met"]
    assert caught.value.not_tried == ("energy_falls", "several_maps")
    first, *lines, last = str(caught.value).splitlines()
    assert first == "distance Broken lacks 2 properties:"
    assert [line.split(":")[0].strip() for line in lines] == ["differentiable", "target_met"]
    assert last == "  not tried, since they build on these: energy_falls, several_maps"


def test_whatever_a_plugin_raises_is_reported_in_one_line() -> None:
    def crash(self: Any, current: Features, target: Any) -> Energy:
        raise RuntimeError("two\nlines")

    with pytest.raises(ConformanceError, match=r"saw RuntimeError: two lines; mend: ") as caught:
        check_distance(variant(BoxEnergy, {"call": crash}))
    assert list(caught.value.failed) == ["shape"]


@pytest.mark.parametrize(
    ("check", "plugin", "properties"),
    [
        (check_distance, BoxEnergy(), DISTANCE_PROPERTIES),
        (check_sampler, DDIM(), SAMPLER_PROPERTIES),
        (check_extractor, CrossAttention(), EXTRACTOR_PROPERTIES),
    ],
    ids=["distance", "sampler", "extractor"],
)
def test_properties_can_be_chosen_by_name(check: Callable[..., Any], plugin: Any, properties: Mapping[str, str]) -> None:
    assert check(plugin, only=["options_round_trip"]).held == ("declarations", "options_round_trip")
    assert all(meaning and "\n" not in meaning for meaning in properties.values())


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (["per_sample_independance"], "did you mean 'per_sample_independence'"),
        (["beauty"], "no property is called 'beauty'; there are declarations, shape"),
        ("shape", r"write \['shape'\]"),
        ([], "expected a list"),
    ],
)
def test_a_property_that_does_not_exist_is_refused(only: Collection[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_distance(BoxEnergy(), only=only)


def test_checking_leaves_the_global_random_stream_alone() -> None:
    before = torch.get_rng_state()
    check_distance(BoxEnergy())
    check_sampler(DDPM())
    check_model(ToyModel(), only=["deterministic"])
    assert torch.equal(torch.get_rng_state(), before)
