"""stdout and stderr that never end a command: a reader that is gone, a full disk, a character that a terminal cannot show."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

import click

UNWRITTEN = 1
"""The exit code of a command that did all it was asked for, and could not write what it had to say to stdout."""


class Lasting(io.FileIO):
    """A stream to which every write succeeds: after the first `fault` what is written is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes


def outlast() -> Lasting | None:
    """Make stdout and stderr such streams, with escapes for what their encoding does not have; returns that of stdout."""
    made = {name: _lasting(name) for name in ("stdout", "stderr")}
    return made["stdout"]


def _lasting(name: str) -> Lasting | None:
    stream: object = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):  # closed by the caller, or not a file
        return None
    if os.name == "nt" and stream.isatty():  # the console takes no bytes
        stream.reconfigure(errors="backslashreplace")
        return None
    stream.flush()
    raw = Lasting(stream.fileno())
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, text)
    return raw


def unwritten(stdout: Lasting | None) -> OSError | None:
    """Why it could not be written to; None if it could, or if its reader had seen enough, as `head` has."""
    if stdout is None:
        return None
    sys.stdout.flush()
    return None if isinstance(stdout.fault, BrokenPipeError) else stdout.fault


@contextmanager
def stdout_kept() -> Generator[Callable[[str], None]]:
    """Gives the only function that writes to stdout in the block: what plugins print there goes to stderr."""
    stdout: TextIO | None = sys.stdout

    def echo(text: str) -> None:
        if stdout is not None:
            click.echo(text, file=stdout)

    with redirect_stdout(sys.stderr):
        yield echo
