"""What a chart holds: lines of rows that differ in one setting, and level lines of those without it."""

from __future__ import annotations

from typing import Any

import pytest

from lsregen.evaluation.tables.ablation_plots import series_of, setting_of, varying
from lsregen.framework.errors import ConfigError


def row(name: str, value: float, **config: Any) -> dict[str, Any]:
    return {
        "guidance": name,
        "model": "m",
        "size": [64, 64],
        "config": config,
        "metrics": {"clip": {"value": value, "low": value - 1, "high": value + 1}},
    }


ROWS = [
    row("b", 5.0, steps=10, guidance={"layout": {"gamma": 30.0}}),
    row("a", 3.0, steps=10, guidance={"layout": {"gamma": 3.0}}),
    row("none", 1.0, steps=10, guidance={}),
]


def test_rows_are_ordered_by_their_setting_and_others_are_level() -> None:
    assert varying(ROWS) == ["guidance.layout.gamma"]
    assert setting_of(ROWS, None) == "guidance.layout.gamma"
    line, level = series_of(ROWS, "clip", "guidance.layout.gamma")
    assert [(point.at, point.value, point.low, point.high) for point in line.points] == [(3, 3, 2, 4), (30, 5, 4, 6)]
    assert (level.name, level.level, level.points[0].value) == ("none", True, 1)


def test_methods_that_differ_in_nothing_are_refused() -> None:
    twin = row("c", 4.0, steps=10, guidance={"layout": {"gamma": 3.0}})
    said = r"methods 'a' and 'c' are the same in every setting, guidance.layout.gamma 3 among them: .* \(--methods\)"
    with pytest.raises(ConfigError, match=said):
        series_of([*ROWS, twin], "clip", "guidance.layout.gamma")
    with pytest.raises(ConfigError, match=r"method 'a' stands in two results, with guidance.layout.gamma 3 in both; give one"):
        series_of([*ROWS, ROWS[1]], "clip", "guidance.layout.gamma")
    others = [{**each, "objects": 3} for each in ROWS[:2]]
    assert [each.name for each in series_of([*ROWS, *others], "clip", "guidance.layout.gamma")] == [
        "objects None",
        "objects 3",
        "none",
    ]


def test_rows_that_differ_in_more_are_lines_of_their_own() -> None:
    others = [row(name, value, steps=20, guidance={"layout": {"gamma": value}}) for name, value in (("c", 3.0), ("d", 9.0))]
    more = [*ROWS, *others]
    names = [each.name for each in series_of(more, "clip", "guidance.layout.gamma")]
    assert names == ["steps 10", "steps 20", "none"]
    with pytest.raises(ConfigError, match=r"several settings vary over the rows: steps, guidance\.layout\.gamma; say which one"):
        setting_of(more, None)
    with pytest.raises(ConfigError, match="no setting that is a number varies"):
        setting_of(ROWS[:1], None)


def test_a_number_without_an_interval_is_a_point() -> None:
    (line, _) = series_of(
        [{**ROWS[0], "metrics": {"clip": {"value": 5.0, "low": None, "high": None}}}, *ROWS[1:]], "clip", "guidance.layout.gamma"
    )
    assert [(point.value, point.low, point.high) for point in line.points] == [(3, 2, 4), (5, 5, 5)]
