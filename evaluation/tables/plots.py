"""Charts of metrics against a setting, with their intervals. Needs matplotlib, of the extra `plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any

COLOURS = ("#2166ac", "#b35806", "#1b7837", "#8a3c8f", "#0a7e8c", "#a02c4c")
MARKS = "osD^vP"
INK, SOFT, RULE = "#22242a", "#6a6d76", "#e2dfd9"
PANEL = (4.4, 3.4)  # inches
BESIDE = 0.14  # between series that stand at one named place
NAMES = {
    "map50": "mAP at 0.5", "map50_prompted": "mAP at 0.5, prompted classes", "clip": "CLIP score", "frechet": "Frechet distance",
    "relation_uncond": "relations right", "relation_cond": "relations right, both there", "relation_oa": "both objects there",
    "count_exact": "counts right", "count_f1": "F1 of counts", "attribute_rate": "attributes right",
    "all_right": "all objects right", "centre_in_box": "centre in its box", "in_place": "right, and in its box", "iou": "overlap",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A row at a value of the setting; the metric with its interval."""

    at: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, at: float, interval: Mapping[str, Any]) -> Point:
        """A metric of a result at a value of the setting; one without an interval is its own."""
        value, low, high = (interval[key] for key in ("value", "low", "high"))
        return cls(at, value, value if low is None else low, value if high is None else high)


@dataclass(frozen=True)
class Series:
    """Rows that differ in the setting alone, by its rising values; `level`: one that does not have it."""

    name: str
    points: tuple[Point, ...]
    level: bool = False


@dataclass(frozen=True)
class Chart:
    """What is drawn for one metric."""

    metric: str
    series: Sequence[Series]


def draw_charts(charts: Sequence[Chart], axis: str, kind: str, *, says: str = "", places: Sequence[str] = ()) -> bytes:
    """Charts beside each other, as a file of a kind: png, svg or pdf.

    Args:
        axis: what the values of the setting are of.
        says: stands above them all.
        places: the names of the values 0, 1, ... of a setting that is no number; its points are not joined.
    """
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    style = {"font.size": 10, "svg.hashsalt": "lsregen", "axes.edgecolor": SOFT, "text.color": INK, "axes.labelcolor": INK}
    with matplotlib.rc_context(style):
        width, height = PANEL
        figure = figures.Figure(figsize=(width * len(charts), height + 0.3 * bool(says)), layout="constrained", facecolor="white")
        if says:
            figure.suptitle(says, x=0.01, ha="left", fontsize=12, color=INK)
        panels = figure.subplots(1, len(charts), squeeze=False)[0]
        for axes, chart in zip(panels, charts, strict=True):
            _draw(axes, chart, axis, places)
        _legend(figure, panels, charts)
        buffer = BytesIO()
        about = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": "lsregen"}}
        figure.savefig(buffer, format=kind, dpi=160, metadata=about[kind])
    return buffer.getvalue()


def _draw(axes: Any, chart: Chart, axis: str, places: Sequence[str]) -> None:
    """Lines with bars for their intervals; level lines with a band."""
    for number, each in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        if each.level:
            (point,) = each.points
            axes.axhline(point.value, color=colour, linestyle=(0, (5, 3)), linewidth=1.3, label=each.name)
            axes.axhspan(point.low, point.high, color=colour, alpha=0.1, linewidth=0)
            continue
        shift = BESIDE * (number - (len(chart.series) - 1) / 2) if places else 0.0
        at, value = [point.at + shift for point in each.points], [point.value for point in each.points]
        # Percentiles of a Frechet distance may lie beside its value.
        below = [max(0.0, point.value - point.low) for point in each.points]
        above = [max(0.0, point.high - point.value) for point in each.points]
        axes.errorbar(at, value, yerr=(below, above), color=colour, marker=MARKS[number % len(MARKS)], markersize=5,
                      linestyle="none" if places else "-", linewidth=1.5, capsize=3, elinewidth=1, label=each.name)  # fmt: skip
    axes.set_xlabel(axis)
    axes.set_title(name_of(chart.metric), loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    if places:
        axes.set_xticks(range(len(places)), places, fontsize=9)
        axes.set_xlim(-0.6, len(places) - 0.4)


def _legend(figure: Any, panels: Sequence[Any], charts: Sequence[Chart]) -> None:
    """One for all charts, under them, if they have the same series; else one in each, where it hides least."""
    names = [[each.name for each in chart.series] for chart in charts]
    if len(charts) > 1 and all(each == names[0] for each in names) and any(names[0]):
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(charts), frameon=False, fontsize=9)
        return
    for axes, of_chart in zip(panels, names, strict=True):
        if any(of_chart):
            axes.legend(frameon=False, fontsize=9)


def name_of(metric: str) -> str:
    """What a person calls a metric."""
    base, _, group = metric.rpartition("_")
    grouped = f"{NAMES.get(base, base)}, {group}" if group in ("single", "multi") else metric.replace("_", " ")
    return NAMES.get(metric) or grouped
