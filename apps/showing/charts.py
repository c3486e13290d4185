"""Curves over the steps of a run, as positions on a page: where lines, points and ticks stand; a template draws them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .records import LARGEST, Evaluation

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 470, 12, 176
NARROWEST_BAND = 5  # of the stripes that tell steps apart
TICKS = 5


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """One evaluation. `updated`: whether the image was updated by it."""

    x: float
    y: float
    updated: bool
    text: str


@dataclass(frozen=True)
class Mark:
    """A level to reach, from `left` to `right`."""

    left: float
    right: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One curve. `lines`: the points that are joined, without gaps; `bands`: every other step, from left to right.

    `description`: what it shows, in words.
    """

    name: str
    description: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bands: tuple[tuple[float, float], ...]
    lines: tuple[tuple[Point, ...], ...]
    points: tuple[Point, ...]
    marks: tuple[Mark, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM

    @property
    def radius(self) -> float:
        """Of a point: smaller where there are many."""
        return round(max(1.2, min(2.6, 0.45 * (RIGHT - LEFT) / max(1, len(self.points)))), 1)

    @property
    def all_updated(self) -> bool:
        return all(point.updated for point in self.points)


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to positions."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


def energy_chart(term: str, evaluations: Sequence[Evaluation], targets: Sequence[tuple[float, float, float]] = ()) -> Chart:
    """The watched energy at every evaluation, with the levels that end the pull or its refinement: see `targets_of`."""
    return _chart("energy", term, evaluations, [each.energy for each in evaluations], targets)


def strength_chart(term: str, evaluations: Sequence[Evaluation], blends: bool = False) -> Chart:
    """The strength that the gradient was multiplied by at every evaluation; of a blend, which is twice that, the blend."""
    if blends:
        return _chart("blend", term, evaluations, [2 * each.strength for each in evaluations])
    return _chart("strength", term, evaluations, [each.strength for each in evaluations])


def targets_of(schedule: Mapping[str, Any], steps: int) -> list[tuple[float, float, float]]:
    """The levels a schedule asks for: from which step, up to which, and the energy.

    `stop_below` holds for the whole run, a threshold of `refine` for one step. What is no number is left out.
    """
    found: list[tuple[float, float, float]] = []
    if (level := number(schedule.get("stop_below"))) is not None:
        found.append((0, steps, level))
    refine: object = schedule.get("refine")
    until = number(schedule.get("until"))
    last = _first_step(1.0 if until is None else until, steps) - 1
    for fraction, entry in cast("dict[object, object]", refine).items() if isinstance(refine, dict) else ():
        level = number(cast("list[object]", entry)[0]) if isinstance(entry, list) and entry else None
        if (at := number(fraction)) is not None and level is not None:
            step = min(_first_step(at, steps), last)
            found.append((step, step + 1, level))
    return found


def number(value: object) -> float | None:
    """A number of a configuration, or the text of one, if it can be drawn; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) <= LARGEST else None


def _first_step(fraction: float, steps: int) -> int:
    """As schedules count: the first step that has at least this fraction of the run behind it."""
    return math.ceil(max(0.0, min(fraction, 1.0)) * steps - 1e-9)


def _chart(
    what: str,
    term: str,
    evaluations: Sequence[Evaluation],
    values: Sequence[float | None],
    targets: Sequence[tuple[float, float, float]] = (),
) -> Chart:
    """Values over the steps from the first evaluated one to the last; what was evaluated within one step shares its width."""
    first, last = min(each.step for each in evaluations), max(each.step for each in evaluations) + 1
    x = Scale(first, last, LEFT, RIGHT)
    shown = [(max(a, first), min(b, last), level) for a, b, level in targets if a < last and b > first]
    known = [value for value in values if value is not None]
    ticks = ticks_between(min(0.0, *known, *(level for *_, level in shown)), max(0.0, *known, *(level for *_, level in shown)))
    y = Scale(ticks[0], ticks[-1], BOTTOM, TOP)
    lines = _lines(what, evaluations, values, x, y)
    points = tuple(point for line in lines for point in line)
    ends = f"from {known[0]:.3g} to {known[-1]:.3g}" if known else "no value"
    updated = sum(point.updated for point in points)
    band = (RIGHT - LEFT) / (last - first)
    striped = range(first + 1, last, 2) if band >= NARROWEST_BAND else ()
    return Chart(
        name=f"{what.capitalize()} of {term}",
        description=f"{what.capitalize()} of the term {term} over the steps {first + 1} to {last}, {ends}, "
        f"in {len(points)} evaluations; {updated} of them updated the image.",
        x_ticks=_step_ticks(first, last, x),
        y_ticks=tuple(Tick(y(value), f"{value:g}") for value in ticks),
        bands=tuple((x(step), x(step + 1)) for step in striped),
        lines=tuple(lines),
        points=points,
        marks=tuple(Mark(x(a), x(b), y(level), f"{level:g}") for a, b, level in shown),
    )


def _lines(
    what: str, evaluations: Sequence[Evaluation], values: Sequence[float | None], x: Scale, y: Scale
) -> list[tuple[Point, ...]]:
    """Runs of points without a gap."""
    repeats, seen = Counter(each.step for each in evaluations), Counter[int]()
    lines: list[list[Point]] = [[]]
    for each, value in zip(evaluations, values, strict=True):
        seen[each.step] += 1
        if value is None:
            lines.append([])
            continue
        nth, of = seen[each.step], repeats[each.step]
        place = f"step {each.step + 1}" + (f", evaluation {nth} of {of}" if of > 1 else "")
        text = f"{place}: {what} {value:.4g}{'' if each.updated else ', no update'}"
        lines[-1].append(Point(x(each.step + (nth - 0.5) / of), y(value), each.updated, text))
    return [tuple(line) for line in lines if line]


def _step_ticks(first: int, last: int, x: Scale) -> tuple[Tick, ...]:
    """Steps are numbered from 1, in the middle of their width: every one, or every 2nd, 5th, 10th, ..."""
    stride = round(_round_up((last - first) / 10)) if last - first > 10 else 1
    numbered = [step for step in range(first, last) if (step + 1) % stride == 0] if stride > 1 else list(range(first, last))
    if numbered and numbered[0] - first >= stride - 1 and stride > 1:
        numbered = [first, *numbered]
    return tuple(Tick(x(step + 0.5), str(step + 1)) for step in numbered)


def ticks_between(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range, at most about six of them."""
    if high - low < 1 / LARGEST:
        high = low + 1.0
    width = _round_up((high - low) / TICKS)
    return [i * width for i in range(math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9) + 1)]


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
