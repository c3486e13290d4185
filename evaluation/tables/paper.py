"""The table of a comparison in the layout of the LSReGen paper (its Table 1): a line for each method, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...framework.errors import ConfigError
from .markdown import all_agreed

MEASURED_BY = ("detector", "features", "clip")
SPLITS = {"_single": "Single object", "_multi": "Multi objects"}
SHORT = 12  # digits of a hash, in a note
TOLD = (".safetensors", ".pt", "tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", ".model")
"""How the files end whose hashes a note has: weights, and what makes tokens of words."""


@dataclass(frozen=True)
class Column:
    """A metric as the table shows it: `value * factor` with so many `digits`. `group`: what stands over several heads.

    `higher`: whether more is better; None where neither is, and nothing is marked as best.
    """

    group: str
    head: str
    metric: str
    higher: bool | None = True
    factor: float = 1.0
    digits: int = 1

    @property
    def title(self) -> str:
        return self.head if self.higher is None else f"{self.head} {'↑' if self.higher else '↓'}"


COLUMNS = (
    Column("", "Frechet", "frechet", higher=False, digits=2),
    *(
        column
        for suffix, group in {"": "", **SPLITS}.items()
        for column in (
            Column(group, "mAP", f"map50{suffix}", factor=100),
            Column(group, "mAP, prompted", f"map50_prompted{suffix}", factor=100),
            Column(group, "T2I-Sim", f"clip{suffix}"),
        )
    ),
    Column("Relations", "right", "relation_uncond", factor=100),
    Column("Relations", "right if both there", "relation_cond", factor=100),
    Column("Relations", "both there", "relation_oa", factor=100),
    *(Column("Relations", f"VISOR {n}", f"visor_{n}", factor=100) for n in (1, 2, 3, 4)),
    Column("Counting", "exact", "count_exact", factor=100),
    Column("Counting", "F1", "count_f1", factor=100),
    Column("Attributes", "right", "attribute_rate", factor=100),
)
"""In their order; those that no row has are left out, and those over all pictures where the splits hold them all. The first
ones are the paper's."""


@dataclass(frozen=True)
class Cell:
    """A number of the table, as text, with its 95 % interval, empty where none is known. Without a measurement both are empty."""

    value: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Methods and their cells, by column, and what there is to say about them."""

    columns: tuple[Column, ...]
    methods: tuple[tuple[str, int], ...]
    """Their names, and their numbers of pictures."""
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """What stands over the heads, and over how many of them."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = column.group, found[-1][1] + 1
            else:
                found.append((column.group, 1))
        return found


def check_comparable(results: Sequence[Mapping[str, Any]]) -> None:
    """See that results of `lsregen evaluate` may stand beside each other: those of runs were measured in one way.

    Raises:
        ConfigError: they are of runs and of something else, or of runs that were measured differently or are of other sources.
    """
    found = [result["protocol"] for result in results if "protocol" in result]
    if found and len(found) < len(results):
        raise ConfigError("results of runs and of shapeworld's scenes cannot stand in one table or plot: make one of each")
    for protocol in found[1:]:
        if _sources(protocol) != _sources(found[0]):
            raise ConfigError("these results are of plans of other sources, and cannot be compared: make a table or plot of each")
        for kind in MEASURED_BY:
            if _weights(protocol.get(kind)) != _weights(found[0].get(kind)):
                raise ConfigError(f"these results have another {kind}, and cannot be compared: make a table or plot of each")


def table_of(results: Sequence[Mapping[str, Any]]) -> Table:
    """The table of results of `lsregen evaluate score` that passed `check_comparable`.

    Raises:
        ConfigError: two have a method of one name.
    """
    rows = [row for result in results for row in result["rows"]]
    names = [row["guidance"] for row in rows]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"method {twice[0]!r} stands in two results; score their runs together")
    columns = tuple(column for column in COLUMNS if any(_is_told(column, row) for row in rows))
    said = [*_numbers(rows), *(note for result in results for note in notes_of(result))]
    pictures = [row.get("pictures_digest", row["count"]) for row in rows]  # older results have no digest
    if len(set(pictures)) > 1:
        said.append(
            "Note: these methods are not known to be of the same pictures, so no number is marked as the best. Paired "
            "differences of methods that were scored together are over the pictures that both have."
        )
    named = tuple((row["guidance"], row["count"]) for row in rows)
    told = [
        {"metrics": {name: {**each, "of": of} for name, each in row["metrics"].items()}}
        for row, of in zip(rows, pictures, strict=True)
    ]
    return Table(columns, named, cells_of(columns, told), tuple(dict.fromkeys(said)))


def _is_told(column: Column, row: Mapping[str, Any]) -> bool:
    """Whether a row has a metric, and does not tell all of it by its splits."""
    splits = any(column.metric + suffix in row["metrics"] for suffix in SPLITS)
    return column.metric in row["metrics"] and not (splits and _unboxed(row) == 0)


