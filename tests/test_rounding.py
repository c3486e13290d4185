"""The other roundings that tests are run under: they move what they say, by as much as they say, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention

from tests.rounding import OddOffsets, Perturbed


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "matmul": lambda x: x @ draw(6, 6),
    "batched matmul": lambda x: torch.matmul(x, draw(2, 3, 6, 6)),
    "einsum": lambda x: torch.einsum("bchw,bcwk->bchk", x, draw(2, 3, 6, 6)),
    "linear": lambda x: linear(x, draw(6, 6), draw(6)),
    "convolution": lambda x: conv2d(x, draw(3, 3, 3, 3), draw(3)),
    "attention": lambda x: scaled_dot_product_attention(x, x + 1, x + 2),
    "masked attention": lambda x: scaled_dot_product_attention(x, x + 1, x + 2, attn_mask=draw(6, 6)),
}


def with_gradient(product: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    leaf = draw(2, 3, 6, 6, seed=1).requires_grad_()
    found = product(leaf)
    return found.detach(), *torch.autograd.grad(found.sum(), leaf)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_their_gradients_move_by_a_rounding_error(name: str) -> None:
    plain = with_gradient(PRODUCTS[name])
    state = torch.get_rng_state()
    with Perturbed(0):
        first, second = with_gradient(PRODUCTS[name]), with_gradient(PRODUCTS[name])
    with Perturbed(0):
        again = with_gradient(PRODUCTS[name])
    for exact, one, other, same in zip(plain, first, second, again, strict=True):
        assert not torch.equal(one, other)
        assert torch.equal(one, same) or torch.get_num_threads() > 1
        torch.testing.assert_close(one, exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_an_element_moves_by_two_units_of_its_dtype_at_most(dtype: torch.dtype) -> None:
    a, b = draw(40, 30, dtype=dtype), draw(30, 50, dtype=dtype)
    exact = a @ b
    with Perturbed(3):
        perturbed = a @ b
    share = ((perturbed.double() - exact.double()) / exact.double()).abs() / torch.finfo(dtype).eps
    moved = float((share > 0).double().mean())
    assert moved > 0.99 if torch.finfo(dtype).bits > 16 else moved == pytest.approx(1 / 16, abs=0.02)
    assert float(share.max()) <= 2
    assert 0 < int((perturbed > exact).sum()) < int((perturbed != exact).sum())


def test_what_is_no_product_stays() -> None:
    x = draw(4, 5)
    plain = x.softmax(dim=1).sum(), x * x, x.sort().values
    with Perturbed(0):
        moved = x.softmax(dim=1).sum(), x * x, x.sort().values
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))


def test_loaded_weights_lie_at_odd_places_of_their_own() -> None:
    source, first, second = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    with OddOffsets():
        for network in (first, second):
            network.load_state_dict(source.state_dict(), assign=True)
    offsets = [network.weight.storage_offset() for network in (first, second)]
    assert all(offset % 2 for offset in offsets)
    assert offsets[0] != offsets[1]
    assert torch.equal(first.weight, source.weight)
