"""Options of plugins: the fields of a frozen dataclass, each with a type, a default and one line of help.

They are built from plain values here and not by OmegaConf's structured configs, because those name neither the full path of a
fault inside a list nor the option that was meant, and differ between the supported versions on lists and tuples.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from ..errors import ConfigError, LsregenError, nearest, shown, told_of
from ..plugins.calls import calling
from .constraints import Constraint
from .field_types import has_options, init_fields, key_of, type_hints, type_text
from .values import MOST_ITEMS, bare, check_path, half_a_character

LARGEST = 2**64
"""A larger whole number is refused: nothing here counts so far, and Python itself does not print it."""

T = TypeVar("T")


def option(default: Any, help: str, model: Literal["source"] | Callable[[str], Path] | None = None) -> Any:
    """A dataclass field with a default and a help text; a mutable default is copied for every instance.

    `model`: of an option that names another model, whose weights then belong to what decides a picture: `source` if its value is
    a source of `Run.render`, else what gives the folder of the model that a text names.
    """
    metadata = {"help": help} if model is None else {"help": help, "model": model}
    if isinstance(default, list | dict | set):
        copied = cast("object", default)
        return field(default_factory=lambda: deepcopy(copied), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """One option as it is shown to people; `key` is its name in a configuration (`from` for the field `from_`)."""

    key: str
    type: str
    default: Any
    help: str
    required: bool = False


def check_options(instance: Any) -> None:
    """Make an instance's options what their types say, as `build` does; Python does not. For `__post_init__`, before its checks.

    Raises:
        ConfigError: some have another type, or are out of range; names all of them.
    """
    cls: type = instance.__class__
    if not is_dataclass(cls):
        raise ConfigError(f"options of {shown(instance)}: it is no dataclass")
    hints, known = type_hints(cls), init_fields(cls)
    with told_of(cls.__name__):
        converted = _each((getattr(instance, f.name), hints[f.name], f.name) for f in known)
    for f, value in zip(known, converted, strict=True):
        object.__setattr__(instance, f.name, value)


def describe_options(cls: type) -> tuple[Option, ...]:
    """The options of a plugin, in the order of its fields."""
    hints = type_hints(cls)
    return tuple(
        Option(key_of(f), type_text(hints[f.name]), plain(_default(f)), str(f.metadata.get("help", "")), _required(f))
        for f in init_fields(cls)
    )


def join(path: str, key: Any) -> str:
    """The path of what stands under `key`; the top of a configuration has the path ''."""
    return f"{path}.{key}" if path else str(key)


def build(cls: type[T], values: Mapping[Any, Any], path: str, what: str = "", beside: Iterable[str] = ()) -> T:
    """An instance of a plugin from plain values.

    Args:
        path: where the values stand in the configuration, for the messages.
        what: what is being built, e.g. `extractor 'cross_attention'`; by default the name of the class.
        beside: keys that may stand at the same place and are handled by the caller; an unknown key may have meant one of them.

    Raises:
        ConfigError: every unknown option, wrong type and refused value at once, one line each.
    """
    known = {key_of(f): f for f in init_fields(cls)}
    named, hints = what or cls.__name__, type_hints(cls)
    problems: list[str] = []
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            problems.append(f"{join(path, key)}: no such option for {named}{choices(key, [*known, *beside])}")
            continue
        try:
            built[known[key].name] = convert(value, hints[known[key].name], join(path, key))
        except ConfigError as error:
            problems.append(str(error))
    lacking = [key for key, f in known.items() if _required(f) and key not in values]
    problems += [f"{join(path, key)}: missing; {named} needs it" for key in lacking]
    whole = all(f.name in built for key, f in known.items() if key in values)
    made = _construct(cls, built, known, path, whole, problems)
    if problems or made is None:
        raise ConfigError("\n".join(problems))
    return made


def _construct(
    cls: type[T], built: dict[str, Any], known: Mapping[str, Field[Any]], path: str, whole: bool, problems: list[str]
) -> T | None:
    """Run the checks of the class itself, noting what it refuses.

    A refusal that begins with the name of an option (`heads: 'x' is not ...`) belongs to that option: the others are checked
    again without it, since a class stops at its first complaint. Any other refusal counts only if all given options are there
    (`whole`), because a default that stands in for a faulty value may be what is refused.
    """
    while all(f.name in built for f in known.values() if _required(f)):
        try:
            return cls(**built)
        except (LsregenError, ValueError) as error:
            at = known.get(str(error).partition(":")[0])
            if at is None or at.name not in built:
                if whole:
                    problems.append(f"{path}: {error}" if path else str(error))
                return None
            problems.append(join(path, error))
            del built[at.name]
            whole = False
        except (Exception, SystemExit):
            with calling(path, "options of", cls):
                raise
    return None


def choices(given: Any, known: Iterable[str]) -> str:
    """The nearest name and all names, to end a message about an unknown option with."""
    listed = list(known)
    return f"{nearest(str(given), listed)}; options: {', '.join(listed)}" if listed else "; it has no options"


def to_values(instance: Any) -> dict[str, Any]:
    """The options of an instance as plain values, which `build` takes again; what is not a dataclass has no options."""
    return {key_of(f): plain(getattr(instance, f.name)) for f in init_fields(type(instance))} if is_dataclass(instance) else {}


def plain(value: Any) -> Any:
    """Tuples as lists, mappings as dicts, dataclasses as dicts, paths as text, numbers of numpy: what YAML and JSON know."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_values(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    return str(value) if isinstance(value, Path) else bare(value)


def convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint` asks for. A whole number passes for a float, never the other way round; numpy's are numbers.

    Raises:
        ConfigError: it, or an item of it, is of another type or not finite; one line for each fault, with its path.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _convert_annotated(value, hint, path)
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint, path)
    if origin is Literal:
        value = bare(value)
        return _checked(value, any(type(value) is type(arg) and value == arg for arg in args), hint, path)
    if origin in (list, tuple, Sequence):
        return _convert_items(value, hint, path)
    if origin in (set, frozenset, Set):
        _checked(value, isinstance(value, Set), hint, path)
        items = _each((item, args[0], path) for item in cast("Set[Any]", value))
        return set(items) if origin is set else frozenset(items)
    if origin in (dict, Mapping):
        return _convert_mapping(value, hint, path)
    if has_options(hint) and isinstance(value, Mapping):
        return build(hint, cast("Mapping[Any, Any]", value), path)
    if hint is Path:
        value = Path(value) if isinstance(value, str) else value
        check_path(value, path)
    return _convert_scalar(value, origin or hint, hint, path)


def _convert_annotated(value: Any, hint: Any, path: str) -> Any:
    base, *extras = get_args(hint)
    converted = convert(value, base, path)
    for extra in extras:
        if isinstance(extra, Constraint) and not extra.fits(converted):
            raise ConfigError(f"{path}: {extra.fault(converted, type_text(hint))}")
    return converted


def _convert_scalar(value: Any, cls: Any, hint: Any, path: str) -> Any:
    if hint is None or hint is type(None):
        return _checked(value, value is None, hint, path)
    value = bare(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            digits = int(value.bit_length() * math.log10(2)) + 1
            raise ConfigError(f"{path}: a whole number of {digits} digits is too large") from None
    if hint is int and isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{path}: {shown(value)} is too large; expected a whole number of at most 64 bits")
    if hint is str and isinstance(value, str) and half_a_character(value):
        raise ConfigError(f"{path}: {value!r} holds half of a character; expected a text in UTF-8")
    boolean_for_number = isinstance(value, bool) and hint in (int, float)
    infinite = isinstance(value, float) and not math.isfinite(value)  # nan passes every range unnoticed; JSON knows neither
    return _checked(value, _is_a(value, cls) and not boolean_for_number and not infinite, hint, path)


def _is_a(value: object, cls: Any) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:  # a protocol, or another type that cannot be told at run time
        return True


def _checked(value: Any, fits: bool, hint: Any, path: str) -> Any:
    if not fits:
        literal = get_origin(hint) is Literal and isinstance(value, str)
        near = nearest(value, map(str, get_args(hint))) if literal else ""
        raise ConfigError(f"{path}: {shown(value)} is not {type_text(hint)}{near}")
    return value


def _convert_union(value: Any, hint: Any, path: str) -> Any:
    if Path in get_args(hint) and isinstance(value, str | Path):
        check_path(value, path)
    if value is None and type(None) in get_args(hint):
        return None
    faults: list[str] = []
    for each in get_args(hint):
        try:
            return convert(value, each, path)
        except ConfigError as error:
            faults.append(str(error))
    # An item inside the value may be at fault: say which, rather than that the whole is of no accepted type.
    inner = [fault for fault in faults if not fault.startswith(f"{path}: ")]
    inner = inner or [fault for fault in faults if " is not " not in fault]
    raise ConfigError(inner[0] if inner else f"{path}: {shown(value)} is not {type_text(hint)}")


def _convert_items(value: Any, hint: Any, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    fixed = origin is tuple and args[-1:] != (Ellipsis,)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        meant = f"; write it as [{', '.join(['..'] * len(args))}]" if fixed else _as_list(value, args[0])
        raise ConfigError(f"{path}: {shown(cast('object', value))} is not {type_text(hint)}{meant}")
    values = cast("Sequence[Any]", value)
    if _longer(values, MOST_ITEMS):
        raise ConfigError(f"{path}: {shown(cast('object', value))}: more than {MOST_ITEMS:,} items")
    _checked(value, not fixed or len(values) == len(args), hint, path)
    hints = args if fixed else (args[0],) * len(values)
    try:
        made = _each((item, each, f"{path}[{i}]") for i, (item, each) in enumerate(zip(values, hints, strict=True)))
    except ConfigError:
        if not fixed and (meant := _as_list(value, args[0])):
            raise ConfigError(f"{path}: {shown(plain(value))} is not {type_text(hint)}{meant}") from None
        raise
    return tuple(made) if origin is tuple or (origin is Sequence and isinstance(value, tuple)) else made


def _longer(values: Sequence[Any], most: int) -> bool:
    try:
        return len(values) > most
    except OverflowError:  # a range
        return True


def _as_list(value: Any, item: Any) -> str:
    """How to write a value that is one item where a list of them is expected."""
    try:
        convert(value, item, "")
    except ConfigError:
        return ""
    return f"; write {shown([plain(value)])}"


def _convert_mapping(value: Any, hint: Any, path: str) -> dict[Any, Any]:
    key_hint, item_hint = get_args(hint)
    _checked(value, isinstance(value, Mapping), hint, path)
    given = cast("Mapping[Any, Any]", value)
    values = {_key(key, key_hint): item for key, item in given.items()}
    if len(values) < len(given):
        raise ConfigError(f"{path}: {shown(value)}: two of its keys are the same number")
    keys = _each((key, key_hint, f"{path}, key") for key in values)
    items = _each(
        (item, item_hint, join(path, key) if isinstance(key, str) else f"{path}[{key}]") for key, item in values.items()
    )
    return dict(zip(keys, items, strict=True))


def _each(given: Iterable[tuple[Any, Any, str]]) -> list[Any]:
    """Convert values, each with its type and path; the faults of all of them together."""
    made: list[Any] = []
    faults: list[str] = []
    for value, hint, path in given:
        try:
            made.append(convert(value, hint, path))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return made


def _key(key: Any, hint: Any) -> Any:
    """JSON writes the keys of a mapping as text."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if hint in (int, float) and isinstance(key, str):
        try:
            return hint(key)
        except ValueError:
            return key
    return key


def _required(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _default(f: Field[Any]) -> Any:
    if f.default is not MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not MISSING else None
