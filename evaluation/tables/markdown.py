"""Results as Markdown: rows with intervals, paired differences, diagnostics, layers of attention."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ...framework.errors import ConfigError, nearest
from ...framework.files import read_json

FORMAT = "lsregen-evaluation"
"""The `format` of a result file, by which lsregen knows its own."""
LARGEST = 1e300  # no measure; nan is not below it either
PARTS = ("rows", "differences", "diagnostics", "layers")
CHANGES = ("first", "second", "objects", "size", "second_size", "count", "seed")
IF_VARIED = ("objects", "size", "second_size", "seed")  # of the differences: mostly they are those of the rows above
SETTINGS = ("guidance", "model", "objects", "size", "cfg", "count", "seed")


def read_result(path: Path) -> dict[str, Any]:
    """A result file of `lsregen evaluate`.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    data: object = read_json(path, "a result of `lsregen evaluate`")
    result = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    diagnostics = result.get("diagnostics", {})
    models = list(cast("dict[str, object]", diagnostics).values()) if isinstance(diagnostics, dict) else None
    layers = result.get("layers", {})
    by_model = list(cast("dict[str, object]", layers).values()) if isinstance(layers, dict) else [None]
    if not all(map(_all_have_metrics, (result.get("rows"), result.get("differences", []), models, *by_model))):
        raise ConfigError(
            f"{path}: not a result of `lsregen evaluate`: expected 'rows' with 'metrics' of value, low and high, finite numbers"
        )
    return result


def _all_have_metrics(entries: object) -> bool:
    return isinstance(entries, list) and all(_has_metrics(entry) for entry in cast("list[object]", entries))


def _has_metrics(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    found = cast("dict[str, object]", entry).get("metrics")
    if not isinstance(found, dict):
        return False
    return all(_is_interval(interval) for interval in cast("dict[str, object]", found).values())


def _is_interval(interval: object) -> bool:
    if not isinstance(interval, dict):
        return False
    values = cast("dict[str, object]", interval)
    bounds = [values.get(key) for key in ("low", "high")]  # null where no interval is known
    return _is_number(values.get("value")) and "low" in values and (bounds == [None, None] or all(map(_is_number, bounds)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def markdown(
    results: Iterable[Mapping[str, Any]],
    metrics: Sequence[str] | None = None,
    parts: Collection[str] = PARTS,
    baseline: str | None = None,
) -> str:
    """The rows of all results in one table, then the differences, the diagnostics and the layers, if there are any.

    Differences say of which objects, size and seed they are where that is not the same in all of them, and the results know it.

    Args:
        metrics: which of them, in this order; all of them by default.
        parts: which tables, out of `PARTS`.
        baseline: only the differences from this row; all pairs by default.

    Raises:
        ConfigError: no result has one of the metrics, or no difference is of the baseline.
    """
    every = list(results)
    rows = [row for result in every for row in result["rows"]]
    changes = [entry for result in every for entry in result.get("differences", [])]
    if baseline is not None:
        changes = from_baseline(changes, baseline)
    models = [{"model": name, **entry} for result in every for name, entry in result.get("diagnostics", {}).items()]
    layers = [{"model": name, **entry} for result in every for name, found in result.get("layers", {}).items() for entry in found]
    known = list(dict.fromkeys(name for entry in (*rows, *changes, *models, *layers) for name in entry["metrics"]))
    if unknown := [name for name in metrics or () if name not in known]:
        raise ConfigError(
            f"metric {unknown[0]!r}: not in these results{nearest(unknown[0], known)}; they have {', '.join(known)}"
        )
    varied = [key for key in IF_VARIED if len({_setting(entry.get(key)) for entry in changes}) > 1]
    columns = [key for key in CHANGES if key in varied or key not in IF_VARIED]
    tables = {
        "rows": _table(rows, SETTINGS, metrics),
        "differences": "Paired differences, second - first:\n\n" + _table(changes, columns, metrics),
        "diagnostics": "Diagnostics, on true images:\n\n" + _table(models, ("model", "objects", "size", "count"), metrics),
        "layers": "Where attention is highest, on true images:\n\n"
        + _table(layers, ("model", "layer", "grid", "heads"), metrics),
    }
    there = {"rows": bool(rows), "differences": bool(changes), "diagnostics": bool(models), "layers": bool(layers)}
    shown = [tables[part] for part in PARTS if part in parts and there[part]]
    drawn = "items" if all("protocol" in result for result in every) else "images"  # an item may have several images
    agreed = all_agreed(rows, metrics) if "rows" in parts else ""
    said = f"In brackets: 95 % intervals, bootstrapped over {drawn}.{agreed}\n"
    return "\n\n".join([*shown, said])


def all_agreed(rows: Iterable[Mapping[str, Any]], metrics: Collection[str] | None = None) -> str:
    """What is added to a note on bootstrapped intervals, where a share of 0 or 1 has one of no width; else nothing."""
    intervals = (found for row in rows for name, found in row["metrics"].items() if metrics is None or name in metrics)
    if not any(found["low"] == found["high"] and found["low"] in (0, 1) for found in intervals):
        return ""
    return (
        " Where every picture agrees, an interval has no width: with n pictures, up to 3/n of all possible ones may still differ."
    )


def from_baseline(changes: Sequence[Mapping[str, Any]], baseline: str) -> list[Mapping[str, Any]]:
    """The paired differences of one row from each of the others, that row always first.

    Raises:
        ConfigError: no difference is of that row.
    """
    found = [_turned(entry) if entry.get("second") == baseline else entry for entry in changes if baseline in _pair(entry)]
    if not found:
        known = list(dict.fromkeys(name for entry in changes for name in _pair(entry) if name))
        has = f"they are of {', '.join(map(repr, known))}" if known else "they have none"
        raise ConfigError(f"--baseline {baseline!r}: no paired difference is of this row{nearest(baseline, known)}; {has}")
    return found


def _pair(entry: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return entry.get("first"), entry.get("second")


def _turned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A difference, seen from its second row."""
    metrics = {
        name: {"value": 0 - interval["value"], "low": _negative(interval["high"]), "high": _negative(interval["low"])}
        for name, interval in entry["metrics"].items()
    }
    turned = {**entry, "first": entry["second"], "second": entry.get("first"), "metrics": metrics}
    if entry.get("second_size") is not None:
        turned |= {"size": entry["second_size"], "second_size": entry["size"]}
    return turned


def _negative(bound: float | None) -> float | None:
    return None if bound is None else 0 - bound


def _table(rows: Sequence[Mapping[str, Any]], settings: Sequence[str], metrics: Sequence[str] | None) -> str:
    """One line per row; what a row does not have is left blank, and what no row has is left out."""
    settings = [key for key in settings if any(row.get(key) is not None for row in rows)]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    names = names if metrics is None else [name for name in metrics if name in names]
    lines = [
        [*(_setting(row.get(key)) for key in settings), *(_interval(row["metrics"].get(name)) for name in names)] for row in rows
    ]
    head = [*settings, *names]
    rule = ["---"] * len(settings) + ["---:"] * len(names)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _setting(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "x".join(map(str, cast("Sequence[object]", value)))
    return f"{value:g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _interval(interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return ""
    if interval["low"] is None:
        return _number(interval["value"])
    return f"{_number(interval['value'])} [{_number(interval['low'])}, {_number(interval['high'])}]"


def _number(value: float) -> str:
    """Three decimals below 100, whole numbers above; a byte count would not fit otherwise."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
