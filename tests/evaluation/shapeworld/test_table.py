"""Rows of one name become one line, scenes of one object beside scenes of two."""

from __future__ import annotations

from typing import Any

import pytest

from lsregen.evaluation.shapeworld.table import table_of
from lsregen.evaluation.tables.paper import markdown
from lsregen.framework.errors import ConfigError


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def row(name: str, objects: int, **values: float) -> dict[str, Any]:
    about: dict[str, Any] = {"guidance": name, "model": "a model", "size": [64, 64], "cfg": 4.0, "count": 300, "seed": 0}
    return {**about, "objects": objects, "classifier": "c" * 64, "metrics": {key: interval(v) for key, v in values.items()}}


ONE = {"rows": [row("none", 1, map50=0.1, frechet=3.0), row("pulled", 1, map50=0.9, frechet=4.0)]}
TWO = {
    "rows": [
        row("none", 2, map50=0.2, frechet=5.0, seconds_per_image=1.25, peak_bytes=2e8),
        row("pulled", 2, map50=0.8, frechet=6.0, seconds_per_image=2.5, peak_bytes=3e8),
        row("other", 2, map50=0.5, frechet=4.0, seconds_per_image=2.5, peak_bytes=3e8),
    ]
}


def test_a_line_for_each_method_and_columns_for_each_number_of_objects() -> None:
    text = markdown(table_of([ONE, TWO]))
    head, _, *lines = text.splitlines()
    assert head == (
        "| Method | One object: mAP ↑ | Two objects: mAP ↑ | Two objects: Frechet ↓ | Two objects: s/image | Two objects: MB |"
    )
    assert lines[0] == (
        "| none | 10.0 [0.0 to 20.0] | 20.0 [10.0 to 30.0] | 5.00 [4.90 to 5.10] | 1.2 [1.1 to 1.4] | 200 [200 to 200] |"
    )
    assert lines[1].startswith("| pulled | **90.0** [80.0 to 100.0] | **80.0** [70.0 to 90.0] | 6.00 ")
    assert lines[2].startswith("| other |  | 50.0 [40.0 to 60.0] | **4.00** "), "a lower distance is better"
    assert "- Scenes of each row: 300 (seeds 0 to 299)." in text
    assert "- a model at 64x64: none; pulled; other." in text


@pytest.mark.parametrize("change", [{"count": 20}, {"seed": 7}, {"place": 0.2}, {"size": [96, 64]}])
def test_no_number_is_the_best_among_unlike_scenes(change: dict[str, Any]) -> None:
    first, second = row("none", 1, map50=0.1), row("pulled", 1, map50=0.9)
    alike = table_of([{"rows": [first, {**second, "size": [192, 192]}]}])
    assert [cell.best for (cell,) in alike.cells] == [False, True]
    assert not any("same scenes" in note for note in alike.notes)
    unlike = table_of([{"rows": [first, {**second, **change}]}])
    assert [cell.best for (cell,) in unlike.cells] == [False, False]
    assert unlike.notes[-1].startswith("Note: One object: these rows are not of the same scenes")


def test_one_number_of_objects_shows_everything() -> None:
    assert [column.metric for column in table_of([ONE]).columns] == ["map50_1", "frechet_1"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (TWO["rows"][0], "row 'none' stands twice for 2 objects"),
        (
            {**ONE["rows"][0], "size": [192, 192]},
            "row 'none' is of a model at 64x64, cfg 4 in one result and of a model at 192x192",
        ),
        ({**ONE["rows"][0], "classifier": "d" * 64}, "judged by unlike classifiers"),
    ],
)
def test_what_cannot_be_compared_is_refused(second: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table_of([TWO, {"rows": [second]}])
