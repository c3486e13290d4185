"""Box energy, max token and L2: against the published formulas, per sample, and by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.boxdiff import BoxDiff
from lsregen.distances.cross_entropy import CrossEntropy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.framework.errors import ConfigError
from lsregen.framework.types import Features
from tests.toys import draw, features

DISTANCES: dict[str, Any] = {
    "box_energy": BoxEnergy(),
    "boxdiff": BoxDiff(),
    "cross_entropy": CrossEntropy(),
    "max_token": MaxToken(),
    "l2": L2(),
    "l2 mean": L2(reduction="mean"),
}


def attention(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.sigmoid(draw(seed, *shape, dtype=dtype))


def masks(*shape: int) -> Tensor:
    """Masks `[b 1 k h w]` of one quarter."""
    mask = torch.zeros(shape, dtype=torch.float64)
    mask[..., : shape[-2] // 2, : shape[-1] // 2] = 1
    return mask


# ---- box energy ----


def chen(maps: list[Tensor], boxes: list[list[Tensor]], positions: list[list[int]]) -> Tensor:
    """The published loss of Chen et al. for one sample, without its scale: maps `[heads t h w]`, masks per map and object."""
    total = torch.zeros((), dtype=torch.float64)
    for m, of_objects in zip(maps, boxes, strict=True):
        for mask, pieces in zip(of_objects, positions, strict=True):
            of_object = torch.zeros((), dtype=torch.float64)
            for piece in pieces:
                ratio = (m[:, piece] * mask).flatten(1).sum(dim=-1) / m[:, piece].flatten(1).sum(dim=-1)
                of_object = of_object + ((1 - ratio) ** 2).mean()
            total = total + of_object / len(pieces)
    return total / (len(positions) * len(maps))


def test_box_energy_is_the_published_formula_for_heads_maps_pieces_and_phrases() -> None:
    maps = [attention(0, 1, 8, 5, 4, 6), attention(1, 1, 2, 5, 8, 8)]
    first = [masks(4, 6), masks(4, 6).flip(-1)]
    second = [masks(8, 8), masks(8, 8).flip(-1)]
    group = torch.tensor([[0, 1, 1, 0, 1]])
    aims = [torch.stack([of[g] for g in group[0].tolist()])[None, None] for of in (first, second)]
    energy = BoxEnergy()(features(*maps, group=group), features(*aims, group=group))
    expected = chen([m[0] for m in maps], [first, second], [[0, 3], [1, 2, 4]])
    assert torch.allclose(energy.value, expected[None])
    assert torch.equal(energy.watch, energy.value)


def test_box_energy_is_zero_with_everything_inside_one_with_nothing_and_never_beyond() -> None:
    mask = masks(1, 1, 2, 4, 4)
    maps = attention(0, 1, 3, 2, 4, 4)
    energy = BoxEnergy()
    assert energy(features(maps * mask), features(mask)).value.tolist() == [0]
    assert energy(features(maps * (1 - mask)), features(mask)).value.tolist() == pytest.approx([1])
    assert energy(features(maps), features(torch.ones_like(mask))).value.tolist() == [0]
    assert 0 < float(energy(features(maps), features(mask)).value) < 1


@pytest.mark.parametrize("scale", [1e-12, 0.1, 1e6])
def test_box_energy_does_not_change_when_a_map_is_scaled(scale: float) -> None:
    maps, mask = attention(0, 2, 3, 2, 4, 4), masks(2, 1, 2, 4, 4)
    plain = BoxEnergy()(features(maps), features(mask)).value
    assert torch.allclose(BoxEnergy()(features(maps * scale), features(mask)).value, plain, rtol=1e-9)


def test_an_empty_mask_or_a_map_without_mass_gives_one_and_a_finite_gradient() -> None:
    maps = attention(0, 1, 2, 2, 4, 4, dtype=torch.float32).requires_grad_()
    energy = BoxEnergy()(features(maps), features(torch.zeros(1, 1, 2, 4, 4)))
    (gradient,) = torch.autograd.grad(30 * energy.value.sum(), maps)
    assert energy.value.tolist() == pytest.approx([1])
    assert not gradient.any()
    nothing = torch.zeros(1, 2, 2, 4, 4, requires_grad=True)
    energy = BoxEnergy()(features(nothing), features(masks(1, 1, 2, 4, 4).float()))
    (gradient,) = torch.autograd.grad(30 * energy.value.sum(), nothing)
    assert energy.value.tolist() == pytest.approx([1])
    assert bool(torch.isfinite(gradient).all())


def test_phrases_without_a_place_do_not_count() -> None:
    maps, mask = attention(0, 1, 3, 2, 4, 4), masks(1, 1, 2, 4, 4)
    both = BoxEnergy()(features(maps), features(mask, present=torch.tensor([[True, False]]))).value
    alone = BoxEnergy()(features(maps[:, :, :1]), features(mask[:, :, :1])).value
    assert torch.allclose(both, alone)


# ---- max token ----


def test_max_token_is_the_lack_of_the_most_neglected_phrase() -> None:
    maps = 0.5 * attention(0, 2, 1, 3, 4, 4)
    value = MaxToken()(features(maps)).value
    for index in range(2):
        assert float(value[index]) == pytest.approx(max(1 - float(m.max()) for m in maps[index, 0]))


def test_max_token_takes_the_mean_of_a_phrases_pieces_views_and_maps_before_the_largest() -> None:
    peaks = torch.tensor([[0.9, 0.1, 0.3, 0.4], [0.7, 0.3, 0.1, 0.6]], dtype=torch.float64)  # views, pieces
    maps = torch.zeros(1, 2, 4, 3, 3, dtype=torch.float64)
    maps[0, :, :, 1, 2] = peaks
    group = torch.tensor([[0, 0, 1, 1]])
    other = torch.full((1, 1, 4, 2, 2), 0.5, dtype=torch.float64)
    lacks = 1 - (peaks.mean(dim=0) + 0.5) / 2
    expected = max(float(lacks[:2].mean()), float(lacks[2:].mean()))
    assert float(MaxToken()(features(maps, other, group=group)).value) == pytest.approx(expected)


def test_max_token_pulls_one_cell_of_the_most_neglected_phrase_only() -> None:
    maps = (0.5 * attention(0, 1, 1, 2, 4, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(MaxToken()(features(maps)).value.sum(), maps)
    worst = int(maps.detach().amax(dim=(-2, -1))[0, 0].argmin())
    assert gradient[0, 0, worst].flatten().nonzero().tolist() == [[int(maps[0, 0, worst].argmax())]]
    assert float(gradient.sum()) == pytest.approx(-1)


def test_max_token_is_not_below_zero() -> None:
    assert MaxToken()(features(torch.full((1, 1, 2, 2, 2), 1.5))).value.tolist() == [0]


# ---- L2 ----


def test_l2_sums_or_averages_the_squares_of_each_sample() -> None:
    maps, aim = attention(0, 2, 1, 3, 4, 4), attention(1, 2, 1, 3, 4, 4)
    squares = (maps - aim).square()
    assert torch.allclose(L2()(features(maps), features(aim)).value, squares.sum(dim=(1, 2, 3, 4)))
    assert torch.allclose(L2(reduction="mean")(features(maps), features(aim)).value, squares.mean(dim=(1, 2, 3, 4)))


def test_l2_broadcasts_its_target_over_views_weighs_cells_and_leaves_out_the_absent() -> None:
    maps, aim = attention(0, 2, 5, 3, 4, 4), attention(1, 2, 1, 3, 4, 4)
    weight = attention(2, 4, 4)
    present = torch.tensor([[True, False, True], [True, True, True]])
    placed = torch.tensor([[True, True, True], [False, True, True]])
    current = replace(features(maps, present=present), weight=(weight,))
    value = L2()(current, features(aim, present=placed)).value
    squares = (maps - aim).square() * weight
    assert float(value[0]) == pytest.approx(float(squares[0][:, [0, 2]].sum()))
    assert float(value[1]) == pytest.approx(float(squares[1][:, [1, 2]].sum()))
    mean = L2(reduction="mean")(features(maps, present=present), features(aim, present=placed)).value
    assert float(mean[0]) == pytest.approx(float((maps - aim).square()[0][:, [0, 2]].mean()))


def test_l2_weighs_every_map_by_its_own_masks() -> None:
    maps = attention(0, 2, 2, 3, 4, 4), attention(1, 2, 1, 3, 2, 6)
    aims = attention(2, 2, 1, 3, 4, 4), attention(3, 2, 1, 3, 2, 6)
    weights = attention(4, 2, 1, 3, 4, 4), (attention(5, 2, 1, 1, 2, 6) > 0.5).double()
    current = replace(features(*maps), weight=weights)
    expected = [
        sum(float((weight * (m - aim).square())[i].sum()) for m, aim, weight in zip(maps, aims, weights, strict=True))
        for i in range(2)
    ]
    values = 2 * 3 * 4 * 4 + 3 * 2 * 6
    assert L2()(current, features(*aims)).value.tolist() == pytest.approx(expected)
    mean = L2(reduction="mean")(current, features(*aims)).value
    assert mean.tolist() == pytest.approx([total / values for total in expected])


def test_an_absent_target_may_hold_anything() -> None:
    maps = attention(0, 1, 1, 2, 3, 3).requires_grad_()
    aim = torch.stack([torch.zeros(3, 3), torch.full((3, 3), float("nan"))]).double()[None, None]
    value = L2()(features(maps), features(aim, present=torch.tensor([[True, False]]))).value
    (gradient,) = torch.autograd.grad(value.sum(), maps)
    assert bool(torch.isfinite(gradient).all())
    assert not gradient[0, 0, 1].any()


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'men'.*did you mean 'mean'"):
        L2(reduction="men")


# ---- all of them ----


@pytest.mark.parametrize("name", DISTANCES)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    first, second = attention(0, 2, 2, 3, 3, 4), attention(1, 2, 1, 3, 2, 2)
    group = torch.tensor([[0, 0, 1], [0, 1, 0]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    target = features(masks(2, 1, 3, 3, 4), masks(2, 1, 3, 2, 2), present=present)

    def value(a: Tensor, b: Tensor) -> Tensor:
        return DISTANCES[name](features(a, b, present=present, group=group), target).value

    assert value(first, second).dtype == torch.float64
    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(value, (first.requires_grad_(), second.requires_grad_()), eps=1e-6, atol=1e-7, nondet_tol=1e-10)


@pytest.mark.parametrize("name", DISTANCES)
def test_samples_never_mix(name: str) -> None:
    maps = attention(0, 3, 2, 3, 4, 4)
    present = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    group = torch.tensor([[0, 1, 2], [0, 0, 0], [0, 0, 0]])
    mask = masks(3, 1, 3, 4, 4)

    def energy(samples: slice) -> Tensor:
        current: Features = features(maps[samples], present=present[samples], group=group[samples])
        return DISTANCES[name](current, features(mask[samples])).value

    assert torch.allclose(energy(slice(0, 3)), torch.cat([energy(slice(i, i + 1)) for i in range(3)]))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_sample_in_which_nothing_is_present_gives_zero_and_no_gradient(name: str) -> None:
    maps = attention(0, 2, 2, 2, 4, 4).requires_grad_()
    present = torch.tensor([[True, True], [False, False]])
    value = DISTANCES[name](features(maps, present=present), features(masks(2, 1, 2, 4, 4))).value
    (gradient,) = torch.autograd.grad(value.sum(), maps)
    assert float(value.detach()[1]) == 0
    assert float(value.detach()[0]) > 0
    assert bool(torch.isfinite(gradient).all())
    assert gradient[0].any()
    assert not gradient[1].any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BoxDiff(reach=cast("Any", 1.5)), "BoxDiff: reach: 1.5 is not a whole number"),
        (lambda: CrossEntropy(scale=float("nan")), "CrossEntropy: scale: nan is not a number"),
        (lambda: L2(reduction=cast("Any", 3)), "L2: reduction: 3 is not one of sum, mean"),
    ],
    ids=["boxdiff", "cross_entropy", "l2"],
)
def test_options_of_another_type_are_refused_in_python_too(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize("name", ["box_energy", "boxdiff", "cross_entropy", "l2"])
def test_a_distance_that_needs_a_target_says_so(name: str) -> None:
    assert DISTANCES[name].needs_target
    with pytest.raises(ConfigError, match=f"{name} needs a target"):
        DISTANCES[name](features(torch.ones(1, 1, 1, 2, 2)), None)
