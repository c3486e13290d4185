"""`run("evaluate", ...)` and a small plan, as in lsregen's own tests."""

from tests.apps.conftest import run
from tests.evaluation.conftest import small

__all__ = ["run", "small"]
