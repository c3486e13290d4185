"""Functions by name: lsregen's own, and those that installed packages bring, looked up when a name is not one of lsregen's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from .registry import discover

F = TypeVar("F", bound=Callable[..., Any])


class Functions(Mapping[str, F], Generic[F]):
    """The functions of a kind, by name.

    Args:
        kind: a kind of `class_checks.FUNCTIONS`.
        own: lsregen's own; a package cannot replace one.
    """

    def __init__(self, kind: str, own: Mapping[str, F]) -> None:
        self._kind, self._own = kind, own
        self._used: dict[str, F] = {}

    def __getitem__(self, name: str) -> F:
        if name in self._own:
            return self._own[name]
        if name not in self._used:  # asked for at every step
            self._used[name] = self._brought()[name]
        return self._used[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._brought()

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *self._brought()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _brought(self) -> dict[str, F]:
        found = discover().functions[self._kind]
        return {name: one.cls for name, one in found.items() if name not in self._own}
