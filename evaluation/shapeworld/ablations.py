"""What one setting does: rows that differ in it alone, as lines of a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from ...framework.config.yaml_text import load_yaml
from ...framework.errors import ConfigError, nearest
from ..metrics import bootstrap as metrics
from ..tables.plots import Chart, Point, Series, draw_charts
from .benchmark import Row, image_path
from .render import render
from .rows import RowSpec, build_row
from .scene import Scene
from .sheet import TRUE, draw_sheet

FILE = "ablations.yaml"
AREAS = (0.0, 0.06, 0.08, 0.12, 1.0)
"""Borders of the groups of boxes by area, as shares of the canvas."""
OVERLAP = 0.5
"""The least intersection over union of an object that is in place."""


@dataclass(frozen=True)
class Ablation:
    """One setting, several values of it, and the lines that are drawn through them.

    Args:
        says: what is varied, for people.
        axis: what the values are of.
        metrics: what is drawn.
        lines: the row of each line, before the setting is set.
        values: what each value sets; numbers where all of them can be read as such.
        without: the row that stands at the value 0 of every line, if there is one.
        by_area: show the objects of every row by the area of their boxes instead; there is one value then.
        moves: the values are the places of the first object instead of settings; see `Scenes.place`.
    """

    says: str
    axis: str
    metrics: tuple[str, ...]
    lines: Mapping[str, RowSpec]
    values: Mapping[str, tuple[str, ...]]
    without: RowSpec | None = None
    by_area: bool = False
    moves: bool = False

    def rows(self) -> dict[str, RowSpec]:
        """Every row, by its name: `LINE, VALUE`."""
        found = {} if self.without is None else {"0": self.without}
        for line, spec in self.lines.items():
            for value, sets in self.values.items():
                place = float(value) if self.moves else None
                found[f"{line}, {value}"] = replace(spec, sets=(*spec.sets, *sets), place=place)
        return found

    def points(self, rows: Mapping[str, Row]) -> list[dict[str, Any]]:
        """What is drawn, as JSON: `line`, `value` and `metrics` with their intervals.

        `rows`: finished ones, by their names.
        """
        if self.by_area:
            (value,) = self.values
            return [point for line in self.lines for point in by_area(rows[f"{line}, {value}"], line)]
        described = {name: row.to_json()["metrics"] for name, row in rows.items()}
        points: list[dict[str, Any]] = []
        for line in self.lines:
            if self.without is not None:
                points.append({"line": line, "value": "0", "metrics": described["0"]})
            points += [{"line": line, "value": value, "metrics": described[f"{line}, {value}"]} for value in self.values]
        return points


def ablations() -> dict[str, Ablation]:
    """Those that ship, by their names."""
    path = Path(str(files(__name__.rpartition(".")[0]))) / FILE
    return {str(name): _read(f"{path}: {name}", given) for name, given in load_yaml(path).items()}


def ablation(name: str) -> Ablation:
    """One of them.

    Raises:
        ConfigError: there is none of that name.
    """
    known = ablations()
    if name not in known:
        raise ConfigError(f"ablation {name!r}: expected one of {', '.join(known)}{nearest(name, known)}")
    return known[name]


def _read(where: str, given: Any) -> Ablation:
    values = dict(cast("Mapping[str, Any]", given))
    without = values.get("without")
    return Ablation(
        values["says"],
        values["axis"],
        tuple(values["metrics"]),
        {str(name): build_row(row, f"{where}.lines.{name}") for name, row in values["lines"].items()},
        {str(value): tuple(sets) for value, sets in values["values"].items()},
        None if without is None else build_row(without, f"{where}.without"),
        by_area=bool(values.get("by_area", False)),
        moves=bool(values.get("moves", False)),
    )


def draw(chosen: Ablation, points: Sequence[Mapping[str, Any]], kind: str) -> bytes:
    """Its charts, one for each metric, as a file of a kind: png, svg or pdf. `points`: see `Ablation.points`.

    Metrics that no point has are left out, such as a Frechet distance of few images.
    """
    values = list(dict.fromkeys(str(point["value"]) for point in points))
    named = not all(_is_number(value) for value in values)
    shown = [metric for metric in chosen.metrics if any(metric in point["metrics"] for point in points)]
    charts: list[Chart] = []
    for metric in shown:
        lines: dict[str, list[Point]] = {}
        for point in points:
            if (found := point["metrics"].get(metric)) is not None:
                at = float(values.index(point["value"])) if named else float(point["value"])
                lines.setdefault(point["line"], []).append(Point.of(at, found))
        charts.append(Chart(metric, [Series(name, tuple(sorted(all_, key=lambda one: one.at))) for name, all_ in lines.items()]))
    return draw_charts(charts, chosen.axis, kind, says=chosen.says, places=values if named else ())


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def by_area(row: Row, line: str) -> list[dict[str, Any]]:
    """The objects of a row in groups by the area of their boxes, each group a point at its mean area.

    `in_place`: the share that is right and overlaps the box by at least `OVERLAP`; `iou`: the mean overlap, 0 where it is not
    right; `centre_in_box`: see `score.ObjectResult`. Intervals are bootstrapped over the objects of a group. Empty groups are
    left out.
    """
    objects = [entry for item in row.items for entry in item["objects"]]
    areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in (entry["box"] for entry in objects)])
    points: list[dict[str, Any]] = []
    for low, high in pairwise(AREAS):
        chosen: Sequence[int] = np.flatnonzero((areas >= low) & (areas < high)).tolist()
        if chosen:
            group = [objects[i] for i in chosen]
            shares = {
                "in_place": [float(entry["iou"] >= OVERLAP) for entry in group],
                "centre_in_box": [float(entry["centre_in_box"]) for entry in group],
                "iou": [float(entry["iou"]) for entry in group],
            }
            found = {name: metrics.bootstrap(values).to_json() for name, values in shares.items()}
            points.append({"line": line, "value": round(float(areas[chosen].mean()), 4), "count": len(group), "metrics": found})
    return points


def moving_sheet(chosen: Ablation, rows: Mapping[str, Row], folder: Path, most: int = 2) -> Image.Image:
    """The first scenes with the first object in each of its places: a row for each place, a column for each line.

    Args:
        rows: by their names, made with `images=True` in the `folder`.
        most: how many scenes.
    """
    first = rows[next(iter(chosen.rows()))]
    drawn: list[tuple[Scene, Mapping[str, Image.Image]]] = []
    for seed in first.scenes.seeds[:most]:
        for value in chosen.values:
            found = {line: rows[f"{line}, {value}"] for line in chosen.lines}
            scene = next(iter(found.values())).scenes.scene(seed)
            pictures = {TRUE: Image.fromarray(render(scene))}
            for line, row in found.items():
                with Image.open(image_path(folder / "images" / row.name, seed)) as picture:
                    pictures[line] = picture.convert("RGB")
            drawn.append((scene, pictures))
    return draw_sheet(drawn)
