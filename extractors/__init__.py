"""lsregen's own feature extractors: what to look at. They register as any package's would."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..framework.lazy import lazily
from ..framework.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from .bound_words import BoundWords
    from .cross_attention import CrossAttention
    from .gligen_inversion import GligenInversion
    from .segmentation import Segmentation

__all__ = ["BoundWords", "CrossAttention", "GligenInversion", "Segmentation"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "bound_words": "BoundWords",
        "cross_attention": "CrossAttention",
        "gligen_inversion": "GligenInversion",
        "segmentation": "Segmentation",
    },
)


@hookimpl
def register_extractors(register: Callable[[str, type], None]) -> None:
    from .bound_words import BoundWords
    from .cross_attention import CrossAttention
    from .gligen_inversion import GligenInversion
    from .segmentation import Segmentation

    register("bound_words", BoundWords)
    register("cross_attention", CrossAttention)
    register("gligen_inversion", GligenInversion)
    register("segmentation", Segmentation)
