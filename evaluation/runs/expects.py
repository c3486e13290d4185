"""What a prompt says of its image, as a detector can check it: relations, counts, attributes, and the classes of its phrases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...framework.config.options import plain
from ...framework.errors import ConfigError, nearest

RELATIONS = ("left of", "right of", "above", "below", "next to")
"""As VISOR and GenEval call them; `next to` is NSR-1K's."""


@dataclass(frozen=True)
class Relation:
    """`subject` stands in `relation` to `object`; both are categories, and the relation one of `RELATIONS`.

    Raises:
        ConfigError: another relation.
    """

    subject: str
    relation: str
    object: str

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            near = nearest(self.relation, RELATIONS)
            raise ConfigError(f"relation: {self.relation!r} is not one of {', '.join(RELATIONS)}{near}")


@dataclass(frozen=True)
class Attribute:
    """A phrase of the prompt, `red car`, as its noun and what is said of it: `car` and `red`."""

    phrase: str
    noun: str
    attribute: str


@dataclass(frozen=True)
class Expects:
    """What is to be seen in an image, as far as its source says it.

    `counts`: exactly how many of a category there shall be. `classes`: by the phrases of the layout, the category that each one
    is of, as a detector may call it; a phrase that is not there is its own category.

    Raises:
        ConfigError: a count below 0.
    """

    relations: tuple[Relation, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    attributes: tuple[Attribute, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for category, count in self.counts.items():
            if count < 0:
                raise ConfigError(f"counts: {count} of {category!r}; expected 0 or more")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; what is empty is left out."""
        return {f.name: plain(value) for f in fields(self) if (value := getattr(self, f.name))}
