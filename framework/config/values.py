"""Values as they come in: numbers and lists of other libraries, texts, and paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError, shown

MOST_ITEMS = 1_000_000
"""Of a list, of scenes and the like: more is a mistake (`range` makes endless ones), and would be listed for hours."""

MOST_STEPS = 10_000
"""Of sampling; what a model was trained with allows fewer."""
MOST_SIDE = 16_384
"""Pixels of an image's side: what a network of one gibibyte an image and more would be needed for is a mistake."""


def bare(value: Any) -> Any:
    """A number of numpy's or torch's, or an array or tensor of one without axes, as Python's; anything else as it is."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "dtype"):
        return value
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):  # a tensor without values
        return value


_AS_THEY_ARE = (str, bytes, list, tuple, range, Mapping, set, frozenset)


def as_list(value: object, *kinds: type) -> Any:
    """Several items in order as a list: of an array, tensor or series with one axis, of a generator, or of any other iterable.

    Anything else stays as it is: a text, a mapping, a set (it has no order), an array whose items are not all of `kinds`, and
    what is a list already. Of what never ends, one item more than `MOST_ITEMS` is taken.
    """
    several: object = bare(value)
    taken = isinstance(several, Iterable) and not isinstance(several, _AS_THEY_ARE)
    if not taken:
        return cast("Any", several)
    items = cast("Any", several)
    if not hasattr(items, "dtype"):
        return list(islice(cast("Iterable[Any]", items), MOST_ITEMS + 1))
    if getattr(items, "ndim", None) != 1:
        return items
    try:
        plain: list[Any] = items.tolist()
    except RuntimeError:  # a tensor without values
        return items
    return plain if all(isinstance(item, kinds) and not isinstance(item, bool) for item in plain) else items


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
