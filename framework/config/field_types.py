"""The fields of a dataclass as options: their names in a configuration, and their types, as Python and as people say them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .constraints import Constraint


@cache  # a plan may have a million jobs
def type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def init_fields(cls: type) -> list[Field[Any]]:
    return [f for f in fields(cls) if f.init]


def key_of(f: Field[Any]) -> str:
    """A field's name in a configuration: Python's reserved words lose their trailing underscore."""
    return f.name.rstrip("_")


def keys_of(cls: type) -> tuple[str, ...]:
    """The names of a plugin's options in a configuration."""
    return tuple(key_of(f) for f in init_fields(cls))


def has_options(hint: Any) -> bool:
    """Whether a type is made of a mapping by its fields: a dataclass whose types are known, and that has no form of its own."""
    if not (isinstance(hint, type) and is_dataclass(hint)) or hasattr(hint, "from_json"):
        return False
    try:
        type_hints(hint)
    except NameError:
        return False
    return True


def type_text(hint: Any) -> str:
    """A type as people say it: `a number`, `a list of text`, `a whole number or nothing`."""
    simple = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        None: "nothing",
        type(None): "nothing",
        Any: "anything",
    }
    if hint in simple:
        return simple[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _constrained(type_text(args[0]), args[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (list, Sequence) or (origin is tuple and args[-1:] == (Ellipsis,)):
        return f"a list of {_plural(args[0])}"
    if origin is tuple:
        return f"a list of {len(args)}: {', '.join(type_text(arg) for arg in args)}"
    if origin in (dict, Mapping):
        return f"a mapping from {_plural(args[0])} to {_plural(args[1])}"
    if has_options(hint):
        return f"a mapping with the keys {', '.join(keys_of(hint))}"
    return str(getattr(hint, "__name__", hint))


def _constrained(text: str, extras: Iterable[Any]) -> str:
    for extra in extras:
        text = extra.described(text) if isinstance(extra, Constraint) else text
    return text


def _plural(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _constrained(_plural(get_args(hint)[0]), get_args(hint)[1:])
    return {float: "numbers", int: "whole numbers", str: "text"}.get(hint) or type_text(hint)
