"""The recorder of a pass, and choosing layers by their role in models of different shape."""

from __future__ import annotations

import pytest
import torch

from lsregen.framework.errors import ConfigError
from lsregen.framework.sampling.taps import EverythingRecorded, TapLayer, TapPoint, Taps, select_layers

A, B = TapPoint("a", "cross_probs"), TapPoint("b", "hidden")


def layers_of(blocks: list[tuple[str, str, int, int, int]], attentions: int) -> tuple[TapLayer, ...]:
    """Layers of blocks (path, place, index, downscale, transformer depth), under the names that diffusers gives them."""
    return tuple(
        TapLayer(f"{path}.attentions.{j}.transformer_blocks.{d}", place, index, downscale, 8)
        for path, place, index, downscale, depth in blocks
        for j in range({"down": attentions, "mid": 1, "up": attentions + 1}[place])
        for d in range(depth)
    )


SD15 = layers_of(
    [
        ("down_blocks.0", "down", 0, 1, 1), ("down_blocks.1", "down", 1, 2, 1), ("down_blocks.2", "down", 2, 4, 1),
        ("mid_block", "mid", 0, 8, 1),
        ("up_blocks.1", "up", 1, 4, 1), ("up_blocks.2", "up", 2, 2, 1), ("up_blocks.3", "up", 3, 1, 1),
    ],
    attentions=2,
)  # fmt: skip
SDXL = layers_of(
    [
        ("down_blocks.1", "down", 1, 2, 2), ("down_blocks.2", "down", 2, 4, 10),
        ("mid_block", "mid", 0, 4, 10),
        ("up_blocks.0", "up", 0, 4, 10), ("up_blocks.1", "up", 1, 2, 2),
    ],
    attentions=2,
)  # fmt: skip


def test_what_was_recorded_is_read_back() -> None:
    taps = Taps([A, B], full=True)
    first, second = torch.zeros(1), torch.ones(1)
    taps.record("a", "cross_probs", first)
    taps.record("b", "hidden", second)
    assert taps[A] is first
    assert taps[B] is second


def test_the_pass_stops_at_the_last_point_wanted_and_not_before() -> None:
    taps = Taps([A, B])
    taps.record("b", "hidden", torch.zeros(1))
    with pytest.raises(EverythingRecorded):
        taps.record("a", "cross_probs", torch.zeros(1))
    assert {A, B} == {point for point in (A, B) if taps[point] is not None}


def test_a_full_pass_is_never_stopped() -> None:
    Taps([A], full=True).record("a", "cross_probs", torch.zeros(1))


def test_recording_again_overwrites_and_does_not_stop_a_recomputed_pass() -> None:
    taps = Taps([A])
    with pytest.raises(EverythingRecorded):
        taps.record("a", "cross_probs", torch.zeros(1))
    later = torch.ones(1)
    taps.record("a", "cross_probs", later)
    assert taps[A] is later


def test_what_nobody_wants_is_neither_kept_nor_counted() -> None:
    taps = Taps([A])
    taps.record("b", "hidden", torch.zeros(1))
    with pytest.raises(ConfigError):
        _ = taps[B]
    assert taps.wants("a", "cross_probs")
    assert not taps.wants("a", "hidden")


def test_reading_what_was_not_recorded_names_it_and_what_was() -> None:
    taps = Taps([A, B])
    with pytest.raises(ConfigError, match=r"b:hidden was not recorded in this pass \(recorded: nothing\)"):
        _ = taps[B]
    taps.record("a", "cross_probs", torch.zeros(1))
    with pytest.raises(ConfigError, match=r"recorded: a:cross_probs"):
        _ = taps[B]


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'cross_prob'.*did you mean 'cross_probs'"):
        TapPoint("a", "cross_prob")


@pytest.mark.parametrize(
    ("layers", "selectors", "count"),
    [
        (SD15, ["all"], 16),
        (SD15, ["grid:coarsest"], 5),  # Attend-and-Excite's 16x16: 2 down, 3 up
        (SD15, ["mid", "first_up"], 4),  # layout-guidance's maps
        (SD15, ["first_up", "mid", "up_blocks.1.*"], 4),
        (SD15, ["grid:1/8"], 1),
        (SD15, ["grid:1/1"], 5),
        (SD15, ["down"], 6),
        (SDXL, ["all"], 70),
        (SDXL, ["grid:coarsest"], 60),  # here the mid block has the grid of its neighbours
        (SDXL, ["mid", "first_up"], 40),
        (SDXL, ["grid:1/2"], 10),
        (SDXL, ["up_blocks.0.attentions.1.*"], 10),
    ],
)
def test_selectors_pick_the_layers_of_published_methods(layers: tuple[TapLayer, ...], selectors: list[str], count: int) -> None:
    picked = select_layers(layers, selectors)
    assert len(picked) == count
    assert list(picked) == [layer for layer in layers if layer in picked]  # once each, in the order of the pass


def test_the_coarsest_grid_and_the_first_up_block_are_the_published_ones() -> None:
    assert {layer.name.split(".")[0] + layer.name.split(".")[1] for layer in select_layers(SD15, ["grid:coarsest"])} == {
        "down_blocks2",
        "up_blocks1",
    }
    assert {layer.block for layer in select_layers(SD15, ["first_up"])} == {1}
    assert {layer.block for layer in select_layers(SDXL, ["first_up"])} == {0}


@pytest.mark.parametrize("selector", ["grid:1/3", "up_blocks.9.*", "middle", "grid:finest", ""])
def test_a_selector_that_picks_nothing_lists_the_layers_there_are(selector: str) -> None:
    with pytest.raises(ConfigError) as error:
        select_layers(SD15, ["mid", selector])
    assert repr(selector) in str(error.value)
    assert "mid_block.attentions.0.transformer_blocks.0 (grid 1/8)" in str(error.value)


def test_a_model_without_up_blocks_or_with_a_mid_block_alone_gives_the_error_too() -> None:
    mid = (TapLayer("mid_block.x", "mid", 0, 4, 1),)
    for selector in ("first_up", "grid:coarsest"):
        with pytest.raises(ConfigError, match=selector):
            select_layers(mid, [selector])


@pytest.mark.parametrize(
    ("selector", "meant"),
    [("middle", "mid"), ("Upper", "up"), ("firstup", "first_up"), ("grid:coarse", "grid:coarsest"), ("grid:1/80", "grid:1/8")],
)
def test_a_selector_that_picks_nothing_is_answered_with_the_nearest(selector: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"picks no attention layer of this model \(did you mean '{meant}'\?\); its layers"):
        select_layers(SD15, [selector])


def test_no_selector_is_suggested_that_picks_nothing() -> None:
    with pytest.raises(ConfigError, match=r"'up' picks no attention layer of this model; its layers"):
        select_layers([layer for layer in SD15 if layer.place == "mid"], ["up"])