def _unboxed(row: Mapping[str, Any]) -> int:
    """How many pictures of a row were asked for without a box: they are in neither split."""
    return row["count"] - row["single"] - row["multi"]


def cells_of(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[Cell, ...], ...]:
    """The cells of every row, which has `metrics` of value, low and high; the best of each column is marked.

    Metrics may say which pictures they are `of`. Where that is not the same in a column, none is the best.
    """
    best = {column.metric: _best(column, rows) for column in columns}
    return tuple(tuple(_cell(column, row, best[column.metric]) for column in columns) for row in rows)


def _sources(protocol: Mapping[str, Any]) -> set[str]:
    """Where the items of a result came from; methods may have plans of their own."""
    return {json.dumps(plan["source"], sort_keys=True) for plan in protocol["plans"]}


def _weights(measured: Mapping[str, Any] | None) -> object:
    """What decides whether numbers can be compared."""
    if measured is None:
        return None
    reference = measured.get("reference", {})
    return (
        measured["sha256"],
        measured.get("settings"),
        measured.get("threshold"),
        measured.get("renamed"),
        (reference.get("images"), reference.get("digest")),
        measured.get("resize"),
    )


def _best(column: Column, rows: Sequence[Mapping[str, Any]]) -> float | None:
    found = [row["metrics"][column.metric] for row in rows if column.metric in row["metrics"]]
    values = [each["value"] for each in found]
    if len(set(values)) < 2 or column.higher is None or len({each.get("of") for each in found}) > 1:
        return None
    return max(values) if column.higher else min(values)


def _cell(column: Column, row: Mapping[str, Any], best: float | None) -> Cell:
    found = row["metrics"].get(column.metric)
    if found is None:
        return Cell()
    value, low, high = (
        "" if found[key] is None else f"{found[key] * column.factor:.{column.digits}f}" for key in ("value", "low", "high")
    )
    return Cell(value, f"{low} to {high}" if low else "", found["value"] == best)


def notes_of(result: Mapping[str, Any]) -> list[str]:
    """How a result was measured, in sentences: a table without them cannot be compared with any other."""
    found, rows = result["protocol"], result["rows"]
    said = [f"After each number its 95 % interval, bootstrapped over items ({found['resamples']} resamples).{all_agreed(rows)}"]
    if any(name.startswith("map50") for row in rows for name in row["metrics"]):
        said[-1] += " mAP is at an overlap of 0.5; prompted: objects of classes that have no box in that picture are passed over."
    if (detector := found.get("detector")) is not None:
        said.append(
            f"Detector: {detector['name']} ({_hashes(detector['sha256'])}), settings {_settings(detector['settings'])}; objects "
            f"count as there from a score of {detector['threshold']:g} on."
        )
    if (features := found.get("features")) is not None and any("frechet" in row["metrics"] for row in rows):
        said.append(
            f"Frechet distance: {features['dimensions']} features of {features['name']} ({_hashes(features['sha256'])}); resize: "
            f"{features['resize']}; {features['reference']['images']} reference pictures; {features['resamples']} resamples. It "
            "falls with the number of pictures: compare equal numbers only."
        )
    if (clip := found.get("clip")) is not None:
        said.append(f"T2I-Sim: CLIP score x 100 by {clip['name']} ({_hashes(clip['sha256'])}); resize: {clip['resize']}.")
    said.append("Versions: " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + ".")
    return [*said, *(f"Note: {note}." for note in found["notes"])]


def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many pictures each method has, in sentences."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(_number(row), []).append(row["guidance"])
    return [f"Pictures of {'each method' if len(found) == 1 else ', '.join(names)}: {number}." for number, names in found.items()]


def _number(row: Mapping[str, Any]) -> str:
    """How many pictures a row is of, in words."""
    boxed = [f"{row['single']} with one box and {row['multi']} with several"] if row["single"] or row["multi"] else []
    without = [f"{_unboxed(row)} without a box"] if _unboxed(row) else []
    return ", ".join([*boxed, *without, f"{row['seeds']:g} of each item"])


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"


def _hashes(sha256: Mapping[str, str]) -> str:
    weights = {name: value for name, value in sha256.items() if name.endswith(TOLD)} or sha256
    return ", ".join(f"{name} {value[:SHORT]}" for name, value in weights.items())


def markdown(table: Table) -> str:
    """The table in Markdown; the best number of a column is bold, and a group stands before its heads."""
    heads = ["Method", *(f"{column.group}: {column.title}".removeprefix(": ") for column in table.columns)]
    lines = [heads, ["---", *(["---:"] * len(table.columns))]]
    for (name, _), cells in zip(table.methods, table.cells, strict=True):
        lines.append([name.replace("|", "\\|"), *map(_text, cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n" + "\n".join(f"- {note}" for note in table.notes) + "\n"


def _text(cell: Cell) -> str:
    if not cell.value:
        return ""
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} [{cell.interval}]" if cell.interval else value
