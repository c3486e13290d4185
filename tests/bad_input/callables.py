"""Cases from the arguments of every public callable, found by looking at the public names and their annotations.

An argument is given what its annotation does not permit. The good values that go with it are made by their types; a callable
that needs particular ones has them here.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import PIL.Image
import torch

import lsregen.framework as framework
import lsregen.framework.testing as testing
from lsregen.framework.sampling.taps import EverythingRecorded
from tests.bad_input import values
from tests.bad_input.case import Case
from tests.bad_input.objects import BY_NAME, BY_TYPE, GOOD, OF_PIPELINES, SELVES

MODULES = (framework, testing)

NO_DOORS = {
    "lsregen makes them itself and hands them out": (
        "Detected Dropped Items GuidanceRun LogEntry Report Request Result Sweep Piece TokenTable TapLayer Taps Run Step "
        "StepReport View Conformance Prepared Rendering Inverted Evaluated Stepped Finished"
    ),
    "plugins hand them over, and contracts.py looks at them where they come in": "Energy Features Prediction TapPoint",
    "it computes inside of distances, extractors and loops": (
        "max_present mean_present over_groups select_layers sample drained at_once"
    ),
    "it declares a part of a class or a module": "hookimpl option",
    "it takes what lsregen makes": "Schedule.active Schedule.refinement Schedule.strength Guidance.start",
    "the validator asks it": "Range.fits Range.fault Range.described",
    "discover makes it": "Plugins()",
    "it names a type": "OnStep Event Passes Image Latents Maps PerSample",
}
"""Public names that nobody outside hands a value to, by the reason; what is not here is tried."""


OF_A_USER = {("Pipeline.__call__", "on_step", "a class")}
"""A user's own code, which raises what it raises: a class is called like a function, and refuses its arguments itself."""


def no_doors() -> list[str]:
    return " ".join(NO_DOORS.values()).split()


@dataclass(frozen=True)
class Public:
    """A callable of the public face; `bound` gives what is called, on a fresh instance where it is a method."""

    name: str
    bound: Callable[[], Callable[..., Any]]
    parameters: Mapping[str, Any]
    required: tuple[str, ...]

    def good(self) -> dict[str, Any]:
        """Arguments that it takes, only those that it needs."""
        given = {name: good(self.parameters[name], name) for name in self.required if name not in GOOD.get(self.name, {})}
        return {**given, **{name: make() for name, make in GOOD.get(self.name, {}).items()}}


def good(hint: Any, name: str) -> Any:
    """A value that an annotation permits."""
    if name in BY_NAME:
        return BY_NAME[name]()
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return good(args[0], name)
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in args else good(args[0], name)
    if origin in (tuple, list) or getattr(origin, "__name__", "") in ("Sequence", "Iterable", "Collection"):
        fixed = origin is tuple and args[-1:] != (Ellipsis,)
        return tuple(good(each, name) for each in (args if fixed else args[:1]))
    if getattr(origin, "__name__", "") in ("dict", "Mapping"):
        return {good(args[0], name): good(args[1], name)}
    if getattr(origin, "__name__", "") == "Callable":
        return lambda *_: None
    if hint not in BY_TYPE:
        raise LookupError(f"no good value for {name!r}, of {hint}; give it one in objects.py")
    return BY_TYPE[hint]()


@cache
def publics() -> dict[str, Public]:
    """Every public callable by its name: functions, classes, their public methods, and the classes of the plugins."""
    found: list[Public] = []
    for module in MODULES:
        for name in module.__all__:
            found += _of(name, getattr(module, name))
    for plugin in framework.discover().all():
        if isinstance(plugin.cls, type):
            found += [_public(plugin.cls.__name__, plugin.cls.__init__, partial(_itself, plugin.cls))]
    return {public.name: public for public in found}


def _of(name: str, thing: Any) -> Iterator[Public]:
    if name in no_doors() or getattr(thing, "_is_protocol", False):
        return
    if inspect.isfunction(thing):
        yield _public(name, thing, partial(_itself, thing))
    if not isinstance(thing, type) or issubclass(thing, Exception):
        return
    if f"{name}()" not in no_doors():
        yield _public(name, thing.__init__, partial(_itself, thing))
    for key, member in vars(thing).items():
        if f"{name}.{key}" in no_doors() or (key.startswith("_") and key not in ("__call__", "__getitem__", "__add__")):
            continue
        if isinstance(member, classmethod):
            yield _public(f"{name}.{key}", member.__func__, partial(getattr, thing, key))
        elif inspect.isfunction(member):
            yield _public(f"{name}.{key}", member, partial(_method, thing, key))


