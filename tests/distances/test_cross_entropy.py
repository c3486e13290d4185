"""ZestGuide's loss against the published formula, written out cell by cell, and where it does not pull."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lsregen.distances.cross_entropy import CrossEntropy
from lsregen.framework.errors import ConfigError
from tests.toys import draw, features


def maps(seed: int, *shape: int) -> Tensor:
    return 0.12 * torch.sigmoid(2 * draw(seed, *shape, dtype=torch.float64))


def binary(share: float, true: float) -> float:
    """Binary cross-entropy of one cell, both kept from 0.001 to 0.999."""
    share, true = (min(max(v, 1e-3), 1 - 1e-3) for v in (share, true))
    return -true * np.log(share) - (1 - true) * np.log(1 - share)


def couairon(image: Tensor, mask: Tensor, scale: float, ignore: float, ignore_normalised: float) -> float:
    """The published loss of one segment, less the entropy of its mask."""
    raw = scale * image.flatten().numpy()
    total = 0.0
    for values, least in ((raw, ignore), (raw / (raw.max() + 1e-4), ignore_normalised)):
        cells = [
            binary(value if value > least or true > least else 0.0, true) - binary(true, true)
            for value, true in zip(values, mask.flatten().numpy(), strict=True)
        ]
        total += float(np.mean(cells))
    return total


PUBLISHED = {"scale": 10.0, "ignore": 0.01, "ignore_normalised": 0.1}
PAPER = {"scale": 1.0, "ignore": 0.0, "ignore_normalised": 0.0}


def mask(seed: int, *shape: int) -> Tensor:
    """Whole and covered in parts."""
    return (1.4 * torch.sigmoid(3 * draw(seed, *shape, dtype=torch.float64)) - 0.2).clamp(0, 1)


@pytest.mark.parametrize("options", [PUBLISHED, PAPER], ids=["published code", "paper"])
def test_the_energy_is_the_published_formula_averaged_over_segments(options: dict[str, float]) -> None:
    images, masks = maps(0, 2, 1, 3, 5, 6), mask(1, 2, 1, 3, 5, 6)
    placed = torch.tensor([[True, True, True], [True, False, True]])
    energy = CrossEntropy(**options)(features(images), features(masks, present=placed))
    expected = [
        np.mean([couairon(images[i, 0, k], masks[i, 0, k], **options) for k in range(3) if placed[i, k]]) for i in range(2)
    ]
    assert energy.value.tolist() == pytest.approx(expected)
    assert torch.equal(energy.watch, energy.value)


def test_views_and_maps_are_averaged() -> None:
    first, second = maps(2, 1, 2, 1, 4, 4), maps(3, 1, 1, 1, 8, 8)
    aims = mask(4, 1, 1, 1, 4, 4), mask(5, 1, 1, 1, 8, 8)
    value = CrossEntropy()(features(first, second), features(*aims)).value
    views = [couairon(first[0, n, 0], aims[0][0, 0, 0], **PAPER) for n in range(2)]
    expected = (np.mean(views) + couairon(second[0, 0, 0], aims[1][0, 0, 0], **PAPER)) / 2
    assert value.tolist() == pytest.approx([expected])


def test_a_map_that_equals_its_mask_has_none() -> None:
    aim = (mask(6, 1, 1, 2, 5, 6) > 0.5).double()
    assert CrossEntropy()(features(aim), features(aim)).value.tolist() == pytest.approx([0], abs=1e-9)
    assert float(CrossEntropy()(features(1 - aim), features(aim)).value) > 5


def test_what_is_ignored_is_not_pulled_and_what_is_inside_is_pulled_up() -> None:
    image = torch.full((1, 1, 1, 2, 3), 0.02, dtype=torch.float64)
    image[0, 0, 0, 0, 0] = 0.04
    image[0, 0, 0, 1, 2] = 0.0005  # 0.005 when scaled, and a hundredth of the largest
    image.requires_grad_()
    aim = torch.zeros(1, 1, 1, 2, 3, dtype=torch.float64)
    aim[..., 0] = 1
    value = CrossEntropy(**PUBLISHED)(features(image), features(aim)).value
    (gradient,) = torch.autograd.grad(value.sum(), image)
    assert float(gradient[0, 0, 0, 1, 2]) == 0
    assert float(gradient[0, 0, 0, 1, 0]) < 0  # inside: more of it lowers the energy
    assert float(gradient[0, 0, 0, 1, 1]) > 0  # outside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale: 0.0"),
        ({"ignore": 1.0}, "ignore: 1.0"),
        ({"ignore": -0.1}, "ignore: -0.1"),
        ({"ignore_normalised": 2.0}, "ignore_normalised: 2.0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(**options)
