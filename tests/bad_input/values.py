"""Values that nobody can have meant, by what an option or an argument takes."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import numpy as np
import torch

HUGE = str(10**30)
ENDLESS_PATH = "x" * 300
HALF = "\udcff"  # a byte that is no UTF-8, as Python takes it from a shell
HALF_A_CHARACTER = "\ud800"

FLOATS = ("nan", "inf", "-inf", "1e400", "-1", "x", "")
WHOLES = ("x", "", "1.5", "nan", "1e3", HUGE, "-" + HUGE)
NAMES = ("", " ", "no-such-name", "no/such/name", "a\0b", "a\x1b[2Jb", HALF, "x" * 5000, "{a: [1}")
TEXTS = (HALF,)
NUMBERS = ("nan", "inf", "1e400", "x", "")
"""Put in place of each number of a good text, such as `64x64` or `red circle=0.1,0.1,0.5,0.5`."""
PAIRS = ("=", "=1", "no-such-name=", "no-such-name=1", "a." * 3000 + "b=1", f"a={HALF}")
"""Of options of the form KEY=VALUE."""


def of_type(kind: click.ParamType) -> tuple[str, ...] | None:
    """The values that no option of a type takes; None where the type does not tell."""
    if isinstance(kind, click.IntRange | click.types.IntParamType):
        low, high = getattr(kind, "min", None), getattr(kind, "max", None)
        beyond = [
            str(edge) for edge in (None if low is None else low - 1, None if high is None else high + 1) if edge is not None
        ]
        return (*WHOLES, *(beyond or ["-5"]))
    if isinstance(kind, click.FloatRange | click.types.FloatParamType):
        high = getattr(kind, "max", None)
        return (*FLOATS, *([str(high + 1)] if high is not None else []))
    if isinstance(kind, click.Choice):
        return ("", "no-such-name", str(kind.choices[0]).upper() + "X", f"{kind.choices[0]},{kind.choices[0]}")
    return None


def changed(good: str) -> Iterator[str]:
    """A good text with one of its numbers replaced, or with a part missing or twice."""
    for found in re.finditer(r"(?<![\w.])\d+(\.\d+)?|(?<=\dx)\d+", good):
        for number in NUMBERS:
            yield good[: found.start()] + number + good[found.end() :]
    if "=" in good:
        yield good.partition("=")[0] + "="


def shown(value: str) -> str:
    """A value for the id of a case."""
    return ascii(value) if len(value) <= 80 else f"{value[:20]!a} and {len(value) - 20} more"


class Plain:
    """A class of a stranger's."""

    def __repr__(self) -> str:
        return "Plain()"


class Mute:
    """Whoever shows it in a message must not fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

FOREIGN: dict[str, Any] = {
    "None": None,
    "True": True,
    "3": 3,
    "-3": -3,
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "10**400": 10**400,
    "10**5000": 10**5000,
    "1j": 1j,
    "'nonsense'": "nonsense",
    "''": "",
    "NUL": "a\0b",
    "long text": "x" * 500,
    "half a character": HALF_A_CHARACTER,
    "b'x'": b"x",
    "()": (),
    "[3]": [3],
    "['a']": ["a"],
    "[None]": [None],
    "[[[]]]": [[[]]],
    "endless list": ENDLESS,
    "range": range(10**12),
    "longest range": range(10**30),
    "{}": {},
    "{'a': 1}": {"a": 1},
    "{'a': None}": {"a": None},
    "{3: None}": {3: None},
    "set()": set[int](),
    "{1, 2}": {1, 2},
    "object()": Plain(),
    "without a text": Mute(),
    "a class": Plain,
    "a function": lambda *_: None,
    "an exception": ValueError("x"),
    "an array": np.zeros((2, 2)),
    "a tensor": torch.zeros(2, 2),
    "an empty tensor": torch.zeros(2, 0),
    "a meta tensor": torch.zeros((), device="meta"),
}
"""Of every type. An argument must refuse those that its annotation does not permit, and take the others or refuse them."""


def permits(hint: Any, value: Any) -> bool:
    """Whether a value is of an annotation; where that cannot be told, it is."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return True
    if origin is Annotated:
        return permits(args[0], value)
    if origin in (Union, types.UnionType):
        return any(permits(each, value) for each in args)
    if origin is Literal:
        return any(value is each or (type(value) is type(each) and value == each) for each in args)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](args, value)
    return _plain(origin or hint, value)


def _plain(hint: Any, value: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < 1e300  # neither nan nor inf, and not beyond what a float holds
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if hint in (str, Path):
        return isinstance(value, str | hint) and value != HALF_A_CHARACTER
    if getattr(hint, "_is_protocol", False):
        return False  # none of these has any member
    if is_dataclass(hint) and isinstance(value, Mapping):
        return False
    return not isinstance(hint, type) or isinstance(value, hint)


def _sequence(args: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or isinstance(value, range):
        return False
    return all(permits(args[0], item) for item in value) if args else True


def _tuple(args: tuple[Any, ...], value: Any) -> bool:
    """Lists pass for tuples."""
    if args[-1:] == (Ellipsis,):
        return _sequence(args[:1], value)
    fits = isinstance(value, list | tuple) and len(value) == len(args)
    return fits and all(permits(hint, item) for hint, item in zip(args, value, strict=True))


def _mapping(args: tuple[Any, ...], value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(permits(args[0], key) and permits(args[1], item) for key, item in value.items()) if args else True


def _iterable(args: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, str | bytes) or not hasattr(type(value), "__iter__"):
        return False
    if isinstance(value, range):  # longer than anybody counts
        return False
    return isinstance(value, torch.Tensor | np.ndarray) or all(permits(args[0], item) for item in value)


def _set(args: tuple[Any, ...], value: Any) -> bool:
    return isinstance(value, set | frozenset)


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any], bool]] = {
    list: _sequence,
    typing.get_origin(Sequence[int]): _sequence,
    tuple: _tuple,
    dict: _mapping,
    typing.get_origin(Mapping[int, int]): _mapping,
    typing.get_origin(typing.Iterable[int]): _iterable,
    typing.get_origin(typing.Collection[int]): _iterable,
    typing.get_origin(typing.Callable[[], int]): lambda _, value: callable(value),
    set: _set,
    frozenset: _set,
}
