"""lsregen's own distances: how far features are from what they should be. They register as any package's would."""

from collections.abc import Callable

from ..framework.hookspecs import hookimpl


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
