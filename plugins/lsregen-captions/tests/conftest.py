"""`run("caption", ...)`, as in the tests of lsregen's own commands."""

from tests.apps.conftest import run

__all__ = ["run"]
