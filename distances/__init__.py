"""lsregen's own distances: how far features are from what they should be. They register as any package's would."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..framework.lazy import lazily
from ..framework.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from .attribute_binding import AttributeBinding
    from .box_energy import BoxEnergy
    from .boxdiff import BoxDiff
    from .cross_entropy import CrossEntropy
    from .l2 import L2
    from .max_token import MaxToken

__all__ = ["L2", "AttributeBinding", "BoxDiff", "BoxEnergy", "CrossEntropy", "MaxToken"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "attribute_binding": "AttributeBinding",
        "box_energy": "BoxEnergy",
        "boxdiff": "BoxDiff",
        "cross_entropy": "CrossEntropy",
        "l2": "L2",
        "max_token": "MaxToken",
    },
)


@hookimpl
def register_distances(register: Callable[[str, type], None]) -> None:
    from .attribute_binding import AttributeBinding
    from .box_energy import BoxEnergy
    from .boxdiff import BoxDiff
    from .cross_entropy import CrossEntropy
    from .l2 import L2
    from .max_token import MaxToken

    register("attribute_binding", AttributeBinding)
    register("box_energy", BoxEnergy)
    register("boxdiff", BoxDiff)
    register("cross_entropy", CrossEntropy)
    register("l2", L2)
    register("max_token", MaxToken)
