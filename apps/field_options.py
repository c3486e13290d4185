"""Options of the command line that are the fields of a dataclass: types, choices, ranges, defaults and help are written there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from ..framework.config.field_types import init_fields, key_of, type_hints
from ..framework.config.load_options import LoadOptions
from ..framework.config.options import convert
from ..framework.errors import ConfigError

METAVARS: dict[Any, str] = {int: "N", float: "NUMBER", str: "NAME", Path: "PATH"}


class OfType(click.types.UnprocessedParamType):
    """A text of the command line as the value that a type asks for."""

    def __init__(self, hint: Any) -> None:
        self.hint, self.base = hint, _base(hint)
        self.name = "text" if self.base is str else "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and self.base in (int, float):
            with suppress(ValueError):  # the type says what was expected
                value = self.base(value)
        try:
            return convert(value, self.hint, "value")
        except ConfigError as error:
            return self.fail(f"{str(error).removeprefix('value: ')}.", param, ctx)


def field_options(cls: type, names: Sequence[str] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the fields of a dataclass as options, in their order; `names`: of some of them."""

    def given(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = type_hints(cls)
        for f in reversed([f for f in init_fields(cls) if names is None or f.name in names]):
            command = _option(f, hints[f.name])(command)
        return command

    return given


def load_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of `LoadOptions` for a command that loads a model; all of them if none is named."""
    return field_options(LoadOptions, names or None)


def _option(f: Field[Any], hint: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name, said = f"--{key_of(f).replace('_', '-')}", str(f.metadata["help"])
    said = f"{said[0].upper()}{said[1:]}."
    default = None if f.default is MISSING else f.default
    if _base(hint) is bool:
        return click.option(name, f.name, is_flag=True, default=default, help=said)
    return click.option(
        name, f.name, type=OfType(hint), default=default, show_default=default is not None, metavar=_metavar(f, hint), help=said
    )


def _base(hint: Any) -> Any:
    """The type of a value that is given, without what stands beside it."""
    while get_origin(hint) is Annotated or type(None) in get_args(hint):
        hint = next(each for each in get_args(hint) if each is not type(None))
    return hint


def _metavar(f: Field[Any], hint: Any) -> str:
    base = _base(hint)
    return "|".join(get_args(base)) if get_origin(base) is Literal else METAVARS[base]
