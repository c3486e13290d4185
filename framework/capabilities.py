"""What a plugin may be able to do besides what its protocol asks for. Each is told by a member: one that has it can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from .protocols import Denoiser, Distance, Model, Run
from .types import Latents


@runtime_checkable
class Grounded(Protocol):
    """A model that may see the boxes of a layout by itself, such as GLIGEN."""

    @property
    def grounded(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class GroundedDenoiser(Protocol):
    """A denoiser of such a model."""

    @property
    def grounded_steps(self) -> int:
        """How many steps, from the first, see the boxes."""
        ...


@runtime_checkable
class Releasing(Protocol):
    """A model that brings its networks to the device only while they are needed."""

    def release(self) -> None:
        """Take them off the device; called before another model renders for this one, and after a run."""
        ...


@runtime_checkable
class Diagnosing(Protocol):
    """A model that can look at its weights."""

    def broken_weights(self) -> Sequence[str]:
        """The components whose weights hold values that are not finite."""
        ...


@runtime_checkable
class Proposing(Protocol):
    """An extractor that proposes the latent that a run starts from."""

    def initial(self, run: Run, state: Any) -> Latents | None:
        """That latent `[b c h w]`, or None for the run's own noise. Called once, after `prepare`, which gave `state`."""
        ...


@runtime_checkable
class Blending(Protocol):
    """A distance whose gradient is a known share of the way to the target, so that a schedule may have `blend`."""

    blends: ClassVar[bool]


def sees_boxes(model: Model) -> bool:
    """Whether a model sees boxes by itself."""
    return isinstance(model, Grounded) and model.grounded


def grounded_steps(denoiser: Denoiser) -> int:
    """How many steps, from the first, see the boxes."""
    return denoiser.grounded_steps if isinstance(denoiser, GroundedDenoiser) else 0


def blends(distance: Distance) -> bool:
    """Whether a pull by this distance may be a `blend`."""
    return isinstance(distance, Blending) and distance.blends
