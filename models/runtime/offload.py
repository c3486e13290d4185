"""Offload: the networks of a model live in the CPU's memory, and come to the device for the stage that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Stage: TypeAlias = Literal["texts", "noise", "pictures"]
"""What a model does: it encodes texts (and what it is grounded on), predicts noise, and encodes or decodes pictures."""


class Stages:
    """Which networks are on the device; one stage's, unless a gradient goes through two.

    Weights are frozen, so nothing is ever copied back: a stage that is left drops its copies. A graph that was made with them
    keeps them alive, and its backward stays right. Not for several threads at once.

    Args:
        device: where the networks compute.
        networks: by stage, what it needs; at home, which is where they are now.
    """

    def __init__(self, device: torch.device, networks: Mapping[Stage, Sequence[nn.Module]]) -> None:
        self.device, self.networks = device, networks
        self.resident = set[Stage]()
        self._home = {stage: [_tensors(network) for network in group] for stage, group in networks.items()}

    def enter(self, stage: Stage, *, beside: bool = False) -> None:
        """Bring a stage's networks to the device. `beside`: those that are there stay, as a backward will go through them too.

        So they do when noise is predicted again between two such backwards; pictures without a gradient are made alone.
        """
        between = stage == "noise" and stage in self.resident
        if not beside and not between:
            self._drop(self.resident - {stage})
        if stage in self.resident:
            return
        for network, tensors in zip(self.networks[stage], self._home[stage], strict=True):
            _place(network, {name: _copied(tensor, self.device) for name, tensor in tensors.items()})
        self.resident.add(stage)

    def leave(self) -> None:
        """Leave the device."""
        self._drop(set(self.resident))

    def _drop(self, stages: set[Stage]) -> None:
        for stage in stages:
            for network, tensors in zip(self.networks[stage], self._home[stage], strict=True):
                _place(network, tensors)
        self.resident -= stages


class Everywhere(Stages):
    """Networks that are on the device for good."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, {})

    def enter(self, stage: Stage, *, beside: bool = False) -> None:
        """Nothing is to be done."""


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    copy = tensor.detach().to(device, copy=True)
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy


def _place(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(path), leaf, tensor)
