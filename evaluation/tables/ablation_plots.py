"""Ablations: a metric against a setting that varies over the rows of a result, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from ...framework.errors import ConfigError, nearest
from .plots import Chart, Point, Series, draw_charts


def flattened(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values of a configuration by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            found |= flattened(cast("Mapping[str, Any]", value), where)
        else:
            found[where] = value
    return found


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What may vary over rows: the values of the configuration, and the place of a scene's first object."""
    place = {"place": row["place"]} if "place" in row else {}
    return {**flattened(row.get("config", {})), **place}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of settings that are numbers in two rows or more, and not the same in all of them."""
    flat = list(map(settings_of, rows))
    paths = dict.fromkeys(path for each in flat for path in each)
    return [path for path in paths if len({each[path] for each in flat if is_number(each.get(path))}) > 1]


def setting_of(rows: Sequence[Mapping[str, Any]], asked: str | None) -> str:
    """The setting to plot against.

    Raises:
        ConfigError: none varies, or several do and none was asked for, or the one asked for does not.
    """
    found = varying(rows)
    if asked is not None and asked not in found:
        there = ", ".join(found) or "none does"
        raise ConfigError(f"setting {asked!r}: no number that varies over these rows{nearest(asked, found)}; such are: {there}")
    if asked is None and len(found) > 1:
        raise ConfigError(f"several settings vary over the rows: {', '.join(found)}; say which one (--against)")
    if asked is None and not found:
        raise ConfigError("no setting that is a number varies over the rows; score methods that differ in one")
    return asked or found[0]


def series_of(rows: Sequence[Mapping[str, Any]], metric: str, setting: str) -> list[Series]:
    """The lines of a chart; rows without the metric are left out.

    Raises:
        ConfigError: no row has the metric, or two that differ in nothing would stand in one place.
    """
    having = [row for row in rows if metric in row["metrics"]]
    if not having:
        known = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
        raise ConfigError(f"metric {metric!r}: not in these results{nearest(metric, known)}; they have {', '.join(known)}")
    groups: dict[tuple[tuple[str, str], ...], list[tuple[Point, str]]] = {}
    levels: list[Series] = []
    for row in having:
        flat = settings_of(row)
        found = row["metrics"][metric]
        at = flat.pop(setting, None)
        if not is_number(at):
            levels.append(Series(row["guidance"], (Point.of(0, found),), level=True))
            continue
        of = {name: row.get(name) for name in ("model", "size", "objects", "seed")}
        key = tuple((name, str(value)) for name, value in (*of.items(), *sorted(flat.items())))
        line = groups.setdefault(key, [])
        if twin := next((name for point, name in line if point.at == at), None):
            _refuse_twins(twin, row["guidance"], f"{setting} {at:g}")
        line.append((Point.of(float(at), found), row["guidance"]))
    common = set[tuple[str, str]].intersection(*map(set, groups)) if groups else set[tuple[str, str]]()
    lines: list[Series] = []
    for key, points in groups.items():
        own = [f"{name.rpartition('.')[2]} {value}" for name, value in key if (name, value) not in common]
        called = {name.rpartition(" ")[0].rstrip(",") for _, name in points}  # `NAME VALUE`, as what varies is called
        name = points[0][1] if len(points) == 1 else called.pop() if len(called) == 1 and all(called) else ", ".join(own)
        lines.append(Series(name, tuple(sorted((point for point, _ in points), key=lambda point: point.at))))
    return [*lines, *levels]


def _refuse_twins(first: str, second: str, at: str) -> NoReturn:
    if first == second:
        raise ConfigError(f"method {first!r} stands in two results, with {at} in both; give one of them")
    raise ConfigError(
        f"methods {first!r} and {second!r} are the same in every setting, {at} among them: they would stand in one place; leave "
        "one of them out (--methods)"
    )


def draw(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], against: str | None, kind: str) -> bytes:
    """The charts beside each other, as a file of a kind: png, svg or pdf. Raises as `setting_of` and `series_of`."""
    setting = setting_of(rows, against)
    return draw_charts([Chart(metric, series_of(rows, metric, setting)) for metric in metrics], setting, kind)
