"""Windows, decays and refinements as data, against the published numbers."""

from __future__ import annotations

import pickle
from math import ceil
from typing import Any, get_args

import pytest
import torch

from lsregen.framework.errors import ConfigError
from lsregen.framework.guidance.schedule import DECAYS, Schedule, Site
from lsregen.framework.types import Step


def steps(count: int) -> list[Step]:
    return [Step(index, count, 1000 - index, (index + 1) / (count + 1), 1.0) for index in range(count)]


def guided(schedule: Schedule, count: int) -> list[int]:
    return [step.index for step in steps(count) if schedule.active(step)]


@pytest.mark.parametrize("count", [1, 2, 50, 51])
def test_sqrt_linear_is_the_root_of_a_line_from_one_to_one_half(count: int) -> None:
    published = 20 * torch.linspace(1, 0.5, count, dtype=torch.float64).sqrt()
    ours = [Schedule(gamma=20, decay="sqrt_linear").strength(step) for step in steps(count)]
    assert ours == pytest.approx(published.tolist(), rel=1e-12)


def test_sqrt_linear_gives_the_published_step_sizes() -> None:
    strengths = [Schedule(gamma=20, decay="sqrt_linear").strength(step) for step in steps(51)]
    assert [strengths[i] for i in (0, 10, 20, 24)] == pytest.approx([20.0, 18.97, 17.89, 17.44], abs=0.005)


def test_one_minus_alpha_bar_gives_the_strengths_of_layout_guidance() -> None:
    bars = {981: 0.00578, 951: 0.00816, 901: 0.01400, 801: 0.03655}
    schedule = Schedule(gamma=30, decay="one_minus_alpha_bar")
    for t, bar in bars.items():
        sigma_squared = (1 - bar) / bar
        strength = schedule.strength(Step(0, 50, t, bar, 1.0))
        assert strength == pytest.approx(30 * sigma_squared / (1 + sigma_squared), rel=1e-12)


def test_constant_and_linear_decays() -> None:
    assert [Schedule(gamma=3).strength(step) for step in steps(4)] == [3, 3, 3, 3]
    assert [Schedule(gamma=2, decay="linear").strength(step) for step in steps(4)] == [2.0, 1.5, 1.0, 0.5]
    assert set(DECAYS) == {"constant", "sqrt_linear", "linear", "one_minus_alpha_bar", "sqrt_one_minus_alpha_bar"}


def test_zestguides_strength_is_the_share_of_noise() -> None:
    schedule = Schedule(gamma=0.3, decay="sqrt_one_minus_alpha_bar")
    assert schedule.strength(Step(0, 50, 981, 0.00578, 0.01)) == pytest.approx(0.3 * 0.9971, rel=1e-4)
    assert schedule.strength(Step(25, 50, 481, 0.64, 0.7)) == pytest.approx(0.3 * 0.6)


@pytest.mark.parametrize(
    ("from_", "until", "count", "expected"),
    [
        (0.0, 1.0, 4, [0, 1, 2, 3]),
        (0.0, 0.5, 50, list(range(25))),
        (0.0, 0.2, 50, list(range(10))),
        (0.3, 0.7, 10, [3, 4, 5, 6]),  # .3 * 10 and .7 * 10 are not whole in floating point
        (0.0, 0.1, 30, [0, 1, 2]),
        (0.55, 0.6, 10, []),
        (0.0, 0.5, 5, [0, 1, 2]),
    ],
)
def test_the_window_includes_its_start_and_not_its_end(from_: float, until: float, count: int, expected: list[int]) -> None:
    assert guided(Schedule(from_=from_, until=until), count) == expected


@pytest.mark.parametrize("count", [50, 25, 10, 7])
def test_refinements_fall_on_their_fraction_of_the_steps(count: int) -> None:
    schedule = Schedule(refine={0.0: (0.95, 20), 0.2: (0.5, 20), 0.4: (0.2, 10)})
    due = {step.index: schedule.refinement(step) for step in steps(count) if schedule.refinement(step)}
    assert due == {0: (0.95, 20), ceil(0.2 * count): (0.5, 20), ceil(0.4 * count): (0.2, 10)}, "the first step at or after it"


