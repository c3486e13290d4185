"""What a conformance check is made of: properties in an order, and one error that names every one that does not hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from ..config.options import build, convert, describe_options, to_values
from ..errors import ConfigError, LsregenError, nearest

S = TypeVar("S")


class Breach(Exception):
    """Raised by a check: what the property asks for, and what was seen instead."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(expected, seen)
        self.expected, self.seen = expected, seen


@dataclass(frozen=True)
class Property(Generic[S]):
    """One thing a plugin must do; its name and its meaning are those of the function that checks it.

    `mend`: what to do about a breach. `after`: the properties without which this one cannot be judged. `skip`: why it does not
    apply to a plugin, told from what the plugin declares; None if it does.
    """

    check: Callable[[S], None]
    mend: str
    after: tuple[str, ...] = ()
    skip: Callable[[S], str | None] | None = None

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def meaning(self) -> str:
        return (self.check.__doc__ or "").partition("\n")[0].rstrip(".")


@dataclass(frozen=True)
class Conformance:
    """What was checked: the names of the properties that hold, and why others do not apply to this plugin."""

    held: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])


class ConformanceError(AssertionError):
    """A plugin that lacks properties.

    `failed`: what was seen, by property, in one line each. `not_tried`: properties that build on those.
    """

    def __init__(self, plugin: str, kind: str, failed: Mapping[str, str], not_tried: Sequence[str]) -> None:
        self.failed, self.not_tried = dict(failed), tuple(not_tried)
        lines = [f"{kind} {plugin} lacks {len(failed)} {'property' if len(failed) == 1 else 'properties'}:"]
        lines += [f"  {name}: {line}" for name, line in failed.items()]
        if not_tried:
            lines.append(f"  not tried, since they build on these: {', '.join(not_tried)}")
        super().__init__("\n".join(lines))


def meanings(properties: Sequence[Property[Any]]) -> Mapping[str, str]:
    """The names of properties and what they mean, in the order they are checked."""
    return MappingProxyType({each.name: each.meaning for each in properties})


def run_checks(
    kind: str, plugin: object, subject: S, properties: Sequence[Property[S]], only: Collection[str] | None
) -> Conformance:
    """Check `properties` in their order; those that the chosen ones build on are checked too.

    Raises:
        ConformanceError: some do not hold.
        ConfigError: `only` names a property that does not exist.
    """
    chosen = _chosen(properties, only)
    failed, not_tried, held, skipped = dict[str, str](), list[str](), list[str](), dict[str, str]()
    for each in properties:
        if each.name not in chosen:
            continue
        if any(name in failed or name in not_tried for name in each.after):
            not_tried.append(each.name)
        elif each.skip and (reason := each.skip(subject)):
            skipped[each.name] = reason
        elif line := _fault(each, subject):
            failed[each.name] = line
        else:
            held.append(each.name)
    if failed:
        raise ConformanceError(type(plugin).__name__, kind, failed, not_tried)
    return Conformance(tuple(held), skipped)


def _chosen(properties: Sequence[Property[S]], only: Collection[str] | None) -> set[str]:
    known = {each.name: each for each in properties}
    if only is None:
        return set(known)
    given: object = list(cast("Collection[str]", only)) if isinstance(only, Set | Mapping) else only
    names: list[str] = convert(given, list[str], "only")
    if not names:
        raise ConfigError(f"only: {only!r}; expected a list of one property or more, such as ['{properties[0].name}']")
    chosen = set[str]()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise ConfigError(f"only: no property is called {name!r}{nearest(name, known)}; there are {', '.join(known)}")
        if name not in chosen:
            chosen.add(name)
            waiting += known[name].after
    return chosen


def _fault(each: Property[S], subject: S) -> str | None:
    """What is wrong, in one line, or None. Whatever a stranger's plugin raises counts as a fault."""
    try:
        with torch.enable_grad():
            each.check(subject)
    except Breach as breach:
        return f"expected {breach.expected}; saw {breach.seen}; mend: {each.mend}"
    except Exception as error:
        text = " ".join(str(error).split())
        return f"expected that {_inner(each.meaning)}; saw {type(error).__name__}: {text}; mend: {each.mend}"
    return None


