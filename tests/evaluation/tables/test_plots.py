"""Charts show every point, with its interval, where it belongs."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsregen.evaluation.tables.plots import COLOURS, Chart, Point, Series, draw_charts, name_of


def series(name: str, *values: float) -> Series:
    return Series(name, tuple(Point(float(at), value, value - 0.1, value + 0.1) for at, value in enumerate(values)))


CHARTS = [Chart("map50", [series("a", 0.1, 0.2, 0.3), series("b", 0.4, 0.5, 0.6)])]
Drawn = list[tuple[list[float], list[float], str]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The places, the values and the style of each line."""
    from matplotlib.axes import Axes

    seen, original = Drawn(), Axes.errorbar

    def errorbar(self: Any, x: Any, y: Any, **style: Any) -> Any:
        seen.append((list(x), list(y), style["linestyle"]))
        return original(self, x, y, **style)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    return seen


def test_numbers_stand_at_their_places(drawn: Drawn) -> None:
    draw_charts(CHARTS, "share", "png")
    assert drawn == [([0, 1, 2], [0.1, 0.2, 0.3], "-"), ([0, 1, 2], [0.4, 0.5, 0.6], "-")]


def test_names_stand_side_by_side(drawn: Drawn) -> None:
    draw_charts(CHARTS, "noise", "png", places=("fresh", "shared", "inversion"))
    (first, _, style), (second, _, _) = drawn
    assert style == "none", "nothing lies between names"
    assert [round(x) for x in first] == [round(x) for x in second] == [0, 1, 2]
    assert all(a < b for a, b in zip(first, second, strict=True)), "lines do not hide each other"


def test_a_chart_is_a_picture_that_lsregen_made() -> None:
    level = Series("none", (Point(0, 0.2, 0.1, 0.3),), level=True)
    charts = [Chart("frechet", [*CHARTS[0].series, level])]
    with Image.open(BytesIO(draw_charts(charts, "share", "png", says="what is varied"))) as picture:
        assert picture.info["Software"] == "lsregen"
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for colour in COLOURS[:3]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).sum(axis=2) < 12).sum() > 100, colour


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_same_chart_is_the_same_file(kind: str) -> None:
    assert draw_charts(CHARTS, "share", kind) == draw_charts(CHARTS, "share", kind)


def test_metrics_have_names() -> None:
    assert name_of("map50") == "mAP at 0.5"
    assert name_of("frechet_multi") == "Frechet distance, multi"
    assert name_of("some_other") == "some other"
