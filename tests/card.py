"""A device that is not the CPU, on a machine that has none: a card of the CPU's memory.

Tensors sent to it, or made on it, compute as ever, and it is written down that they lie there. What a real card refuses is
refused: an operation on tensors of two devices, a NumPy view of a tensor that is on the card, an index on the card into a tensor
that is not. So a tensor made on the wrong device is found without a card; that kernels give the right numbers is not.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

CARD, CPU = torch.device("cuda", 0), torch.device("cpu")
_aten = torch.ops.aten
BETWEEN = {_aten.copy_, _aten._to_copy}  # operations whose business it is to move
INDEXED = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
EQUALS = {_aten.cat, _aten.stack}  # take no single number of the CPU between tensors of the card
VIEWS_OF_NUMPY = ("numpy", "__array__")
ANSWERS = {  # of torch.cuda, on its card
    "is_available": True,
    "device_count": 1,
    "get_device_name": "a card of the CPU's memory",
    "synchronize": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "memory_allocated": 0,
    "max_memory_allocated": 2**30,
}


class OtherDevice(RuntimeError):
    """An operation that a card refuses."""


@contextmanager
def a_card() -> Iterator[None]:
    """Within it, this machine has one card, `cuda:0`."""
    places = _Places()
    with ExitStack() as stack:
        for name, answer in ANSWERS.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *_, answer=answer: answer))
        stack.enter_context(_Computed(places))
        stack.enter_context(_Asked(places))
        yield


class _Places:
    """Which storages lie on the card."""

    def __init__(self) -> None:
        self.on_card: set[int] = set()
        self.inside = False  # a call that was given tensors of the card, and makes others where those are

    def of(self, tensor: Tensor) -> torch.device:
        if tensor.device.type != "cpu":
            return tensor.device  # meta
        return CARD if tensor.untyped_storage()._cdata in self.on_card else CPU

    def put(self, tensor: Tensor, device: torch.device) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if device.type == "cuda" and key not in self.on_card:
            self.on_card.add(key)
            weakref.finalize(storage, self.on_card.discard, key)
        elif device.type == "cpu":
            self.on_card.discard(key)


class _Computed(TorchDispatchMode):
    """Every operation, those of a backward too: its tensors lie on one device, and so does what comes out."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = self._device(func._overloadpacket, args, kwargs)
        out = func(*args, **kwargs)
        if device == CARD:
            for tensor in tree_iter(out):
                if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                    self.places.put(tensor, CARD)
        return out

    def _device(self, operation: Any, args: Any, kwargs: Any) -> torch.device | None:
        given = [tensor for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)]
        if not given:
            return CARD if self.places.inside else None
        if operation in BETWEEN:
            return self.places.of(given[0])
        if operation in INDEXED and self.places.of(given[0]) == CARD:
            return CARD  # an index of the CPU is sent there
        found = {self.places.of(tensor) for tensor in given}
        if found == {CARD, CPU} and operation not in EQUALS:  # a single number of the CPU may stand among tensors of a card
            found = {self.places.of(tensor) for tensor in given if tensor.ndim or self.places.of(tensor) != CPU}
        if {CARD, CPU} <= found:
            where = ", ".join(f"{list(tensor.shape)} on {self.places.of(tensor)}" for tensor in given)
            raise OtherDevice(f"{operation}: tensors of two devices: {where}")
        return next(iter(found), None)


class _Asked(TorchFunctionMode):
    """Every call from Python: where something is made, where it is sent, and where it says that it is."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__" and args and isinstance(args[0], Tensor):
            return self._attribute(func, args)
        if name in VIEWS_OF_NUMPY and self.places.of(args[0]) == CARD:
            raise OtherDevice(f"{name}: the tensor is on {CARD}; copy it to the CPU first")
        if name in ("to", "cpu", "cuda"):
            return self._sent(func, name, args, kwargs)
        if name == "new_tensor":
            kwargs.setdefault("device", self.places.of(args[0]))
        return self._made(func, args, kwargs)

    def _attribute(self, func: Any, args: Any) -> Any:
        if func == Tensor.device.__get__:
            return self.places.of(args[0])
        if func == Tensor.is_cuda.__get__:
            return self.places.of(args[0]) == CARD
        if func == Tensor.is_cpu.__get__:
            return self.places.of(args[0]) == CPU
        return func(*args)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        wanted = kwargs.get("device")
        if wanted is None or func is torch.device or torch.device(wanted).type not in ("cuda", "cpu"):
            return self._called(func, args, kwargs)
        place = torch.device(wanted)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != place.type:
            raise OtherDevice(f"{func.__name__}: a generator of {generator.device} for a tensor on {place}")
        out = func(*args, **{**kwargs, "device": CPU})
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self.places.put(tensor, place)
        return out

    def _called(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = (tensor for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor))
        before, self.places.inside = self.places.inside, any(self.places.of(tensor) == CARD for tensor in given)
        try:
            return func(*args, **kwargs)
        finally:
            self.places.inside = before

    def _sent(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, rest = args[0], list(args[1:])
        if tensor.device.type != "cpu" or not isinstance(tensor, Tensor):
            return func(*args, **kwargs)
        here, place = self.places.of(tensor), None
        if name != "to":
            place = CARD if name == "cuda" else CPU
            func, rest, kwargs = Tensor.to, [], {}
        elif rest and isinstance(rest[0], str | torch.device):
            place = torch.device(rest.pop(0))
        elif rest and isinstance(rest[0], Tensor):
            place, rest[0] = self.places.of(rest[0]), rest[0].dtype
        elif (given := kwargs.pop("device", None)) is not None:
            place = torch.device(given)
        rest = [value for value in rest if isinstance(value, torch.dtype)]  # besides it there is only whether to wait
        kwargs = {key: value for key, value in kwargs.items() if key in ("dtype", "copy", "memory_format") and value is not None}
        out = func(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if place is None or place.type == here.type:
            return out
        if place.type not in ("cuda", "cpu"):
            return func(out, place)
        return _Sent.apply(out, self.places, here, place)


class _Sent(torch.autograd.Function):
    """A copy on the other device; its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: _Places, here: torch.device, there: torch.device) -> Tensor:
        ctx.places, ctx.here = places, here
        copy = tensor.detach().clone()
        places.put(copy, there)
        return copy

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        copy = gradient.detach().clone()
        ctx.places.put(copy, ctx.here)
        return copy, None, None, None
