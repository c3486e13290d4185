"""`python -m lsregen.apps` is `lsregen`, for a checkout that is not installed."""

from .cli import main

main()