def _itself(thing: Any) -> Any:
    return thing


def _method(cls: type, key: str) -> Any:
    return getattr(SELVES.get(f"{cls.__name__}.{key}", BY_TYPE[cls])(), key)


def _public(name: str, function: Any, bound: Callable[[], Callable[..., Any]]) -> Public:
    hints = _hints(function)
    parameters: dict[str, Any] = {}
    required: list[str] = []
    for key, parameter in list(inspect.signature(function).parameters.items()):
        if key in ("self", "cls"):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            parameters |= _of_settings(hints[key]) if key in hints and hints[key] is not Any else _of_loaders()
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters[key] = hints.get(key, Any)
            required += [key] if parameter.default is parameter.empty else []
    return Public(name, bound, parameters, tuple(required))


def _of_settings(hint: Any) -> dict[str, Any]:
    """The keys of a TypedDict that stands for keyword arguments."""
    (settings,) = typing.get_args(hint)
    return _hints(settings)


def _hints(function: Any) -> dict[str, Any]:
    """Annotations as types, also those that are imported for type checkers only."""
    known: dict[str, Any] = {"Tensor": torch.Tensor, "torch": torch, "PILImage": PIL.Image}
    for source in ("typing", "collections.abc", "pathlib"):
        known |= vars(importlib.import_module(source))
    known |= {name: getattr(framework, name) for name in framework.__all__ if name != "Image"}
    home = vars(importlib.import_module(inspect.unwrap(function).__module__))
    known["Image"] = (
        framework.Image if "Image" in home or home["__name__"].endswith((".types", ".protocols")) else PIL.Image.Image
    )
    while True:
        try:
            return typing.get_type_hints(function, {**known, **home}, None, include_extras=True)
        except NameError as error:  # a type that is not public, of which nothing is known
            known[error.name] = Any


@cache
def _of_loaders() -> Mapping[str, Any]:
    """The options of lsregen's own loaders, which the door of all models takes."""
    found: dict[str, Any] = {}
    for plugin in framework.discover().models.values():
        hints = _hints(type(plugin.cls).load)
        for key, parameter in inspect.signature(type(plugin.cls).load).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and key not in ("device", "dtype"):
                found[key] = hints.get(key, Any) | None  # None: left out
    return found


def cases() -> Iterator[Case]:
    """Every argument of every public callable with a value of every type."""
    for public in publics().values():
        for key, hint in public.parameters.items():
            for name, value in values.FOREIGN.items():
                if (public.name, key, name) in OF_A_USER:
                    continue
                lawful = values.permits(hint, value) and _may_be(public.name, key, value)
                word = key.strip("_")
                named = (word, _of_one(word), word.replace("_", " "), name, *_forms(value))
                yield Case(f"{public.name}({key})", name, named, call=public.name, values=((key, value),), lawful=lawful)


def _may_be(name: str, argument: str, value: Any) -> bool:
    """Whether a pipeline may take a value of the right type; it knows of some that they cannot be meant."""
    meant = OF_PIPELINES.get(argument) if name.startswith("Pipeline.") else None
    return meant is None or any(type(value) is type(each) and value == each for each in meant)


def _of_one(word: str) -> str:
    """What one of several is called."""
    return word.removesuffix("es") if word.endswith("xes") else word.removesuffix("s")


def _forms(value: Any) -> tuple[str, ...]:
    """How a message may show a value."""
    if isinstance(value, values.Mute):
        return ("Mute",)
    if isinstance(value, int) and abs(value) > 10**1000:
        return (str(10**20), "digits", "int")
    text = (value[:20],) if isinstance(value, str) and len(value) > 1 else ()
    keys = [repr(key) for key in value] if isinstance(value, Mapping) else []
    return (repr(value)[:20], type(value).__name__, *text, *keys)


def called(case: Case) -> Any:
    """What a call gives that should not give anything."""
    public = publics()[case.call]
    try:
        return public.bound()(**{**public.good(), **dict(case.values)})
    except EverythingRecorded as ended:  # how a pass ends that has all it was asked for
        return ended
