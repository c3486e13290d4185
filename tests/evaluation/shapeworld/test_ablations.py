"""What an ablation compares, and how its rows become points."""

from __future__ import annotations

from typing import Any

import pytest

from lsregen.evaluation.shapeworld import ablations as ablations_module
from lsregen.evaluation.shapeworld.ablations import AREAS, Ablation, ablation, ablations, by_area, draw
from lsregen.evaluation.shapeworld.benchmark import Contender, Row
from lsregen.evaluation.shapeworld.scenes import Scenes
from lsregen.framework.config.merging import apply_sets, merge
from lsregen.framework.config.resolve import load_guidance, validate
from lsregen.framework.errors import ConfigError
from lsregen.framework.plugins.registry import discover

SCENES = Scenes(objects=2, size=(64, 64), count=2, seed=0)


def entry(area: float, iou: float, centre: bool) -> dict[str, object]:
    side = area**0.5
    return {"box": [0.0, 0.0, side, side], "iou": iou, "centre_in_box": centre}


def test_every_row_that_ships_can_be_used() -> None:
    plugins = discover(only=())
    for name, each in ablations().items():
        rows = each.rows()
        assert len(rows) == len(each.lines) * len(each.values) + (each.without is not None), name
        configs = [
            validate(apply_sets(merge(load_guidance(row.guidance), {"model": row.model} if row.model else {}), row.sets), plugins)
            for row in rows.values()
        ]
        described = [(config.as_dict(), row.place) for config, row in zip(configs, rows.values(), strict=True)]
        assert all(other != one for i, one in enumerate(described) for other in described[:i]), f"{name}: rows are alike"
        assert {config.model for config in configs} <= set(plugins.embedded_models()), name


def test_a_setting_is_varied_and_the_rest_stays() -> None:
    rows = ablation("guided-fraction").rows()
    assert rows["0"].guidance == "none"
    base, other = rows["GLIGEN, 0.1"], rows["box-guided base, 0.1"]
    assert base.sets == ("guidance.small.until=0.1",)
    assert other.sets[-1] == "guidance.small.until=0.1"
    assert "shapeworld-base" in other.sets[0]


def test_unknown_ablation() -> None:
    with pytest.raises(ConfigError, match=r"ablation 'strenght': expected one of .* \(did you mean 'strength'\?\)"):
        ablation("strenght")


def test_objects_by_the_area_of_their_boxes() -> None:
    small, large = AREAS[1] / 2, AREAS[-2] * 1.5
    items = (
        {"seed": 0, "objects": [entry(small, 0.0, False), entry(large, 0.9, True)]},
        {"seed": 1, "objects": [entry(small, 0.6, True), entry(large, 0.7, True)]},
    )
    contender = Contender("pulled", "stand-in", 4.0, {}, lambda scenes: [])
    points = by_area(Row(contender, SCENES, items, "pulled"), "one line")
    assert [(point["line"], point["count"]) for point in points] == [("one line", 2)] * 2, "empty groups are left out"
    assert [point["value"] for point in points] == pytest.approx([small, large], abs=1e-4)
    values = [{name: interval["value"] for name, interval in point["metrics"].items()} for point in points]
    assert values[0] == pytest.approx({"in_place": 0.5, "centre_in_box": 0.5, "iou": 0.3})
    assert values[1] == pytest.approx({"in_place": 1.0, "centre_in_box": 1.0, "iou": 0.8})


def test_points_of_every_line_begin_with_what_has_no_pull() -> None:
    chosen = ablation("strength")

    class Described:
        def __init__(self, name: str) -> None:
            self.name = name

        def to_json(self) -> dict[str, object]:
            return {"metrics": {"map50": self.name}}

    rows = {name: Described(name) for name in chosen.rows()}
    points = chosen.points(rows)  # type: ignore[arg-type]
    assert len(points) == len(chosen.lines) * (1 + len(chosen.values))
    for line in chosen.lines:
        found = {point["value"]: point["metrics"]["map50"] for point in points if point["line"] == line}
        assert found.pop("0") == "0"
        assert found == {value: f"{line}, {value}" for value in chosen.values}


def charted(monkeypatch: pytest.MonkeyPatch, chosen: Ablation, values: dict[str, float]) -> dict[str, Any]:
    """What is handed to be drawn, by name; every line has these values of mAP."""
    handed: dict[str, Any] = {}

    def draw_charts(charts: Any, axis: str, kind: str, **more: Any) -> bytes:
        handed.update(charts=charts, axis=axis, kind=kind, **more)
        return b""

    monkeypatch.setattr(ablations_module, "draw_charts", draw_charts)
    points = [
        {"line": line, "value": name, "metrics": {"map50": {"value": value, "low": value - 0.1, "high": value + 0.1}}}
        for line in chosen.lines
        for name, value in values.items()
    ]
    draw(chosen, points, "png")
    return handed


def test_numbers_stand_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = charted(monkeypatch, ablation("strength"), {"1": 0.9, "0": 0.1, "0.5": 0.6})
    (chart,) = handed["charts"]  # no point has the other metrics
    assert chart.metric == "map50"
    assert [each.name for each in chart.series] == ["first tenth", "first fifth"]
    assert [(point.at, point.value) for point in chart.series[0].points] == [(0, 0.1), (0.5, 0.6), (1, 0.9)]
    assert not handed["places"]
    assert "Fig. 8" in handed["says"]


def test_names_stand_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = charted(monkeypatch, ablation("noise"), {"inversion": 0.5, "shared": 0.7, "fresh": 0.4})
    assert handed["places"] == ["inversion", "shared", "fresh"]
    assert [(point.at, point.value) for point in handed["charts"][0].series[1].points] == [(0, 0.5), (1, 0.7), (2, 0.4)]
