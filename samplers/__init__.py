"""Samplers: how a latent walks from noise to an image. Pure functions that know nothing of models and guidance."""

from __future__ import annotations

from collections.abc import Callable

from ..framework.plugins.hookspecs import hookimpl
from ..framework.protocols import Sampler
from .ddim import DDIM
from .ddpm import DDPM

__all__ = ["DDIM", "DDPM"]


@hookimpl
def register_samplers(register: Callable[[str, type[Sampler]], None]) -> None:
    """Offer this folder's samplers to plugin discovery."""
    register("ddim", DDIM)
    register("ddpm", DDPM)
