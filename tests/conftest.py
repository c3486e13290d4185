"""Tests are stricter than production: deterministic kernels, few threads, warnings are errors (see pyproject.toml)."""

import os
import signal
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.rounding import pytest_addoption, pytest_runtest_protocol

__all__ = ["pytest_addoption", "pytest_runtest_protocol"]

# The same examples every time, and none fails for being slow: a busy machine is no fault of the code.
settings.register_profile("deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("deterministic")
torch.use_deterministic_algorithms(True)
# A shell starts its background jobs deaf to Ctrl-C, and so would be the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Fixtures that another library made, whose results or files ours are compared with; tests of other kinds say so themselves.
OTHERS = {"oracle", "oracles", "networks", "files"}


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if OTHERS & set(getattr(item, "fixturenames", ())) or item.path.is_relative_to(Path(__file__).parent / "parity"):
            item.add_marker(pytest.mark.parity)


def pytest_configure(config: pytest.Config) -> None:
    # One thread, unless asked: tiny tensors, and on busy cores threads that wait for each other cost a hundredfold.
    torch.set_num_threads(config.getoption("--threads"))
