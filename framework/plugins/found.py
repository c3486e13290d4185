"""What discovery finds: plugins by kind and name, and packages that could not be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Registered:
    """A plugin and where it comes from. `cls` is the dataclass, or for a model the loader object."""

    name: str
    kind: str
    cls: Any
    package: str
    version: str


@dataclass(frozen=True)
class Broken:
    """A package whose plugins could not be loaded, and why. One that is not even installed has no entry point."""

    package: str
    version: str
    entry_point: str
    error: str

    def __str__(self) -> str:
        if not self.entry_point:
            return self.error
        return f"{self.package} {self.version} (entry point {self.entry_point}): {self.error}"


Table = Mapping[str, Registered]


def empty() -> Table:
    return MappingProxyType({})
