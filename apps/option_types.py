"""The types of options that all commands share: finite numbers, names that are not empty, paths, numbers of things."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from ..framework.config.values import MOST_ITEMS, MOST_STEPS
from ..framework.layout_files.item import SEEDS


class Finite(click.FloatRange):
    """A number within bounds. nan passes every range of click's, and infinity an open one: neither is ever meant."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Text(click.types.StringParamType):
    """Whatever UTF-8 can write, which is not all that Python takes from a shell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text: str = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r}: these bytes are no text in UTF-8; check the terminal's encoding.", param, ctx)
        return text


class Name(Text):
    """A text that names something, such as a model. An empty one comes from an unset variable of the shell, and is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text: str = super().convert(value, param, ctx)
        if not text.strip():
            self.fail(f"{text!r} is empty; give a name, or leave the option out.", param, ctx)
        return text


class PathName(click.Path):
    """The name of a file or folder as a `Path`. What is there, the command itself looks at (`framework.files.look`)."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if not text.strip():
            self.fail(f"{text!r} is empty; give a path, or leave the option out.", param, ctx)
        if "\0" in text:
            self.fail(f"{text!r} holds the character NUL, which no path can.", param, ctx)
        return super().convert(value, param, ctx)


COUNT = click.IntRange(1, MOST_ITEMS)
BATCH = click.IntRange(1, 1024)
STEPS = click.IntRange(1, MOST_STEPS)
SEED = click.IntRange(0, SEEDS // 2)  # the scenes that follow the first count up
TEXT = Text()
NAME = Name()
PATH = PathName()


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE`, several times."""
    found: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise click.BadParameter(f"{text!r}: expected {param.metavar}")
        if key.strip() in found:
            raise click.BadParameter(f"{text!r}: {key.strip()!r} is given twice")
        found[key.strip()] = value.strip()
    return found
