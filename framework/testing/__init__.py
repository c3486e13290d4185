"""The conformance kit: what a plugin must do to work with everybody else's, checked in a line of its own tests.

    import pytest
    from lsregen.framework.testing import DISTANCE_PROPERTIES, check_distance
    from my_package import Centre

    @pytest.mark.parametrize("name", DISTANCE_PROPERTIES)
    def test_centre_conforms(name):
        check_distance(Centre(), only=[name])

or `check_distance(Centre())` for all of them at once. What does not hold is listed in one `ConformanceError`, a line each: what
was expected, what was seen, and how to mend it; what builds on a property that fails is listed as not tried. A property that a
plugin's own declarations rule out (a met target, where no target is asked for) is skipped, and stands with its reason in the
`Conformance` that is returned. The inputs are made here, small, and the same every time; nothing of this needs pytest.
"""

from __future__ import annotations

from .checks import Conformance, ConformanceError
from .detectors import DETECTOR_PROPERTIES, check_detector
from .distances import DISTANCE_PROPERTIES, check_distance
from .extractors import EXTRACTOR_PROPERTIES, check_extractor
from .models import MODEL_PROPERTIES, check_model
from .samplers import SAMPLER_PROPERTIES, check_sampler

__all__ = [
    "DETECTOR_PROPERTIES",
    "DISTANCE_PROPERTIES",
    "EXTRACTOR_PROPERTIES",
    "MODEL_PROPERTIES",
    "SAMPLER_PROPERTIES",
    "Conformance",
    "ConformanceError",
    "check_detector",
    "check_distance",
    "check_extractor",
    "check_model",
    "check_sampler",
]
