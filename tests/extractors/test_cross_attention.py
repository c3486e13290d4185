"""Cross-attention features from maps made by hand, against the published order of operations and against plain indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lsregen.distances.max_token import MaxToken
from lsregen.extractors.bound_words import BoundWords
from lsregen.extractors.cross_attention import CrossAttention, CrossAttentionState
from lsregen.extractors.segmentation import Segmentation
from lsregen.framework.errors import ConfigError, PhraseError
from lsregen.framework.layout.rasters import rasterise
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.sampling.taps import TapLayer, TapPoint, Taps
from lsregen.framework.types import Features, View
from tests.extractors import stand_ins
from tests.extractors.stand_ins import STEP, Prompted, phrases
from tests.near import near
from tests.toys import make_run

LAYERS = (
    *stand_ins.LAYERS[:2],
    replace(stand_ins.LAYERS[2], heads=2),
)  # equal heads: averaged with them kept
SPLIT = {**stand_ins.SPLIT, "hat": 1}
probabilities = partial(stand_ins.probabilities, layers=LAYERS)


def look(
    extractor: CrossAttention, prompts: Sequence[str], layouts: Sequence[Layout], maps: dict[str, Tensor], raster: str = "area"
) -> tuple[Features, Features | None, CrossAttentionState]:
    return stand_ins.look(extractor, prompts, layouts, maps, raster, Prompted(prompts, LAYERS, SPLIT))


PUBLISHED = CrossAttention(
    layers=("grid:coarsest",), heads="mean", combine="mean", drop="ends", renormalise="softmax", temperature=100.0,
    words="last", smooth_sigma=0.5, smooth_size=3, smooth_kernel="attend_and_excite",
)  # fmt: skip


def attend_and_excite(maps: Sequence[Tensor], indices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Chefer et al.'s published loss of one sample: maps `[heads t h w]` of each layer, token indices counted in the prompt."""
    image = torch.cat(list(maps)).mean(dim=0).permute(1, 2, 0)  # [h w t], uniformly over layers and heads
    text = torch.softmax(100 * image[:, :, 1:-1], dim=-1)
    outer, edge, centre = 0.0449, 0.1221, 0.3319
    kernel = torch.tensor([[outer, edge, outer], [edge, centre, edge], [outer, edge, outer]])[None, None]
    smoothed: list[Tensor] = []
    for index in indices:
        column = F.pad(text[:, :, index - 1][None, None], (1, 1, 1, 1), mode="reflect")
        smoothed.append(F.conv2d(column, kernel)[0, 0])
    return max(torch.clamp(1 - m.max(), min=0) for m in smoothed), smoothed


def test_the_options_of_attend_and_excite_are_its_published_feature_and_loss() -> None:
    maps = {name: 0.05 * value for name, value in probabilities(1).items()}  # so that the softmax is not all or nothing
    current, _, _ = look(PUBLISHED, ["a red ball and a hat"], [phrases("red ball", "hat")], maps)
    # start a red ball and a h at end: the last word of the second phrase has two pieces
    loss, smoothed = attend_and_excite([maps["down_blocks.1"][0], maps["up_blocks.0"][0]], [3, 6, 7])
    assert current.maps[0].shape == (1, 1, 3, 4, 6)
    assert torch.allclose(current.maps[0][0, 0], torch.stack(smoothed), atol=2e-4)  # the kernel is known to 4 digits
    assert current.group.tolist() == [[0, 1, 1]]
    energy = MaxToken()(current).value
    pieces = [1 - float(m.max()) for m in smoothed]
    assert float(energy) == pytest.approx(max(pieces[0], (pieces[1] + pieces[2]) / 2), abs=2e-4)
    single, _, _ = look(PUBLISHED, ["a red ball and a cat"], [phrases("red ball", "cat")], maps)
    loss, _ = attend_and_excite([maps["down_blocks.1"][0], maps["up_blocks.0"][0]], [3, 6])
    assert float(MaxToken()(single).value) == pytest.approx(float(loss), abs=2e-4)


def test_layout_guidances_maps_are_every_head_and_layer_untouched() -> None:
    maps = probabilities(1)
    current, _, state = look(CrossAttention(), ["a red ball and a hat"], [phrases("red ball", "hat")], maps)
    assert state.points == [TapPoint("mid_block", "cross_probs"), TapPoint("up_blocks.0", "cross_probs")]
    for name, found in zip(("mid_block", "up_blocks.0"), current.maps, strict=True):
        assert torch.equal(found, maps[name][:, :, [2, 3, 6, 7]])
    assert current.group.tolist() == [[0, 0, 1, 1]]
    assert current.present.all()
    assert current.kind == "attention"


def test_samples_of_one_batch_differ_in_phrases_and_padding_is_never_present() -> None:
    prompts = ["a red ball and a hat", "an elephant", "a cat on a mat"]
    layouts = [phrases("hat", "red ball"), phrases("elephant"), Layout()]
    maps = probabilities(3)
    current, target, _ = look(CrossAttention(), prompts, layouts, maps)
    assert target is None  # nobody has a place
    assert current.present.tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
    assert current.group[0].tolist() == [0, 0, 1, 1]
    assert current.group[1, :2].tolist() == [0, 0]
    assert torch.equal(current.maps[0][0], maps["mid_block"][0][:, [6, 7, 2, 3]])
    assert torch.equal(current.maps[0][1, :, :2], maps["mid_block"][1][:, [2, 3]])


