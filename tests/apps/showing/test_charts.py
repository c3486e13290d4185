"""The charts of energy and strength on a run's page."""

from __future__ import annotations

import pytest

from lsregen.apps.showing.charts import BOTTOM, LEFT, RIGHT, TOP, energy_chart, strength_chart, targets_of, ticks_between
from lsregen.apps.showing.records import Evaluation


def evaluations(*entries: tuple[int, float | None, bool]) -> list[Evaluation]:
    return [Evaluation(step, "t", updated, 10.0 - step, energy) for step, energy, updated in entries]


def test_repeats_stand_within_their_step() -> None:
    chart = energy_chart("t", evaluations((2, 4.0, True), (2, 2.0, True), (3, 0.0, False)))
    band = (RIGHT - LEFT) / 2
    assert [point.x for point in chart.points] == [LEFT + band / 4, LEFT + 3 * band / 4, LEFT + 3 * band / 2]
    assert [point.y for point in chart.points] == [TOP, (TOP + BOTTOM) / 2, BOTTOM]
    assert [point.updated for point in chart.points] == [True, True, False]
    assert [tick.text for tick in chart.x_ticks] == ["3", "4"]
    assert chart.x_ticks[1].at == chart.points[2].x
    assert chart.points[1].text == "step 3, evaluation 2 of 2: energy 2"
    assert chart.points[2].text == "step 4: energy 0, no update"
    assert chart.bands == ((LEFT + band, RIGHT),)


def test_an_image_left_out_makes_a_gap() -> None:
    given = evaluations((0, 1.0, True), (1, 0.5, True), (2, None, False), (3, 0.4, True))
    assert [len(line) for line in energy_chart("t", given).lines] == [2, 1]
    assert [len(line) for line in strength_chart("t", given).lines] == [4]
    assert strength_chart("t", given).points[0].y < strength_chart("t", given).points[3].y


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.97), (0.0, 30.0), (-3.0, 1.0), (0.0, 0.0), (0.0, 1e-9), (0.0, 1e30), (-1e30, 0), (0, 1), (0, 5e-324)],
)
def test_ticks_enclose_the_values(low: float, high: float) -> None:
    ticks = ticks_between(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high) - 1e-300
    assert ticks == sorted(set(ticks))


def test_steps_are_numbered_at_most_about_ten_times() -> None:
    for count in (1, 2, 10, 11, 25, 50, 99, 1000):
        texts = [tick.text for tick in energy_chart("t", evaluations(*((i, 1.0, True) for i in range(count)))).x_ticks]
        assert 1 <= len(texts) <= 12
        assert texts[0] == "1"


def test_targets_follow_the_schedule() -> None:
    schedule = {
        "stop_below": 0.2,
        "until": 0.5,
        "refine": {"0.0": [0.95, 20], "0.2": [0.5, 20], "0.9": [0.1, 3], "x": [1], "0.1": 3},
    }
    assert targets_of(schedule, 50) == [(0, 50, 0.2), (0, 1, 0.95), (10, 11, 0.5), (24, 25, 0.1)]
    assert targets_of({"stop_below": None, "refine": [], "until": "soon"}, 50) == []
    chart = energy_chart("t", evaluations((0, 1.0, True), (1, 1.0, True)), targets_of(schedule, 50))
    assert [(mark.left, mark.right, mark.text) for mark in chart.marks] == [
        (LEFT, RIGHT, "0.2"),
        (LEFT, (LEFT + RIGHT) / 2, "0.95"),
    ]
