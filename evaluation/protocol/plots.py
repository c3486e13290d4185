"""Ablations: a metric against a setting that varies over the rows of a result, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any, cast

from ...framework.errors import ConfigError, nearest

COLOURS = ("#2166ac", "#b35806", "#1b7837", "#8a3c8f", "#0a7e8c", "#a02c4c")
WIDE = 20  # times the smallest value of a setting
INK, SOFT, RULE = "#22242a", "#6a6d76", "#e2dfd9"
NAMES = {
    "map50": "mAP at 0.5", "map50_prompted": "mAP at 0.5, prompted classes", "clip": "CLIP score", "frechet": "Frechet distance",
    "relation_uncond": "relations right", "relation_cond": "relations right, both there", "relation_oa": "both objects there",
    "count_exact": "counts right", "count_f1": "F1 of counts", "attribute_rate": "attributes right",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A row at a value of the setting; the metric with its interval."""

    at: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """Rows that differ in the setting alone, by its rising values; `level`: one that does not have it."""

    name: str
    points: tuple[Point, ...]
    level: bool = False


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


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of settings that are numbers in two rows or more, and not the same in all of them."""
    flat = [flattened(row.get("config", {})) for row in rows]
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
        ConfigError: no row has the metric.
    """
    having = [row for row in rows if metric in row["metrics"]]
    if not having:
        known = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
        raise ConfigError(f"metric {metric!r}: not in these results{nearest(metric, known)}; they have {', '.join(known)}")
    groups: dict[tuple[tuple[str, str], ...], list[tuple[Point, str]]] = {}
    levels: list[Series] = []
    for row in having:
        flat = flattened(row.get("config", {}))
        found = row["metrics"][metric]
        at = flat.pop(setting, None)
        if not is_number(at):
            levels.append(Series(row["guidance"], (Point(0, found["value"], found["low"], found["high"]),), level=True))
            continue
        key = (("model", str(row.get("model"))), ("size", str(row.get("size"))), *((k, str(v)) for k, v in sorted(flat.items())))
        groups.setdefault(key, []).append((Point(float(at), found["value"], found["low"], found["high"]), row["guidance"]))
    common = set[tuple[str, str]].intersection(*map(set, groups)) if groups else set[tuple[str, str]]()
    lines: list[Series] = []
    for key, points in groups.items():
        own = [f"{name.rpartition('.')[2]} {value}" for name, value in key if (name, value) not in common]
        name = points[0][1] if len(points) == 1 else ", ".join(own)
        lines.append(Series(name, tuple(sorted((point for point, _ in points), key=lambda point: point.at))))
    return [*lines, *levels]


def draw(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], against: str | None, kind: str) -> bytes:
    """The charts beside each other, as a file of a kind: png, svg or pdf. Raises as `setting_of` and `series_of`."""
    setting = setting_of(rows, against)
    charts = [(metric, series_of(rows, metric, setting)) for metric in metrics]
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    style = {"font.size": 10, "svg.hashsalt": "lsregen", "axes.edgecolor": SOFT, "text.color": INK, "axes.labelcolor": INK}
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(4.4 * len(charts), 3.4), layout="constrained", facecolor="white")
        for axes, (metric, series) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
            _chart(axes, metric, setting, series)
        buffer = BytesIO()
        dateless = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
        figure.savefig(buffer, format=kind, dpi=160, metadata={**dateless})
    return buffer.getvalue()


def _chart(axes: Any, metric: str, setting: str, series: Sequence[Series]) -> None:
    """Lines with bars for their intervals; level lines with a band. Settings that lie wide apart stand on a logarithmic scale."""
    for number, each in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        if each.level:
            (point,) = each.points
            axes.axhline(point.value, color=colour, linestyle=(0, (5, 3)), linewidth=1.3, label=each.name)
            axes.axhspan(point.low, point.high, color=colour, alpha=0.1, linewidth=0)
            continue
        at, value = [point.at for point in each.points], [point.value for point in each.points]
        below = [max(0.0, point.value - point.low) for point in each.points]
        above = [max(0.0, point.high - point.value) for point in each.points]
        axes.errorbar(at, value, yerr=(below, above), color=colour, marker="o", markersize=5, linewidth=1.5, capsize=3,
                      elinewidth=1, label=each.name)  # fmt: skip
    values = sorted({point.at for each in series if not each.level for point in each.points})
    if values and values[0] > 0 and values[-1] / values[0] >= WIDE:
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axes.set_xticks([], minor=True)
    base, _, group = metric.rpartition("_")
    name = NAMES.get(metric) or (f"{NAMES.get(base, base)}, {group}" if group in ("single", "multi") else metric)
    axes.set_xlabel(setting)
    axes.set_title(name, loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    if any(each.name for each in series):
        axes.legend(frameon=False, fontsize=9)
