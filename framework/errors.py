"""The errors that a user sees: each names the value, where it came from, what was expected and how to mend it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from difflib import get_close_matches


class LsregenError(Exception):
    """Base of every error that lsregen raises on purpose; the command line prints it without a traceback, exit code 2."""


class ConfigError(LsregenError):
    """A setting, an option or a name that cannot be used."""


class LayoutError(LsregenError):
    """A box, mask or phrase of a layout that cannot be used."""


class PhraseError(LayoutError):
    """A phrase that is not in the prompt, or occurs more than once."""


class CheckpointError(LsregenError):
    """Weights or a model folder that cannot be loaded."""


class PluginError(LsregenError):
    """A plugin that is broken, unknown or wrongly typed; names the distribution at fault."""


class NonFiniteError(LsregenError):
    """A value that became NaN or infinite during a run; names the term, the step and the dtype."""


def shown(value: object, most: int = 160) -> str:
    """A value in a message, as Python writes it; the middle of a very long one is left out."""
    try:
        text = repr(value)
    except Exception:  # a stranger's class; a whole number of many thousand digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def nearest(given: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a known name is close to the given one, else an empty string."""
    close = get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


@contextmanager
def told_of(where: str) -> Generator[None]:
    """Errors in the block are said to be of that place, line by line; nothing is added where it is empty."""
    try:
        yield
    except LsregenError as error:
        if not where:
            raise
        raise type(error)("\n".join(f"{where}: {line}" for line in str(error).split("\n"))) from None


def counted(number: int, noun: str) -> str:
    """A number with what it counts: `1 item`, `2 items`, `2 batches`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"
