"""Ctrl-C and SIGTERM: one and the same, and held back where something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130
"""The exit code of a command that was interrupted, as shells have it for Ctrl-C."""
ENDING = (signal.SIGINT, signal.SIGTERM)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, by which schedulers and `kill` end a process, interrupt it as Ctrl-C does; not where it is ignored."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def unbroken() -> Generator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done, and let them act then."""
    handlers: dict[int, Callable[..., Any]] = {}
    if threading.current_thread() is threading.main_thread():  # only that one is interrupted, and may change what that does
        handlers = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}
    held: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:  # an error of the block must not swallow what was held back
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            handlers[held[0]](held[0], None)