def _inner(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def expect(holds: bool, expected: str, seen: object) -> None:
    """Raises a Breach unless the first is true."""
    if not holds:
        raise Breach(expected, str(seen))


def expect_close(seen: Tensor, wanted: Tensor, expected: str, *, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Raises a Breach if shapes differ, or values by more than `atol` and `rtol` of the largest wanted one."""
    expect(seen.shape == wanted.shape, expected, f"shapes {list(seen.shape)} and {list(wanted.shape)}")
    if wanted.numel() == 0:
        return
    seen, wanted = seen.detach().double(), wanted.detach().double()
    apart, size = float((seen - wanted).abs().max()), float(wanted.abs().max())
    expect(apart <= atol + rtol * size, expected, f"a difference of {apart:.3g} where values go up to {size:.3g}")


def expect_apart(seen: Tensor, other: Tensor, expected: str, found: str, *, rtol: float = 1e-5) -> None:
    """Raises a Breach unless two tensors differ by more than rounding: by `rtol` of the largest value of the second."""
    size = float(other.detach().abs().max())
    expect(float((seen - other).detach().abs().max()) > rtol * size, expected, found)


def expect_finite(value: Tensor, what: str, where: str) -> None:
    broken = int((~torch.isfinite(value.detach())).sum())
    expect(broken == 0, f"finite values {where}", f"{broken} of {value.numel()} values of {what} NaN or infinite")


def expect_refusal(call: Callable[[], object], what: str) -> None:
    """Raises a Breach unless the call raises an error meant for people."""
    try:
        call()
    except LsregenError:
        return
    except Exception as error:
        raise Breach(f"an LsregenError for {what}", f"{type(error).__name__}: {error}") from None
    raise Breach(f"an LsregenError for {what}", "no error")


def expect_untouched(tensors: Mapping[str, Tensor], call: Callable[[], object]) -> None:
    """Raises a Breach if the call changes one of the tensors."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    call()
    changed = [name for name, tensor in tensors.items() if not torch.equal(tensor.detach(), copies[name])]
    expect(not changed, "its inputs as they were after the call", f"{', '.join(changed)} changed in place")


def expect_repeatable(call: Callable[[], Sequence[Tensor]]) -> None:
    """Raises a Breach unless two calls agree to the bit, whatever the state of torch's global random stream."""
    with seeded(1):
        first = [value.detach().clone() for value in call()]
    with seeded(2):
        second = call()
    apart = [float((a - b.detach()).abs().max()) for a, b in zip(first, second, strict=True) if not torch.equal(a, b.detach())]
    expect(not apart, "the same values from two calls", f"a difference of {max(apart, default=0):.3g}")


def numbers(values: Tensor) -> list[Any]:
    """For messages."""
    return cast("Any", values.detach()).tolist()


def places(where: Tensor) -> list[Any]:
    """The indices at which a tensor is true."""
    return numbers(where.nonzero().squeeze(-1))


def gradients_at(total: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a scalar, its graph kept; zeros where it does not depend on a leaf."""
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = cast("Sequence[Tensor | None]", torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True))
    return [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True)]


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Torch's global random stream (the CPU's) from a seed, and as it was afterwards."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def expect_options(plugin: object) -> None:
    """Raises a Breach unless the options survive JSON, and each says what it is."""
    cls, values = type(plugin), to_values(plugin)
    rebuilt = build(cls, json.loads(json.dumps(values, allow_nan=False)), "")
    expect(rebuilt == plugin, f"{plugin} again from its options {values}", rebuilt)
    silent = [option.key for option in describe_options(cls) if not option.help.strip()]
    expect(not silent, "a line of help for every option", f"none for {', '.join(silent)}")


OPTIONS_MEND = "write fields as `name: type = option(default, 'help')` of plain types, and change none of them in __post_init__"
REPEAT_MEND = "use no random numbers, caches or counters in it; a sampler's noise is an argument"
UNTOUCHED_MEND = "replace in-place operations (`x += y`, `x[...] = y`, `x.clamp_()`) by ones that return a new tensor"
