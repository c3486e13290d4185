"""`run("evaluate", ...)` and a small plan, as in lsregen's own tests."""

from tests.apps.conftest import planned, run
from tests.evaluation.conftest import small

__all__ = ["planned", "run", "small"]
