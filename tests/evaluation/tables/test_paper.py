"""What the table of the paper's layout says of how its numbers were measured."""

from __future__ import annotations

from typing import Any

from lsregen.evaluation.tables.paper import markdown, table_of


def result(metrics: dict[str, float], count: int, single: int, multi: int, **measured: Any) -> dict[str, Any]:
    row = {"guidance": "none", "count": count, "single": single, "multi": multi, "seeds": 1.0}
    row["metrics"] = {name: {"value": value, "low": value, "high": value} for name, value in metrics.items()}
    return {"rows": [row], "protocol": {"resamples": 1000, "versions": {"torch": "2"}, "notes": [], **measured}}


def test_no_number_is_the_best_where_methods_are_not_of_the_same_pictures() -> None:
    def shown(*rows: tuple[str, float, str]) -> tuple[list[bool], tuple[str, ...]]:
        merged = result({}, 4, 4, 0)
        (row,) = merged["rows"]
        merged["rows"] = [
            {**row, "guidance": name, "pictures_digest": of, "metrics": {"clip": dict.fromkeys(("value", "low", "high"), value)}}
            for name, value, of in rows
        ]
        table = table_of([merged])
        return [cell.best for (cell,) in table.cells], table.notes

    best, notes = shown(("a", 20.0, "x"), ("b", 30.0, "x"))
    assert best == [False, True]
    assert not any("same pictures" in note for note in notes)
    best, notes = shown(("a", 20.0, "x"), ("b", 30.0, "y"))
    assert best == [False, False]
    assert "these methods are not known to be of the same pictures, so no number is marked as the best" in notes[-1]
    assert shown(("a", 20.0, "x"), ("b", 20.0, "x"))[0] == [False, False]


def test_the_numbers_of_pictures_are_told_by_method_where_they_differ() -> None:
    one, other = result({"clip": 20.0}, 4, 4, 0), result({"clip": 20.0}, 3, 1, 2)
    other["rows"][0]["guidance"] = "box"
    for results in ([one, other], [{**one, "rows": [*one["rows"], *other["rows"]]}]):
        table = table_of(results)
        assert table.notes[:2] == (
            "Pictures of none: 4 with one box and 0 with several, 1 of each item.",
            "Pictures of box: 1 with one box and 2 with several, 1 of each item.",
        )
        assert not any(cell.best for cells in table.cells for cell in cells)  # not of equally many, as older results tell


def test_the_frechet_distance_says_how_often_it_was_resampled() -> None:
    features: dict[str, Any] = {"name": "inception", "sha256": {}, "resize": "its own", "reference": {"images": 5000}}
    features |= {"dimensions": 2048, "resamples": 100}
    notes = table_of([result({"frechet": 9.0, "clip": 20.0}, 30, 0, 0, features=features)]).notes
    assert any(
        note.startswith("Frechet distance: 2048") and "; 5000 reference pictures; 100 resamples." in note for note in notes
    )
    assert "After each number its 95 % interval, bootstrapped over items (1000 resamples)." in notes


def test_beside_a_frechet_distance_the_clip_score_stays() -> None:
    table = table_of([result({"frechet": 9.0, "clip": 20.0}, 30, 0, 0, features=None)])
    assert [column.metric for column in table.columns] == ["frechet", "clip"]
    assert table.notes[0] == "Pictures of each method: 30 without a box, 1 of each item."


def test_what_the_splits_tell_is_not_told_twice() -> None:
    metrics = {"clip": 20.0, "clip_single": 19.0, "clip_multi": 21.0, "map50": 0.5, "map50_single": 0.4, "map50_multi": 0.6}
    table = table_of([result(metrics, 30, 10, 20)])
    assert [column.metric for column in table.columns] == ["map50_single", "clip_single", "map50_multi", "clip_multi"]
    both = table_of([result({name: metrics[name] for name in ("clip", "map50")}, 30, 10, 20)])
    assert [column.title for column in both.columns] == ["mAP ↑", "T2I-Sim ↑"]


def test_a_number_without_an_interval_stands_alone() -> None:
    merged = result({"clip": 20.0}, 4, 4, 0)
    merged["rows"][0]["metrics"] = {"clip": {"value": 20.0, "low": None, "high": None}}
    assert "| none | 20.0 |" in markdown(table_of([merged]))
