"""One bad value in an otherwise valid call, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RIGHT, TRACEBACK, ACCEPTED, WRITTEN, HANG, UNCLEAR = "right", "traceback", "accepted", "written", "hang", "unclear"
VERDICTS = (RIGHT, TRACEBACK, ACCEPTED, WRITTEN, HANG, UNCLEAR)
"""`unclear`: it was refused with another exit code, with several messages, or without a word of what was wrong."""


@dataclass(frozen=True)
class Case:
    """A call that must be refused, or may be.

    Attributes:
        place: what the value was given to, such as `generate --steps` or `Box(left)`.
        value: the value as it is shown to people.
        named: texts of which the refusal must have one: names of the place, and forms of the value.
        args: of a command, its whole line.
        call, values: of Python, the name of the callable and the changed argument.
        damage: a file that is damaged before, by its path, and how.
        lawful: its value is of the right type, so that it may be taken too.
    """

    place: str
    value: str
    named: tuple[str, ...]
    args: tuple[str, ...] = ()
    call: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    damage: tuple[str, str] | None = None
    lawful: bool = False

    @property
    def id(self) -> str:
        return f"{self.place} {self.value}"

    @property
    def printable(self) -> bool:
        """Whether a shell could say it: arguments of a process hold no NUL."""
        return bool(self.args) and not any("\0" in arg for arg in self.args)


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `said`: what was printed or raised."""

    case: str
    verdict: str
    said: str = ""
    seconds: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        said = " | ".join(line.strip() for line in self.said.splitlines() if line.strip())
        return f"{self.verdict:9} {self.case}  {said[-300:]}"