def test_the_last_word_of_a_phrase_keeps_all_of_its_pieces() -> None:
    maps = probabilities(1)
    options = CrossAttention(layers=("mid",), words="last")
    current, _, _ = look(options, ["a big elephant hat"], [phrases("big elephant", "elephant hat", "big")], maps)
    assert torch.equal(current.maps[0], maps["mid_block"][:, :, [3, 4, 5, 6, 2]])
    assert current.group.tolist() == [[0, 0, 1, 1, 2]]


@pytest.mark.parametrize("pieces", ["mean", "max"])
def test_pieces_of_a_phrase_are_merged_into_one_map(pieces: str) -> None:
    maps = probabilities(2)
    prompts = ["a big elephant", "a hat"]
    layouts = [Layout((Region("a"), Region("big elephant", Box(0, 0, 0.5, 0.5)))), phrases("hat")]
    current, target, _ = look(CrossAttention(layers=("mid",), pieces=pieces), prompts, layouts, maps)
    mid = maps["mid_block"]
    merge = (lambda m: m.mean(dim=1)) if pieces == "mean" else (lambda m: m.amax(dim=1))
    assert torch.allclose(current.maps[0][0, :, 0], mid[0, :, 1])
    assert torch.allclose(current.maps[0][0, :, 1], merge(mid[0, :, 2:5]))
    assert torch.allclose(current.maps[0][1, :, 0], merge(mid[1, :, 2:4]))
    assert current.present.tolist() == [[True, True], [True, False]]
    assert current.group.tolist() == [[0, 1], [0, 1]]
    assert target is not None
    assert target.present.tolist() == [[False, True], [False, False]]


def test_layers_of_one_grid_are_averaged_and_targets_follow_the_grids() -> None:
    maps = probabilities(1)
    layouts = [Layout((Region("cat", Box(0, 0, 0.5, 1.0)),))]
    current, target, _ = look(CrossAttention(layers=("all",), heads="keep", combine="mean"), ["a cat"], layouts, maps)
    assert target is not None
    assert [m.shape[-2:] for m in current.maps] == [m.shape[-2:] for m in target.maps] == [(4, 6), (2, 3)]
    assert torch.allclose(current.maps[0], (maps["down_blocks.1"] + maps["up_blocks.0"])[:, :, [2]] / 2)
    assert torch.equal(current.maps[1], maps["mid_block"][:, :, [2]])


def test_layers_that_differ_in_heads_can_only_be_averaged_after_their_heads() -> None:
    layers = (TapLayer("a", "down", 0, 2, 2), TapLayer("b", "up", 0, 2, 4))
    maps = probabilities(1, layers=layers)

    def at(extractor: CrossAttention) -> Features:
        run = make_run(Prompted(["a cat"], layers), torch.zeros(1, 3, 8, 12), layouts=[phrases("cat")])
        state = extractor.prepare(run, "area")
        taps = Taps(state.points, full=True)
        for layer in layers:
            taps.record(layer.name, "cross_probs", maps[layer.name])
        return extractor.current(View(run.z_T, STEP, taps), state)

    with pytest.raises(ConfigError, match="set heads: mean too"):
        at(CrossAttention(layers=("all",), combine="mean"))
    both = at(CrossAttention(layers=("all",), heads="mean", combine="mean")).maps[0]
    assert torch.allclose(both[0, 0], (maps["a"][0].mean(dim=0)[[2]] + maps["b"][0].mean(dim=0)[[2]]) / 2)


@pytest.mark.parametrize(("drop", "kept"), [("none", slice(0, 12)), ("ends", slice(1, 11)), ("specials", slice(1, 4))])
def test_dropped_tokens_take_no_part_in_renormalising(drop: str, kept: slice) -> None:
    maps = probabilities(1)
    mid = maps["mid_block"]
    options = {"layers": ("mid",), "drop": drop}
    summed, _, _ = look(CrossAttention(**options, renormalise="sum"), ["a red ball"], [phrases("ball")], maps)
    assert torch.allclose(summed.maps[0][:, :, 0], mid[:, :, 3] / mid[:, :, kept].sum(dim=2))
    soft, _, _ = look(CrossAttention(**options, renormalise="softmax", temperature=7.0), ["a red ball"], [phrases("ball")], maps)
    exponents = (7 * mid).exp()
    assert torch.allclose(soft.maps[0][:, :, 0], exponents[:, :, 3] / exponents[:, :, kept].sum(dim=2))
    bare, _, _ = look(CrossAttention(**options), ["a red ball"], [phrases("ball")], maps)
    assert torch.equal(bare.maps[0][:, :, 0], mid[:, :, 3])


