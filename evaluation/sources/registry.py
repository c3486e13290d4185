"""The sources by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from ...framework.config.options import plain
from ...framework.errors import ConfigError, nearest, told_of
from . import coco, nsr1k, prompts
from . import lists as own
from . import shapeworld as scenes
from .base import Asked, Reader, Source

SOURCES: Mapping[str, tuple[Reader, frozenset[str]]] = MappingProxyType(
    {
        "coco": (coco.read, frozenset({"path", "split", "captions"})),
        "nsr1k": (nsr1k.read, frozenset({"path"})),
        "attend-and-excite": (prompts.read_attend_and_excite, frozenset({"path"})),
        "geneval": (prompts.read_geneval, frozenset({"path"})),
        "list": (own.read, frozenset({"path"})),
        "shapeworld": (scenes.read, frozenset({"objects", "count", "first", "size", "place"})),
    }
)
"""Each source's reader, and what it alone may be asked."""
OF_ALL = frozenset({"on_bad_box", "limit"})


def read_source(name: str, asked: Asked) -> Source:
    """The items of a source.

    Raises:
        ConfigError: no such source, or something was asked that it does not know.
        LayoutError: its file cannot be used, or has no items.
    """
    if name not in SOURCES:
        raise ConfigError(f"source {name!r}: expected one of {', '.join(SOURCES)}{nearest(name, SOURCES)}")
    read, known = SOURCES[name]
    for f in fields(Asked):
        if f.name not in known | OF_ALL and (value := getattr(asked, f.name)) != f.default:
            takers = [other for other, (_, takes) in SOURCES.items() if f.name in takes]
            raise ConfigError(f"{f.name} {plain(value)!r}: not of the source {name}; it is of {', '.join(takers)}")
    with told_of(f"source {name}"):
        return read(asked)
