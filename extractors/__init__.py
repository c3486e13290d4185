"""lsregen's own feature extractors: what to look at. They register as any package's would."""

from collections.abc import Callable

from ..framework.hookspecs import hookimpl


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
