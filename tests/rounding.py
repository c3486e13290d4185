"""Other roundings on one machine: what another processor, thread count or memory layout may change in the last digit.

`--perturb` moves every result of a matrix product, a convolution or an attention, forward and backward, by about one rounding
error. `--odd-offsets` puts the weights of every network that is loaded at another, odd place in memory. `--threads N` computes
with N threads. A test that fails under one of them claims more than docs/explanation/numbers.md promises.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from zlib import crc32

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lsregen.framework.testing import checks

PRODUCTS = {
    *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "addr", "_addmm_activation"),
    *("convolution", "_convolution", "convolution_backward", "mkldnn_convolution", "convolution_overrideable"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"),
    *("_scaled_dot_product_attention_math_for_cpu", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
}
SIGNS = 1 << 20


class Perturbed(TorchDispatchMode):
    """Multiplies each element of a product by `1 + eps` or `1 - eps` of its dtype, by chance.

    In half precision one element of 16: sums are made in fp32 there and rounded once, so that another order moves few elements.
    That many add about as much error as the rounding itself.

    The signs follow from `seed` and from the number of calls: a test is the same each time, and two calls with the same numbers
    differ. It sits below autograd, so the products of a backward are moved too. The global random streams are left alone.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.restart()
        self.chances = torch.randint(0, 16, (SIGNS,), generator=torch.Generator().manual_seed(seed))
        self.signs = torch.randint(0, 2, (SIGNS,), generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1
        self.factors: dict[torch.dtype, Tensor] = {}

    def restart(self) -> None:
        """The next call is the first again: what is computed twice from here is computed alike."""
        self.places = random.Random(self.seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._schema.name.removeprefix("aten::") in PRODUCTS:
            for tensor in found if isinstance(found, tuple) else (found,):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.device.type == "cpu":
                    self.move(tensor)
        return found

    def move(self, tensor: Tensor) -> None:
        if tensor.dtype not in self.factors:
            limits = torch.finfo(tensor.dtype)
            moved = self.chances % (16 if limits.bits == 16 else 1) == 0
            self.factors[tensor.dtype] = (1 + moved * self.signs.double() * limits.eps).to(tensor.dtype)
        factors, count = self.factors[tensor.dtype], tensor.numel()
        if count > SIGNS:
            factors = factors.repeat(-(-count // SIGNS) + 1)
        start = self.places.randrange(len(factors) - count + 1)
        tensor.mul_(factors[start : start + count].view(tensor.shape))


@contextmanager
def repeated(mode: Perturbed) -> Iterator[None]:
    """Within, the test kit's two calls of one thing, which must agree to the bit, are perturbed alike."""
    original = checks.seeded

    def seeded(seed: int) -> Any:
        mode.restart()
        return original(seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "seeded", seeded)
        yield


class OddOffsets:
    """Every network that takes weights gets copies of its own, an odd number of elements behind the start of a memory block.

    The number differs from load to load, so that two loads of one file never lie alike.
    """

    def __init__(self, loads: int = 0) -> None:
        self.loads = loads
        self.load: Callable[..., Any] = nn.Module.load_state_dict

    def __enter__(self) -> None:
        def load(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            found = self.load(module, *args, **kwargs)
            self.loads += 1
            moved: dict[int, Tensor] = {}
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.device.type == "cpu" and id(tensor) not in moved:
                    moved[id(tensor)] = tensor
                    tensor.data = self.copy(tensor.data)
            return found

        nn.Module.load_state_dict = load  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        nn.Module.load_state_dict = self.load  # type: ignore[method-assign]

    def copy(self, tensor: Tensor) -> Tensor:
        offset = 2 * (self.loads % 8) + 1
        block = torch.empty(tensor.numel() + offset, dtype=tensor.dtype)
        copy = block[offset:].view(tensor.shape)
        copy.copy_(tensor)
        return copy


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rounding", "other roundings (docs/explanation/numbers.md)")
    group.addoption("--perturb", action="store_true", help="move the results of products by about one rounding error")
    group.addoption("--perturb-seed", type=int, default=0, help="another number moves them another way")
    group.addoption("--odd-offsets", action="store_true", help="put loaded weights at odd places in memory")
    group.addoption("--threads", type=int, default=1, help="threads that torch computes with")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Around a whole test, its fixtures too.

    Left alone: the tests of the roundings themselves, and those of bytes that are promised (`same_request`).
    """
    seed = crc32(item.nodeid.encode()) + item.config.getoption("--perturb-seed")
    with ExitStack() as stack:
        if item.path.name != "test_rounding.py" and item.get_closest_marker("same_request") is None:
            if item.config.getoption("--odd-offsets"):
                stack.enter_context(OddOffsets(seed))
            if item.config.getoption("--perturb"):
                stack.enter_context(repeated(stack.enter_context(Perturbed(seed))))
        return (yield)
