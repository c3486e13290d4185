"""SynGen's loss against the published formula, written out pair by pair; scales, word pieces, and what is absent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsregen.distances.attribute_binding import AttributeBinding
from lsregen.framework.errors import ConfigError
from lsregen.framework.types import Features
from tests.toys import draw, features

Cells = NDArray[np.float64]


def maps(seed: int, *shape: int) -> Tensor:
    return torch.sigmoid(2 * draw(seed, *shape, dtype=torch.float64))


def divergence(first: Cells, second: Cells) -> float:
    p, q = first.ravel() / first.sum(), second.ravel() / second.sum()
    return float((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2


def apart(one: list[Cells], other: list[Cells]) -> float:
    """Of two words, by their pieces."""
    return max(divergence(a, b) for a in one for b in other)


def rassin(words: dict[str, list[Cells]], bindings: list[list[str]]) -> float:
    """The published loss: bindings have their noun last; every word outside of one counts once against each of its pairs."""
    total = 0.0
    for binding in bindings:
        *modifiers, noun = binding
        outside = [word for word in words if word not in binding]
        for modifier in modifiers:
            total += apart(words[modifier], words[noun])
            from_others = [np.mean([apart(words[word], words[u]) for u in outside]) for word in (modifier, noun)]
            total -= float(np.mean(from_others))
    return total


# words: 0 square, 1 red, 2 small; 3 circle, 4 blue; 5 and
RELATIONS = (
    (1, 0, 1), (2, 0, 1), (4, 3, 1),
    *((a, b, -1) for a in (0, 1, 2) for b in (3, 4, 5)),
    (3, 5, -1), (4, 5, -1),
)  # fmt: skip
BINDINGS = [["red", "small", "square"], ["blue", "circle"]]
NAMES = ["square", "red", "small", "circle", "blue", "and"]


def related(*given: Tensor, group: Tensor | None = None, present: Tensor | None = None) -> Features:
    return replace(features(*given, group=group, present=present), relations=RELATIONS)


def test_the_energy_is_the_published_formula() -> None:
    image = maps(0, 1, 1, 6, 5, 7)
    expected = rassin({name: [image[0, 0, i].numpy()] for i, name in enumerate(NAMES)}, BINDINGS)
    energy = AttributeBinding()(related(image))
    assert energy.value.tolist() == pytest.approx([expected], rel=1e-4)  # a millionth of every map is spread evenly
    assert torch.equal(energy.watch, energy.value)


def test_of_words_in_pieces_the_pair_farthest_apart_counts_and_views_and_maps_are_averaged() -> None:
    group = torch.tensor([[0, 1, 1, 2, 3, 4, 5, 3]])  # red and circle have two pieces each
    first, second = maps(1, 1, 2, 8, 4, 4), maps(2, 1, 1, 8, 6, 6)

    def of(image: Tensor) -> float:
        pieces = {name: [image[k].numpy() for k in range(8) if group[0, k] == i] for i, name in enumerate(NAMES)}
        return rassin(pieces, BINDINGS)

    expected = ((of(first[0, 0]) + of(first[0, 1])) / 2 + of(second[0, 0])) / 2
    assert AttributeBinding()(related(first, second, group=group)).value.tolist() == pytest.approx([expected], rel=1e-3)


def test_the_scale_of_a_map_does_not_matter() -> None:
    image = maps(3, 2, 1, 6, 4, 4)
    scales = torch.tensor([100, 1, 1e-6, 0.3, 7, 1], dtype=torch.float64)[:, None, None]
    plain, scaled = (AttributeBinding()(related(each)).value for each in (image, scales * image))
    assert torch.allclose(plain, scaled, rtol=1e-9)


def test_bindings_that_a_sample_lacks_count_for_nothing() -> None:
    image = maps(4, 2, 1, 6, 4, 4)
    present = torch.tensor([[True] * 6, [True, True, False, False, False, True]])
    value = AttributeBinding()(related(image, present=present)).value
    alone = rassin({name: [image[1, 0, i].numpy()] for i, name in enumerate(NAMES) if present[1, i]}, [["red", "square"]])
    assert float(value[1]) == pytest.approx(alone, rel=1e-4)
    bare = AttributeBinding()(related(image[1:, :, :2], group=torch.tensor([[0, 1]]))).value  # nothing to differ from
    assert float(bare) == pytest.approx(divergence(image[1, 0, 0].numpy(), image[1, 0, 1].numpy()), rel=1e-4)


def stepped(image: Tensor, relations: tuple[tuple[int, int, int], ...]) -> list[Cells]:
    """Three maps after a small step against their gradient."""
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(AttributeBinding()(replace(features(leaf), relations=relations)).value.sum(), leaf)
    return list((image - 0.001 * gradient / gradient.norm())[0, 0].numpy())


def test_a_step_against_the_gradient_brings_a_pair_together() -> None:
    image = maps(5, 1, 1, 3, 4, 4)
    before, after = list(image[0, 0].numpy()), stepped(image, ((1, 0, 1),))
    assert divergence(after[0], after[1]) < divergence(before[0], before[1])
    assert np.array_equal(after[2], before[2])


def test_a_step_against_the_gradient_takes_the_others_away() -> None:
    image = maps(5, 1, 1, 3, 4, 4)
    image[:, :, 1] = image[:, :, 0]  # nothing is left to bring together
    before, after = list(image[0, 0].numpy()), stepped(image, ((1, 0, 1), (0, 2, -1), (1, 2, -1)))
    for word in (0, 1):
        assert divergence(after[word], after[2]) > divergence(before[word], before[2])


def test_maps_with_zeros_and_without_mass_stay_finite() -> None:
    image = maps(6, 1, 1, 6, 4, 4).float()
    image[0, 0, 0, :2] = 0
    image[0, 0, 1] = 0
    image.requires_grad_()
    value = AttributeBinding()(related(image)).value
    (gradient,) = torch.autograd.grad(value.sum(), image)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(gradient).all())


def test_features_without_words_that_should_agree_are_refused() -> None:
    for relations in ((), ((0, 1, -1),)):
        with pytest.raises(ConfigError, match="relate none; use the extractor bound_words"):
            AttributeBinding()(replace(features(maps(7, 1, 1, 2, 3, 3)), relations=relations))
