"""SIGTERM is Ctrl-C, and both wait until what must not be left half done is done."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import suppress

import pytest

from lsregen.apps.interrupts import interrupt_on_sigterm, unbroken


@pytest.fixture(autouse=True)
def sigterm_interrupts() -> Generator[None]:
    before = signal.getsignal(signal.SIGTERM)
    interrupt_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_interrupt_and_neither_breaks_a_block(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    done: list[signal.Signals] = []

    def block() -> None:
        with unbroken():
            signal.raise_signal(number)
            done.append(number)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [number]
    assert signal.getsignal(number) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_error_of_a_block_does_not_swallow_an_interrupt(number: signal.Signals) -> None:
    def block() -> None:
        with suppress(OSError), unbroken():
            signal.raise_signal(number)
            raise OSError("No space left on device")

    with pytest.raises(KeyboardInterrupt):
        block()


def test_an_ignored_sigterm_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupt_on_sigterm()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
