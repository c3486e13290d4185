"""What a class must have to be registered as a plugin, checked as it comes in, so that a run does not fail at step 37."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, cast

import pluggy

from ..config.field_types import init_fields, key_of, type_hints
from ..errors import ConfigError, PluginError, nearest, shown

KINDS = ("extractor", "distance", "sampler", "model", "detector", "engine")
FUNCTIONS: Mapping[str, str] = MappingProxyType({"decay": "decay", "normalisation": "normalise", "raster": "raster"})
"""The kinds of functions that packages bring, and the options that name them."""
FEATURE_KINDS = ("attention", "logits", "probability", "latent", "image")
MEMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "extractor": ("kind", "needs", "prepare", "current", "target"),
        "distance": ("accepts", "needs_target", "raster", "__call__"),
        "sampler": ("schedule", "step", "stochastic", "invert_step"),
        "model": ("embedded", "takes", "recognises", "load"),
        "detector": ("load",),
        "engine": ("make",),
    }
)


OF_INSTANCES: Mapping[str, str] = MappingProxyType(
    {
        "extractor": "prepare",
        "distance": "accepts",
        "sampler": "invert_step",
        "model": "bind",
        "detector": "load",
        "engine": "make",
    }
)
"""What an instance of a kind is told by."""


def check_instance(kind: str, given: object) -> None:
    """Refuse what is no instance of a kind of plugin at all; whether it is a good one is another question.

    Raises:
        ConfigError: it is a class, or something else altogether.
    """
    if isinstance(given, type):
        raise ConfigError(f"{kind}: the class {given.__name__}; expected an instance: write {given.__name__}(...)")
    if not hasattr(given, OF_INSTANCES[kind]):
        raise ConfigError(f"{kind}: {shown(given)} is no {kind}: it has no {OF_INSTANCES[kind]}")


def check_function(kind: str, name: str, function: object) -> None:
    """Refuse a function that could not be called, or a bad name.

    Raises:
        PluginError: it is so.
    """
    _check_name(kind, name)
    if isinstance(function, type) or not callable(function):
        raise PluginError(f"{kind} {name!r}: {shown(function)} is no function")


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PluginError(f"{kind} {name!r}: a name is lower case letters, digits and _, beginning with a letter")


def check_plugin(kind: str, name: str, cls: Any) -> None:
    """Refuse a plugin that could not work.

    Raises:
        PluginError: a bad name, not a frozen dataclass, a missing member, an option called `name`, or an unknown feature kind.
    """
    _check_name(kind, name)
    if kind != "model":
        frozen = is_dataclass(cls) and isinstance(cls, type) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009
        if not frozen:
            raise PluginError(
                f"{kind} {name!r}: {cls!r} is not a frozen dataclass; write @dataclass(frozen=True) above the class"
            )
    known = {*dir(cls), *getattr(cls, "__dataclass_fields__", {})}
    missing = [member for member in MEMBERS[kind] if member not in known]
    if missing:
        raise PluginError(f"{kind} {name!r}: {getattr(cls, '__name__', cls)} has no {', '.join(missing)}")
    if kind == "model":
        return
    type_hints(cast("type", cls))  # names a type that cannot be resolved
    if any(key_of(field) == "name" for field in init_fields(cast("type", cls))):
        raise PluginError(f"{kind} {name!r}: an option cannot be called 'name', which names the plugin itself in a configuration")
    stated = {"extractor": "kind", "distance": "accepts"}.get(kind)
    if stated is None:
        return
    value = getattr(cls, stated, None)
    items: object = (value,) if kind == "extractor" else value
    if not isinstance(items, tuple) or not items:
        raise PluginError(f"{kind} {name!r}: {stated} is {value!r}; expected a tuple of feature kinds, such as ('attention',)")
    for item in cast("tuple[object, ...]", items):
        if item not in FEATURE_KINDS:
            raise PluginError(f"{kind} {name!r}: {stated} {item!r} is not one of {', '.join(FEATURE_KINDS)}")


def check_hooks(manager: pluggy.PluginManager) -> None:
    """Refuse a misspelled hook.

    Raises:
        PluginError: there is no hook of this name; says which there are.
    """
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = [f"register_{kind}s" for kind in (*KINDS, *FUNCTIONS, "preset")]
        unknown = re.search(r"unknown hook '(\w+)'", str(error))
        near = nearest(unknown[1], hooks) if unknown else ""
        raise PluginError(f"{str(error).splitlines()[0]}{near}; hooks: {', '.join(hooks)}") from None
