"""An engine for lsregen: the images of a plan made by the workers of a Ray cluster."""

from collections.abc import Callable

from lsregen.framework import hookimpl


@hookimpl
def register_engines(register: Callable[[str, type], None]) -> None:
    from .engine import Ray

    register("ray", Ray)
