"""What is counted is checked by hand on single operations, and against real tensors on a whole network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.count import ONE_UPDATE, Ours
from benchmarks.outline import Cost, counted, without_numbers
from benchmarks.subjects import Subject, one_run, with_random_weights
from tests.toys import start

FLOAT = 4


def outlined(shape: tuple[int, ...]) -> torch.Tensor:
    with without_numbers():
        return torch.empty(shape)


def test_a_linear_layer_costs_two_for_each_weight_and_row() -> None:
    with without_numbers():
        layer = nn.Linear(64, 128)
    x = torch.zeros(10, 64)
    with torch.no_grad(), counted([x, *layer.parameters()]) as cost:
        layer(x)
    assert cost == Cost(flops=2 * 10 * 64 * 128, saved=0, peak=10 * 128 * FLOAT)


def test_a_network_too_large_for_any_machine_is_built_and_counted() -> None:
    with without_numbers():
        layer = nn.Linear(10**6, 10**7)
    with counted(layer.parameters()) as cost:
        layer(torch.zeros(1, 10**6))
    assert cost.flops == 2 * 10**13


@pytest.mark.parametrize("backward", [False, True])
def test_fused_attention_costs_two_products_and_five_in_its_backward(backward: bool) -> None:
    q = outlined((2, 4, 256, 32)).requires_grad_()
    product = 2 * 2 * 4 * 256 * 256 * 32
    with counted([q]) as cost:
        out = F.scaled_dot_product_attention(q, q, q)
        if backward:
            torch.autograd.grad(out.sum(), q)
    assert cost.flops == product * (7 if backward else 2)
    assert cost.peak < 256 * 256 * 2 * 4 * FLOAT * 2  # the probabilities were in no one's memory


def test_a_storage_is_kept_once_and_parameters_and_inputs_not_at_all() -> None:
    x, weight = outlined((1000,)).requires_grad_(), outlined((1000,))
    with counted([x, weight]) as cost:
        y = (x * weight).exp()  # exp keeps what it gives
        total = (y * y.view(10, 100).view(1000)).sum()  # kept again, under another shape
        torch.autograd.grad(total, x)
    assert cost.saved == 1000 * FLOAT


def test_what_autograd_has_let_go_of_counts_no_more() -> None:
    x = outlined((1000,)).requires_grad_()
    with counted([x]) as cost:
        for _ in range(3):
            torch.autograd.grad(x.exp().sum(), x)
    assert cost.saved == 1000 * FLOAT


def test_the_peak_is_of_what_lives_at_once() -> None:
    x = outlined((1000,))
    with counted([x]) as cost:
        for _ in range(3):
            y = x + 1
            del y
        z = x + 1
        assert len(z + 1) == 1000
    assert cost.peak == 2 * 1000 * FLOAT


def test_a_single_number_is_a_one_that_a_program_may_look_at() -> None:
    x = outlined((1, 1000))
    with counted([x]):
        assert (x**2).sum(dim=1).tolist() == [1.0]
        assert bool(torch.isfinite(x).all())
        assert type(x[:, :2]) is type(x)  # still an outline


@pytest.mark.slow
def test_an_outline_costs_what_the_network_costs_when_it_is_run(narrow: Subject) -> None:
    real, outline = with_random_weights(narrow, torch.device("cpu")), Ours(narrow)
    run, terms = one_run(real, "layout-guidance", sets=ONE_UPDATE)
    pull = start(terms, run)
    with torch.no_grad(), counted([*real.unet.parameters(), run.z_T]) as cost:
        pull.before(run.z_T, run.steps[0])
    found = outline.gradient()
    assert found.flops == cost.flops > 0
    assert found.saved == pytest.approx(cost.saved, rel=1e-3)
    assert found.peak == pytest.approx(cost.peak, rel=0.01)
