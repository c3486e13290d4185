"""What a value must be besides its type, written into the type itself: `Annotated[float, Range(0, 1)]`.

`options.convert` checks it wherever such a type stands; `field_types.type_text` says it, in messages and in lists of options.
"""

from __future__ import annotations

from collections.abc import Collection, Sized
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

from ..errors import ConfigError, nearest, shown

MOST = 10**300  # of a bound: a float holds it


@runtime_checkable
class Constraint(Protocol):
    """What stands beside a type in `Annotated`, and is checked of a value that has that type."""

    def fits(self, value: Any) -> bool: ...

    def fault(self, value: Any, expected: str) -> str:
        """What is wrong with a value that does not fit, to follow the name of its setting. `expected`: the type, in words."""
        ...

    def described(self, base: str) -> str:
        """The words for a type, such as `a number`, with the constraint."""
        ...


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; `above` and `below` are bounds that are not included. None is no bound.

    Raises:
        ConfigError: a bound is no finite number.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        for name, bound in vars(self).items():
            if bound is not None and (type(bound) not in (int, float) or not abs(bound) < MOST):
                raise ConfigError(f"Range: {name}: {shown(bound)} is not a number below 1e300 or nothing")

    def fits(self, value: Any) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def fault(self, value: Any, expected: str) -> str:
        return f"{shown(value)} is out of range; expected {expected}"

    def described(self, base: str) -> str:
        if self.low is not None and self.high is not None:
            return f"{base} from {_number(self.low)} to {_number(self.high)}"
        bounds = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        said = " and ".join(f"{word} {_number(bound)}" for word, bound in bounds.items() if bound is not None)
        return f"{base} {'of ' if said.startswith('at') else ''}{said}"


@dataclass(frozen=True, eq=False)  # a table has no hash, which `Annotated` asks for
class OneOf:
    """One of some names that are known only at run time, such as the keys of a table; names that are fixed are a `Literal`."""

    names: Collection[str]

    def fits(self, value: Any) -> bool:
        return value in self.names

    def fault(self, value: Any, expected: str) -> str:
        return f"{shown(value)} is not {expected}{nearest(str(value), self.names)}"

    def described(self, base: str) -> str:
        return f"one of {', '.join(self.names)}"


@dataclass(frozen=True)
class Filled:
    """A list with at least one item, or a text with more than blanks."""

    def fits(self, value: Any) -> bool:
        return bool(value.strip()) if isinstance(value, str) else not isinstance(value, Sized) or len(value) > 0

    def fault(self, value: Any, expected: str) -> str:
        return f"{shown(value)} is empty; expected {expected}"

    def described(self, base: str) -> str:
        return f"{base} that is not empty"


def _number(bound: float) -> str:
    if isinstance(bound, int) and bound > 2**32 and bound & (bound + 1) == 0:
        return f"2^{bound.bit_length()} - 1"
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


Share: TypeAlias = Annotated[float, Range(0, 1)]
NotNegative: TypeAlias = Annotated[float, Range(0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
Text: TypeAlias = Annotated[str, Filled()]
