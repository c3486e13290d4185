"""The installed distributions that offer plugins, by what their metadata say; nothing of them is imported."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, distributions

GROUP = "lsregen"
OWN = "lsregen"


def entry_points() -> list[tuple[str, str, EntryPoint]]:
    """Package, version and entry point of the group's; lsregen's own first, then by name. A package found twice counts once."""
    found: dict[str, list[tuple[str, str, EntryPoint]]] = {}
    for distribution in distributions():
        points = [point for point in distribution.entry_points if point.group == GROUP]
        if points:  # a package that was half removed has no name
            package, version = (distribution.metadata[key] or "unknown" for key in ("Name", "Version"))
            found.setdefault(normalised(package), [(package, version, point) for point in points])
    order = sorted(found, key=lambda name: (name != OWN, name))
    return [each for name in order for each in sorted(found[name], key=lambda each: each[2].name)]


def distribution_of(cls: type) -> str:
    """Name and version of the distribution whose plugin a class is; empty for lsregen's own, and for one that no plugin is of."""
    top = cls.__module__.partition(".")[0]
    for package, version, point in entry_points():
        if point.value.partition(":")[0].partition(".")[0] == top and normalised(package) != OWN:
            return f"{package} {version}"
    return ""


def normalised(package: str) -> str:
    """A package's name as the package index compares names."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()
