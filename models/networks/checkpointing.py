"""The memory dial: what a differentiable pass keeps for its backward, and what it computes again then.

Three settings, the same gradient in each. `fast` keeps everything but what the gates of the feed-forwards multiply, which costs
next to nothing to make again. `balanced` computes whole feed-forwards again, and the normalised inputs of convolutions. `low`
keeps little more than the input of every resnet and transformer block, and computes the rest again, for a third more time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

Made = TypeVar("Made")

MEMORY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fast": ("GEGLU",),
        "balanced": ("FeedForward", "Activation"),
        "low": ("ResnetBlock", "TransformerBlock"),
    }
)
"""By setting, the kinds of modules whose insides are computed again in the backward."""


class Recomputed(nn.Module):
    """A module whose insides may be computed again in the backward, instead of being kept."""

    recomputed = False

    def again(self, run: Callable[..., Made], *args: Any) -> Made:
        """`run(*args)`; where this module is recomputed and a gradient is wanted, without keeping what is inside."""
        if not self.recomputed or not torch.is_grad_enabled():
            return run(*args)
        # Nothing in the networks is random, so there is no state of a generator to restore.
        return cast("Made", checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False))


def set_memory(network: nn.Module, memory: str) -> None:
    """Turn the dial of a network to one of the settings in `MEMORY`."""
    for module in network.modules():
        if isinstance(module, Recomputed):
            module.recomputed = type(module).__name__ in MEMORY[memory]