def test_special_tokens_differ_from_sample_to_sample() -> None:
    maps = probabilities(2)
    options = CrossAttention(layers=("mid",), drop="specials", renormalise="sum")
    current, _, _ = look(options, ["a cat", "a very small cat"], [phrases("cat"), phrases("cat")], maps)
    mid = maps["mid_block"]
    assert torch.allclose(current.maps[0][0, :, 0], mid[0, :, 2] / mid[0, :, 1:3].sum(dim=1))
    assert torch.allclose(current.maps[0][1, :, 0], mid[1, :, 4] / mid[1, :, 1:5].sum(dim=1))


def test_masks_are_the_union_of_a_phrases_places_on_grids_that_are_not_square() -> None:
    left, right = Box(0.0, 0.0, 0.25, 0.5), Box(0.75, 0.5, 1.0, 1.0)
    layouts = [
        Layout((Region("red ball", left), Region("hat"), Region("Red  Ball", right), Region("red ball"))),
        Layout((Region("cat", mask=torch.tensor([[0.0, 1.0]])),)),
    ]
    _, target, _ = look(CrossAttention(layers=("all",)), ["a red ball and a hat", "a cat"], layouts, probabilities(2))
    assert target is not None
    assert [tuple(m.shape) for m in target.maps] == [(2, 1, 4, 4, 6), (2, 1, 4, 2, 3), (2, 1, 4, 4, 6)]
    for maps in target.maps:
        grid = (int(maps.shape[-2]), int(maps.shape[-1]))
        union = torch.maximum(rasterise(left, grid), rasterise(right, grid))
        assert torch.equal(maps[0, 0, 0], union)
        assert torch.equal(maps[0, 0, 1], union)
        assert not maps[0, 0, 2:].any()  # the hat has no place
        assert near(maps[1, 0, 0], (torch.arange(grid[1]) + 0.5 > grid[1] / 2).float().expand(grid) if grid[1] == 6 else
                           torch.tensor([0.0, 0.5, 1.0]).expand(grid))  # fmt: skip
    assert target.present.tolist() == [[True, True, False, False], [True, False, False, False]]


@pytest.mark.parametrize(("raster", "cells"), [("truncate", 0), ("cover", 1)])
def test_masks_follow_the_rule_that_the_distance_asks_for(raster: str, cells: int) -> None:
    layouts = [Layout((Region("cat", Box(0.01, 0.01, 0.1, 0.1)),))]
    _, target, _ = look(CrossAttention(layers=("mid",)), ["a cat"], layouts, probabilities(1), raster)
    assert target is not None
    assert int(target.maps[0].sum()) == cells
    assert target.present.tolist() == [[True]]


def test_gradients_reach_the_maps_of_the_phrases_only() -> None:
    maps = {name: value.requires_grad_() for name, value in probabilities(1).items()}
    current, _, _ = look(CrossAttention(layers=("mid",)), ["a red ball"], [phrases("ball")], maps)
    (gradient,) = torch.autograd.grad(current.maps[0].sum(), maps["mid_block"])
    assert torch.equal(gradient[:, :, 3], torch.ones_like(gradient[:, :, 3]))
    assert float(gradient.sum()) == gradient[:, :, 3].numel()


def test_needs_are_the_probabilities_of_the_chosen_layers() -> None:
    needs = CrossAttention(layers=("mid", "up")).needs
    assert [(request.kind, request.layers) for request in needs.taps] == [("cross_probs", ("mid", "up"))]
    assert not needs.prediction
    assert not needs.image


def test_nothing_to_look_at_and_phrases_or_layers_that_are_not_there_are_refused() -> None:
    maps = probabilities(1)
    with pytest.raises(ConfigError, match="no sample names a phrase"):
        look(CrossAttention(), ["a cat"], [Layout()], maps)
    with pytest.raises(PhraseError, match="dog"):
        look(CrossAttention(), ["a cat"], [phrases("dog")], maps)
    with pytest.raises(ConfigError, match=r"'grid:1/3' picks no attention layer"):
        look(CrossAttention(layers=("grid:1/3",)), ["a cat"], [phrases("cat")], maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "men"}, r"heads: 'men' is not one of keep, mean \(did you mean 'mean'\?\)"),
        ({"combine": "max"}, "combine: 'max'"),
        ({"drop": "end"}, "did you mean 'ends'"),
        ({"renormalise": "l1"}, "renormalise: 'l1'"),
        ({"words": "first"}, "words: 'first'"),
        ({"pieces": "sum"}, "pieces: 'sum'"),
        ({"smooth_kernel": "box"}, "smooth_kernel: 'box'"),
        ({"layers": ()}, "layers: \\(\\) is empty"),
        ({"smooth_sigma": -0.5}, "smooth_sigma: -0.5"),
        ({"smooth_size": 4}, "smooth_size: 4"),
        ({"smooth_size": 0}, "smooth_size: 0"),
        ({"temperature": 0.0}, "temperature: 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossAttention(**options)


@pytest.mark.parametrize("cls", [BoundWords, CrossAttention, Segmentation])
def test_layers_as_text_are_refused_in_python_too(cls: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}: layers: 'mid' is not a list of text; write \['mid'\]$"):
        cls(layers="mid")
