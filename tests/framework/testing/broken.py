"""How plugins are broken for the tests of the conformance kit, and what is asked of the kit then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from lsregen.framework.testing import Conformance, ConformanceError


def variant(base: type, changes: Mapping[str, Any], **options: Any) -> Any:
    """An instance of `base` with other members. `call` stands for `__call__`."""
    members = {"__call__" if name == "call" else name: change for name, change in changes.items()}
    return dataclass(frozen=True)(type("Broken", (base,), {"__doc__": "Broken.", **members}))(**options)


@dataclass(frozen=True)
class Unexplained:
    """An option without help."""

    power: int = 2


def refuse(holds: bool) -> None:
    if not holds:
        raise ValueError("not prepared for this")


def assert_lacks_only(check: Callable[..., Conformance], plugin: Callable[[], Any], name: str) -> None:
    """The check names this property and no other; the property alone is enough to find it out."""
    with pytest.raises(ConformanceError) as caught:
        check(plugin())
    assert list(caught.value.failed) == [name], str(caught.value)
    line = caught.value.failed[name]
    assert line.startswith("expected ")
    assert "; saw " in line
    assert "; mend: " in line
    assert "\n" not in line
    with pytest.raises(ConformanceError, match=f"  {name}: expected "):
        check(plugin(), only=[name])
