"""Comparisons on shapeworld in the layout of the LSReGen paper: a line for each method, scenes of one object beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...framework.errors import ConfigError
from ..tables.markdown import all_agreed
from ..tables.paper import Column, Table, cells_of
from .scenes import Scenes

GROUPS = {1: "One object", 2: "Two objects", 3: "Three objects"}
EVERY = (
    Column("", "mAP", "map50", factor=100),
    Column("", "all right", "all_right", factor=100),
)
"""Shown for every number of objects."""
MOST = (
    *EVERY,
    Column("", "there", "present", factor=100),
    Column("", "colour, if shape", "colour_given_shape", factor=100),
    Column("", "mask IoU", "mask_iou", factor=100),
    Column("", "Frechet", "frechet", higher=False, digits=2),
    Column("", "s/image", "seconds_per_image", higher=None),
    Column("", "MB", "peak_bytes", higher=None, factor=1e-6, digits=0),
)
"""Shown for the largest number of objects."""


def table_of(results: Sequence[Mapping[str, Any]]) -> Table:
    """The table of results of `lsregen evaluate shapeworld`; rows of one name are one line.

    Raises:
        ConfigError: there are no rows, or of something else; rows of one name are not of one method, or stand twice for one
            number of objects; rows were judged by unlike classifiers.
    """
    rows = [row for result in results for row in result["rows"]]
    if not rows or not all({"objects", "size", "model"} <= set(row) for row in rows):
        raise ConfigError(
            "the paper's layout is of results that have rows of scenes, or of scored runs; for others use --layout full"
        )
    if len({row.get("classifier") for row in rows}) > 1:
        raise ConfigError("these results were judged by unlike classifiers, and cannot be compared: make a table of each")
    counts = sorted({row["objects"] for row in rows})
    methods: dict[str, dict[str, Any]] = {}
    made: dict[str, tuple[object, ...]] = {}
    scenes: dict[int, set[tuple[object, ...]]] = {}
    for row in rows:
        name, what = row["guidance"], (row["model"], *row["size"], row["cfg"])
        line = methods.setdefault(name, {"metrics": {}, "count": 0, "objects": set[int]()})
        if made.setdefault(name, what) != what:
            raise ConfigError(f"row {name!r} is of {_said(made[name])} in one result and of {_said(what)} in another")
        if row["objects"] in line["objects"]:
            raise ConfigError(f"row {name!r} stands twice for {row['objects']} objects; leave one of the results out")
        line["objects"].add(row["objects"])
        line["count"] = max(line["count"], row["count"])
        these = Scenes(row["objects"], (row["size"][0], row["size"][1]), row["count"], row["seed"], row.get("place"))
        of = these.kind, these.seeds
        scenes.setdefault(row["objects"], set()).add(of)
        line["metrics"] |= {f"{metric}_{row['objects']}": {**found, "of": of} for metric, found in row["metrics"].items()}
    columns = tuple(
        Column(GROUPS[count], column.head, f"{column.metric}_{count}", column.higher, column.factor, column.digits)
        for count in counts
        for column in (MOST if count == counts[-1] else EVERY)
        if any(f"{column.metric}_{count}" in line["metrics"] for line in methods.values())
    )
    unlike = [
        f"Note: {GROUPS[count]}: these rows are not of the same scenes, so no number is marked as the best."
        for count in counts
        if len(scenes[count]) > 1
    ]
    named = tuple((name, line["count"]) for name, line in methods.items())
    return Table(columns, named, cells_of(columns, list(methods.values())), (*_notes(rows), *unlike))


def _said(what: tuple[object, ...]) -> str:
    model, width, height, cfg = what
    return f"{model} at {width}x{height}, cfg {cfg:g}"


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the numbers came about."""
    scenes = sorted({(row["count"], row["seed"]) for row in rows})
    numbers = " or ".join(f"{count} (seeds {seed} to {seed + count - 1})" for count, seed in scenes)
    made: dict[str, list[str]] = {}
    for row in rows:
        what = f"{row['model']} at {row['size'][0]}x{row['size'][1]}"
        names = made.setdefault(what, [])
        if row["guidance"] not in names:
            names.append(row["guidance"])
    agreed = all_agreed(rows, {column.metric for column in MOST})
    return [
        f"Scenes of each row: {numbers}. In brackets: 95 % intervals, bootstrapped over scenes.{agreed}",
        "Times and memory say what the machine did besides: seconds of processor time on a CPU, MB beyond the weights.",
        *(f"{what}: {'; '.join(names)}." for what, names in made.items()),
    ]
