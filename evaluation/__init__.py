"""How well a run did: worlds with exact answers, the protocol of whole evaluations, metrics, and lsregen's own detectors."""

from collections.abc import Callable

from ..framework.plugins.hookspecs import hookimpl


@hookimpl
def register_detectors(register: Callable[[str, type], None]) -> None:
    from .instruments.detectors import ShapeWorldDetector, TransformersDetector

    register("shapeworld", ShapeWorldDetector)
    register("transformers", TransformersDetector)


@hookimpl
def register_engines(register: Callable[[str, type], None]) -> None:
    from .runs.engine_local import Local

    register("local", Local)
