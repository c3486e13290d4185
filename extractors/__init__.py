"""lsregen's own feature extractors: what to look at. They register as any package's would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..framework.lazy import lazily
from ..framework.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from ..framework.plugins.hookspecs import RegisterPreset
    from ..framework.plugins.presets import Fits
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


PRESETS = Path(__file__).parent / "presets"
FITS: Mapping[str, Fits] = {"layout-guidance": "boxes", "attend-and-excite": "phrases"}


@hookimpl
def register_presets(register: RegisterPreset) -> None:
    """The published methods that pull on attention."""
    for path in sorted(PRESETS.glob("*.yaml")):
        register(path.stem, path, fits=FITS.get(path.stem))


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
