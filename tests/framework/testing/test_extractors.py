"""Every extractor conforms, and for every property there is one that lacks just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import Pipeline, discover, load_preset, presets
from lsregen.framework.config.resolve import validate
from lsregen.framework.testing import EXTRACTOR_PROPERTIES, check_extractor
from lsregen.framework.types import Features, Needs, TapRequest, View
from tests.framework.testing.broken import Unexplained, assert_lacks_only, variant
from tests.toys import Look

pytestmark = pytest.mark.slow

PLUGINS = discover(only=())
OF_PRESETS: dict[str, Any] = {
    f"{name}: {term.name}": term.extractor for name in presets() for term in validate(load_preset(name), PLUGINS).terms
}


def test_the_built_ins_are_looked_at() -> None:
    assert "cross_attention" in PLUGINS.extractors
    assert len(OF_PRESETS) >= 4


@pytest.mark.parametrize("name", PLUGINS.extractors)
def test_every_extractor_conforms(name: str) -> None:
    conformance = check_extractor(PLUGINS.extractor(name).cls())
    assert {*conformance.held, *conformance.skipped} == set(EXTRACTOR_PROPERTIES)


@pytest.mark.parametrize("extractor", OF_PRESETS.values(), ids=list(OF_PRESETS))
def test_the_extractors_of_presets_conform(extractor: Any) -> None:
    check_extractor(extractor)


def test_an_extractor_conforms_on_a_pipeline_of_its_users() -> None:
    check_extractor(CrossAttention(layers=("up_blocks.0.*",)), pipeline=Pipeline.load("shapeworld-base", device="cpu"))


def test_an_extractor_that_looks_at_z_alone_needs_no_network() -> None:
    held = check_extractor(Look("z"), only=["gradient_reaches_z", "needs_necessary", "energy_falls"]).held
    assert {"gradient_reaches_z", "needs_necessary", "energy_falls"} <= set(held)


@pytest.mark.parametrize("at", ["z0", "image"])
def test_an_extractor_gets_the_prediction_and_the_image_it_declares(at: str) -> None:
    assert "needs_necessary" in check_extractor(Look(at), only=["gradient_reaches_z", "needs_necessary"]).held


def features(change: Callable[[Features, View, Any], Features], **options: Any) -> Any:
    """An extractor whose current features are changed."""
    call = CrossAttention.current
    return variant(CrossAttention, {"current": lambda self, view, state: change(call(self, view, state), view, state)}, **options)


def maps(change: Callable[[Tensor, View, Any], Tensor]) -> Any:
    """An extractor whose maps are changed, one by one."""
    return features(lambda f, view, state: replace(f, maps=tuple(change(m, view, state) for m in f.maps)))


def target(change: Callable[[Features, View, Any], Features]) -> Any:
    call = CrossAttention.target
    return variant(CrossAttention, {"target": lambda self, view, state: change(call(self, view, state), view, state)})


def needing(*requests: TapRequest) -> Any:
    return variant(CrossAttention, {"needs": Needs(taps=requests)})


def remembered(m: Tensor, view: View, state: Any) -> Tensor:
    """Changed from the second step on that a state is used at."""
    state.last = getattr(state, "last", view.step.index)
    state.moved = getattr(state, "moved", False) or state.last != view.step.index
    return 1.5 * m if state.moved else m


def dimmed(f: Features, view: View, state: Any) -> Features:
    view.z.mul_(0.99)
    return f


def never_nobody(f: Features, view: View, state: Any) -> Features:
    return replace(f, present=f.present | ~f.present.any(dim=1, keepdim=True))


BROKEN: dict[str, Callable[[], Any]] = {
    "declarations": lambda: CrossAttention(layers=("up_blocks.9.*",)),
    "shape": lambda: maps(lambda m, view, state: m[:, 0]),
    "needs_sufficient": lambda: needing(TapRequest("cross_probs", ("mid",))),
    "needs_necessary": lambda: needing(TapRequest("cross_probs", ("mid", "first_up")), TapRequest("self_probs", ("mid",))),
    "finite": lambda: maps(lambda m, view, state: m / (view.step.index != view.step.count - 1)),
    "gradient_reaches_z": lambda: features(lambda f, view, state: replace(f, maps=(f.maps[0], f.maps[1].detach()))),
    "energy_falls": lambda: maps(lambda m, view, state: 2 * m.detach() - m),
    "others_taps_ignored": lambda: maps(lambda m, view, state: m * len(view.taps.wanted) / len(state.points)),
    "steps_do_not_interfere": lambda: maps(remembered),
    "per_sample_independence": lambda: maps(lambda m, view, state: m * (1 + view.z.mean())),
    "absent_phrases": lambda: features(never_nobody),
    "unplaced_left_out": lambda: target(lambda f, view, state: replace(f, present=state.present)),
    "dtype_and_device": lambda: target(lambda f, view, state: replace(f, maps=tuple(m.double() for m in f.maps))),
    "deterministic": lambda: maps(lambda m, view, state: m * (1 + 1e-5 * torch.rand(()))),
    "inputs_untouched": lambda: target(dimmed),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, CrossAttention), {}), {}),
    "non_square": lambda: maps(lambda m, view, state: m if m.shape[-1] == m.shape[-2] else m.transpose(-1, -2)),
}


def test_there_is_a_broken_extractor_for_every_property() -> None:
    assert set(BROKEN) == set(EXTRACTOR_PROPERTIES)
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("name", BROKEN)
def test_an_extractor_that_lacks_a_property_fails_that_one_alone(name: str) -> None:
    assert_lacks_only(check_extractor, BROKEN[name], name)
