"""From energies of things to energies of phrases and samples: what is absent never counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lsregen.framework.reductions import max_present, mean_present, over_groups
from tests.near import near

NAN = float("nan")


def test_things_are_averaged_within_their_group_and_the_absent_are_left_out() -> None:
    values = torch.tensor([[1.0, 3.0, 5.0, NAN], [2.0, 4.0, 6.0, 8.0]])
    present = torch.tensor([[True, True, True, False], [True, False, True, True]])
    group = torch.tensor([[0, 0, 2, 0], [1, 1, 1, 0]])
    means, held = over_groups(values, present, group)
    assert near(means, torch.tensor([[2.0, 0.0, 5.0], [8.0, 4.0, 0.0]]))
    assert torch.equal(held, torch.tensor([[True, False, True], [True, True, False]]))


@pytest.mark.parametrize(("reduction", "expected"), [(mean_present, [2.0, 0.0]), (max_present, [3.0, 0.0])])
def test_a_sample_with_nothing_present_gives_zero_and_a_zero_gradient(
    reduction: Callable[[Tensor, Tensor], Tensor], expected: list[float]
) -> None:
    values = torch.tensor([[1.0, 3.0, NAN], [NAN, 7.0, 9.0]], requires_grad=True)
    present = torch.tensor([[True, True, False], [False, False, False]])
    result = reduction(values, present)
    assert result.tolist() == expected
    (gradient,) = torch.autograd.grad(result.sum(), values)
    assert bool(torch.isfinite(gradient).all())
    assert gradient[1].tolist() == [0, 0, 0]
    assert gradient[0, 2] == 0


def test_negative_energies_keep_their_maximum() -> None:
    assert max_present(torch.tensor([[-3.0, -1.0]]), torch.tensor([[True, False]])).tolist() == [-3.0]


def test_no_things_at_all_give_zero() -> None:
    empty, nothing = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    means, held = over_groups(empty, nothing, torch.zeros(2, 0, dtype=torch.long))
    assert means.shape == held.shape == (2, 0)
    assert max_present(means, held).tolist() == mean_present(means, held).tolist() == [0, 0]


def test_float64_stays_float64() -> None:
    values = torch.ones(1, 2, dtype=torch.float64)
    means, held = over_groups(values, torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0, 1]]))
    assert means.dtype == mean_present(means, held).dtype == max_present(means, held).dtype == torch.float64
