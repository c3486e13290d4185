"""Single values as they come in: numbers of other libraries, texts, and paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import ConfigError, shown

MOST_STEPS = 10_000
"""Of sampling; what a model was trained with allows fewer."""


def bare(value: Any) -> Any:
    """A number of numpy's or torch's, or an array or tensor of one without axes, as Python's; anything else as it is."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "dtype"):
        return value
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):  # a tensor without values
        return value


def half_a_character(text: str) -> bool:
    """Whether a text holds one of the halves that make up a character in UTF-16: no file and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def check_path(value: object, path: str) -> None:
    """Refuse a text that names no file: an empty one, one with NUL, or with characters that no name of a file can hold.

    Raises:
        ConfigError: it is one. `path`: where it stands, for the message.
    """
    text = str(value) if isinstance(value, str | Path) else "."
    try:
        wrong = "holds the character NUL" if b"\0" in os.fsencode(text) else "" if text.strip() else "is empty"
    except UnicodeEncodeError:
        wrong = "holds half of a character"
    if wrong:
        raise ConfigError(f"{path}: {shown(text)} {wrong}; expected the path of a file or folder")
