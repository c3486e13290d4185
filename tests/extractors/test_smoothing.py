"""The honest Gaussian, and the kernel that published code really used."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from lsregen.extractors.smoothing import Kernel, kernel_1d, smooth
from tests.toys import draw


@pytest.mark.parametrize(("kind", "centre", "edge", "corner"), [
    ("attend_and_excite", 0.3319, 0.1221, 0.0449),
    ("gaussian", 0.6193, 0.0838, 0.0113),
])  # fmt: skip
def test_the_three_by_three_kernel_at_sigma_one_half_has_the_known_weights(
    kind: str, centre: float, edge: float, corner: float
) -> None:
    impulse = torch.zeros(1, 1, 1, 5, 5)
    impulse[..., 2, 2] = 1
    kernel = smooth(impulse, 3, 0.5, kind)[0, 0, 0, 1:4, 1:4]
    expected = torch.tensor([[corner, edge, corner], [edge, centre, edge], [corner, edge, corner]])
    assert torch.allclose(kernel, expected, atol=5e-5)


@pytest.mark.parametrize("kind", get_args(Kernel))
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_kernels_sum_to_one_and_are_symmetric(kind: str, size: int) -> None:
    weights = kernel_1d(size, 0.8, kind)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert torch.equal(weights, weights.flip(0))
    assert int(weights.argmax()) == size // 2


def test_the_honest_kernel_has_its_sigma_and_the_published_one_root_two_of_it() -> None:
    x = torch.arange(41, dtype=torch.float64) - 20
    for kind, sigma in (("gaussian", 3.0), ("attend_and_excite", 3 * 2**0.5)):
        variance = (kernel_1d(41, 3.0, kind) * x**2).sum()
        assert float(variance) ** 0.5 == pytest.approx(sigma, rel=1e-3)


def test_smoothing_mirrors_at_the_border_and_keeps_every_map_apart() -> None:
    maps = draw(0, 2, 3, 2, 4, 5)
    smoothed = smooth(maps, 3, 0.5, "gaussian")
    weights = kernel_1d(3, 0.5, "gaussian").float()
    one = maps[1, 2, 1]
    padded = torch.cat([one[1:2], one, one[-2:-1]])
    padded = torch.cat([padded[:, 1:2], padded, padded[:, -2:-1]], dim=1)
    expected = sum(weights[i] * weights[j] * padded[i : i + 4, j : j + 5] for i in range(3) for j in range(3))
    assert torch.allclose(smoothed[1, 2, 1], torch.as_tensor(expected), atol=1e-6)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (2, 2)])
def test_grids_too_small_for_a_mirror_are_smoothed_too_and_constants_stay(grid: tuple[int, int]) -> None:
    maps = torch.full((1, 1, 1, *grid), 0.7)
    assert torch.allclose(smooth(maps, 5, 1.0, "gaussian"), maps)


def test_float64_is_smoothed_in_float64() -> None:
    smoothed = smooth(torch.ones(1, 1, 1, 3, 3, dtype=torch.float64), 3, 0.5, "gaussian")
    assert smoothed.dtype == torch.float64
    assert torch.allclose(smoothed, torch.ones_like(smoothed), rtol=0, atol=1e-14)
