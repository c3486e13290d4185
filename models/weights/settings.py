"""Typed reading of a component's JSON file: a wrong value is refused by file, key and value, before it reaches a network."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from ...framework.errors import CheckpointError, nearest

Values: TypeAlias = Mapping[str, Any]

# The largest numbers that a network is built for: far above what there is, and far below what its sizes overflow at.
CHANNELS = 2**16
"""Of channels, and of positions and heads, which are no more."""
LAYERS = 256
"""Of layers of a kind in one place."""
LEVELS = 12
"""Of numbers in a list: one for each level, every one of which halves the grid."""
WORDS = 2**22
"""Of tokens of a vocabulary."""
STEPS = 10**6
"""Of steps that a model was trained on."""
SIDE = 2**13
"""Of cells or pixels of a side."""


@dataclass(frozen=True)
class Settings:
    """The values of a file, asked for by key and type. `where`: the file, for the messages.

    A key that is absent, or null where a single value is asked for, has its default. Every method raises a CheckpointError for a
    value of another type or out of range.
    """

    values: Values
    where: str

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def whole(self, key: str, default: int | None, low: int = 1, high: int = CHANNELS) -> int:
        """A whole number from `low` to `high`; a default of None means that the key must be there."""
        value = self._given(key, default)
        if not _is_whole(value, low, high):
            return self._refuse(key, value, f"a whole number of at least {low} and at most {high}")
        return cast("int", value)

    def number(self, key: str, default: float, above: float = 0.0) -> float:
        """A finite number above `above`."""
        value = self._given(key, default)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and above < value <= sys.float_info.max
        return float(cast("float", value)) if fits else self._refuse(key, value, f"a number above {above:g}")

    def flag(self, key: str, default: bool) -> bool:
        value = self._given(key, default)
        return value if isinstance(value, bool) else self._refuse(key, value, "true or false")

    def text(self, key: str, default: str, known: Sequence[str] = ()) -> str:
        """A text, one of `known` if that is not empty."""
        value = self._given(key, default)
        if not isinstance(value, str) or (known and value not in known):
            near = nearest(value, known) if isinstance(value, str) else ""
            return self._refuse(key, value, f"{_listed(known) if known else 'a text'}{near}")
        return value

    def wholes(
        self, key: str, default: Sequence[int], low: int = 1, count: int | None = None, high: int = CHANNELS
    ) -> tuple[int, ...]:
        """A list of whole numbers from `low` to `high`: `count` of them, or from one to `LEVELS`."""
        most = f", {LEVELS} of them at most" if count is None else ""
        expected = f"a list of {'' if count is None else f'{count} '}whole numbers of at least {low} and at most {high}{most}"
        items = self._items(key, default, expected)
        fits = 0 < len(items) <= LEVELS and count in (None, len(items))
        if not fits or not all(_is_whole(item, low, high) for item in items):
            return self._refuse(key, list(items), expected)
        return cast("tuple[int, ...]", items)

    def per_level(self, key: str, default: int, levels: int, low: int = 1, high: int = CHANNELS) -> tuple[int, ...]:
        """A whole number for each level; one may stand for all."""
        if isinstance(self._given(key, default), list | tuple):
            return self.wholes(key, (), low, levels, high)
        return (self.whole(key, default, low, high),) * levels

    def same(self, key: str, default: int, high: int = CHANNELS) -> int:
        """A whole number, or a list of equal ones."""
        value = self._given(key, default)
        if not isinstance(value, list | tuple):
            return self.whole(key, default, high=high)
        numbers = self.wholes(key, (), high=high)
        return numbers[0] if len(set(numbers)) == 1 else self._refuse(key, list(numbers), "one number for all levels")

    def texts(self, key: str, default: Sequence[str], known: Sequence[str], count: int) -> tuple[str, ...]:
        """A list of `count` texts, each one of `known`."""
        expected = f"a list of {count}, one per level, each {_listed(known)}"
        items = self._items(key, default, expected)
        if len(items) != count or any(item not in known for item in items):
            return self._refuse(key, list(items), expected)
        return cast("tuple[str, ...]", items)

    def _given(self, key: str, default: object) -> object:
        value: object = self.values.get(key)
        return default if value is None else value

    def _items(self, key: str, default: Sequence[object], expected: str) -> tuple[object, ...]:
        value: object = self.values.get(key, default)
        return tuple(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else self._refuse(key, value, expected)

    def _refuse(self, key: str, value: object, expected: str) -> Any:
        try:
            text = repr(value)
        except ValueError:  # more digits than Python writes
            text = "a number of thousands of digits"
        shown = text if len(text) <= 120 else f"{text[:117]}..."
        raise CheckpointError(f"{self.where}: {key} is {shown}; expected {expected}")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _listed(known: Sequence[str]) -> str:
    return repr(known[0]) if len(known) == 1 else f"one of {', '.join(known)}"
