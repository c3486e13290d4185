"""Networks run in outline: every operation is made on shapes alone, and its cost is written down.

Tensors without numbers (PyTorch's `FakeTensor`) flow through the very code that makes images, full size, in a few hundred
megabytes. Guidance looks at numbers now and then: is an energy finite, has a sample stopped? So a tensor that has come down to a
single number, as a batch of one image does, holds a one: it is finite, and above every threshold that stops a term.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_aten = torch.ops.aten


def fused_forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def fused_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


# PyTorch counts the fused attention of GPUs, and leaves out that of CPUs.
FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: fused_forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: fused_backward,
}


@contextmanager
def without_numbers() -> Iterator[None]:
    """Within it, modules are built without their weights: `nn.Linear(10**6, 10**6)` takes no memory and no time."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@dataclass
class Cost:
    """What ran between the opening and the closing of `counted`.

    Attributes:
        flops: two for every multiplication with its addition, of matrix products, convolutions and attention.
        saved: the most bytes that autograd held at once for a backward; each storage once, parameters and inputs not.
        peak: the most bytes that lived at once of all that was computed, forward and backward with what is in passing.
    """

    flops: int = 0
    saved: int = 0
    peak: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, max(self.saved, other.saved), max(self.peak, other.peak))


@contextmanager
def counted(given: Iterable[Tensor]) -> Iterator[Cost]:
    """Count what is run within. `given`: parameters and inputs, which were there before and cost nothing."""
    cost = Cost()
    known = {storage_of(tensor) for tensor in given}
    saved, outline = _Saved(cost, known), _Outline(cost, known)
    with saved_tensors_hooks(saved.pack, _Held.get), outline:
        yield cost


def storage_of(tensor: Tensor) -> int:
    """The identity of what a tensor lies in; views share it."""
    return tensor.untyped_storage()._cdata


@dataclass
class _Live:
    """Storages that are alive, and the most that were at once."""

    sizes: dict[int, int] = field(default_factory=dict[int, int])
    now: int = 0
    most: int = 0

    def add(self, key: int, size: int) -> None:
        self.sizes[key] = size
        self.now += size
        self.most = max(self.most, self.now)

    def drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class _Outline(TorchDispatchMode):
    """Counts operations and the storages that they make, and puts a one where a single number is left."""

    def __init__(self, cost: Cost, known: set[int]) -> None:
        super().__init__()
        self.cost, self.known, self.live = cost, known, _Live()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := FLOPS.get(func._overloadpacket)) is not None:
            self.cost.flops += count(*args, **(kwargs or {}), out_val=out)
        if not func._schema.is_mutable:
            out = tree_map_only(FakeTensor, _real_if_single, out)
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor)
        return out

    def _watch(self, tensor: Tensor) -> None:
        key = storage_of(tensor)
        if key in self.known or key in self.live.sizes:
            return
        storage = tensor.untyped_storage()
        self.live.add(key, storage.nbytes())
        self.cost.peak = self.live.most
        weakref.finalize(storage, self.live.drop, key)


def _real_if_single(tensor: FakeTensor) -> Tensor:
    return torch.ones(tensor.shape, dtype=tensor.dtype) if tensor.numel() == 1 else tensor


class _Held:
    """A tensor that autograd holds; gone when autograd lets go of it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def get(self) -> Tensor:
        return self.tensor


class _Saved:
    """Counts what autograd holds: a storage as long as any of the tensors held lies in it."""

    def __init__(self, cost: Cost, known: set[int]) -> None:
        self.cost, self.known, self.live = cost, known, _Live()
        self.holders: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Held:
        held, key = _Held(tensor), storage_of(tensor)
        if key not in self.known:
            self.holders[key] = self.holders.get(key, 0) + 1
            if self.holders[key] == 1:
                self.live.add(key, tensor.untyped_storage().nbytes())
                self.cost.saved = self.live.most
            weakref.finalize(held, self._let_go, key)
        return held

    def _let_go(self, key: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            del self.holders[key]
            self.live.drop(key)
