"""Checks the arguments of public functions: each is converted to the type of its annotation, or an error names it."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import Parameter, signature
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigError, LsregenError, shown
from .options import convert

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that checks its arguments first: each must have the type of its annotation. numpy's numbers become Python's.

    Raises:
        ConfigError: some have another type; names all of them.
    """
    return checked_as(ConfigError)(function)


def checked_as(error: type[LsregenError]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `checked`, raising errors of another class."""

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            hints = hints_of(function)
            bound = signature(function).bind(*args, **kwargs)  # a TypeError of Python's: no such argument, or one is missing
            faults = list[str]()
            for name in [name for name in bound.arguments if name in hints]:
                try:
                    bound.arguments[name] = convert(bound.arguments[name], hints[name], name)
                except ConfigError as fault:
                    faults.append(str(fault))
            if faults:
                raise error("\n".join(faults))
            return function(*bound.args, **bound.kwargs)

        return called

    return decorated


@cache
def hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The types of a function's arguments by name; without those that have none, or one that cannot be told at run time."""
    found: dict[str, Any] = {}
    single = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    for name, parameter in signature(function).parameters.items():
        if parameter.annotation is Parameter.empty or parameter.kind not in single:
            continue
        given: Any = SimpleNamespace(__annotations__={name: parameter.annotation})  # one by one: a name may be for type checkers
        try:
            found.update(typing.get_type_hints(given, vars(sys.modules[function.__module__]), include_extras=True))
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return found


def checked_device(given: object) -> str:
    """The name of a device of torch's, such as `cpu` or `cuda:1`.

    Raises:
        ConfigError: it is no such name, and no device.
    """
    import torch

    try:
        if isinstance(given, str | torch.device):
            return str(torch.device(given))
    except RuntimeError:
        pass
    raise ConfigError(f"device: {shown(given)} is not a device of torch; expected a name such as cpu or cuda:0") from None