def test_where_few_steps_bring_refinements_together_the_latest_wins() -> None:
    schedule = Schedule(refine={0.1: (0.5, 1), 0.2: (0.3, 2), 0.25: (0.2, 3), 0.9: (0.1, 4)})
    assert [schedule.refinement(step) for step in steps(3)] == [None, (0.2, 3), (0.1, 4)], "and none is lost"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decay": "sqrt"}, r"decay: 'sqrt' is not one of"),
        ({"site": "befor"}, r"did you mean 'before'"),
        ({"normalise": "l2"}, r"normalise: 'l2'"),
        ({"from_": -0.1}, r"number from 0 to 1"),
        ({"until": 1.1}, r"number from 0 to 1"),
        ({"from_": float("nan")}, r"from_: nan is not a number"),
        ({"from_": 0.5, "until": 0.5}, r"no step would be guided"),
        ({"repeats": 0}, r"repeats: 0"),
        ({"refine": {1.0: (0.5, 3)}}, r"refine: 1.0"),
        ({"refine": {0.0: (0.5, 0)}}, r"from 1 to"),
        ({"refine": {0.5: (0.5, 3)}, "until": 0.5}, r"refine: 0.5: .* from 0.0 to below 0.5"),
        ({"refine": {0.1: (0.5, 3)}, "from_": 0.2}, r"refine: 0.1: .* from 0.2 to below 1.0"),
        ({"site": "after", "repeats": 2}, r"shares its pass"),
        ({"site": "noise", "refine": {0.0: (0.5, 3)}}, r"shares its pass"),
        ({"blend": 1.1}, r"blend: 1.1 is out of range"),
        ({"blend": -0.1}, r"blend: -0.1 is out of range"),
        ({"blend": float("nan")}, r"blend: nan is not a number from 0 to 1 or nothing"),
        ({"blend": 0.5, "gamma": 2.0}, r"blend: 0.5 beside gamma 2.0"),
        ({"blend": 0.5, "normalise": "linf"}, r"blend: 0.5 beside normalise 'linf'"),
    ],
)
def test_a_value_out_of_range_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**given)


@pytest.mark.parametrize("site", get_args(Site))
def test_every_site_takes_a_single_update(site: str) -> None:
    assert Schedule(site=site).site == site


def test_a_schedule_can_be_sent_to_another_process() -> None:
    for schedule in (Schedule(), Schedule(refine={0.0: (0.5, 3)})):
        assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma": "3"}, "Schedule: gamma: '3' is not a number"),
        ({"repeats": 2.0}, "Schedule: repeats: 2.0 is not a whole number"),
        ({"decay": ["linear"]}, "Schedule: decay: ['linear'] is not text"),
    ],
)
def test_types_are_checked_in_python_too(options: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(**options)
    assert str(caught.value) == said


@pytest.mark.parametrize("values", [{"stop_below": 0.1}, {"refine": {0.0: (0.1, 3)}}])
def test_a_push_waits_for_no_low_energy(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gamma: -2"):
        Schedule(gamma=-2.0, **values)
    assert Schedule(gamma=2.0, **values).gamma == 2


@pytest.mark.parametrize("normalise", ["none", "linf", "rms"])
def test_a_negative_gamma_is_the_strength_with_its_sign(normalise: str) -> None:
    schedule, step = Schedule(gamma=-2.0, normalise=normalise, decay="linear"), Step(1, 4, 0, 0.5, 0.6)
    assert schedule.strength(step) == -Schedule(gamma=2.0, decay="linear").strength(step) == -1.5


@pytest.mark.parametrize(
    "values", [{"repeats": 10_001}, {"repeats": 10**30}, {"refine": {0.0: (0.1, 10_001)}}, {"refine": {0.0: (0.1, 10**30)}}]
)
def test_no_step_has_endless_updates(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Schedule(**values)
