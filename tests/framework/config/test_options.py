"""Options of plugins: described, built from plain values with every problem at once, and turned back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsregen.framework import Range, Schedule, discover, option
from lsregen.framework.config.field_types import type_text
from lsregen.framework.config.options import build, convert, describe_options, plain, to_values
from lsregen.framework.errors import ConfigError
from lsregen.framework.guidance.schedule import DECAYS, NORMALISATIONS, Site

CONFIGURABLE = [
    plugin for plugin in discover().all() if plugin.kind != "model" and not any(o.required for o in describe_options(plugin.cls))
]


@dataclass(frozen=True)
class Sample:
    kind: ClassVar[str] = "attention"

    must: int
    gamma: float = option(1.0, "strength")
    layers: tuple[str, ...] = option(("mid",), "layer selectors")
    pair: tuple[float, int] = option((0.5, 1), "threshold and count")
    from_: float | None = option(None, "first step")
    table: Mapping[float, tuple[float, int]] = option({0.5: (1.0, 2)}, "by fraction")
    names: Mapping[str, Sequence[int]] = option({}, "by name")
    counts: Mapping[int, str] = option({}, "by number")
    flag: bool = option(False, "on or off")
    mode: Literal["soft", "hard"] = option("soft", "how")
    pairs: tuple[tuple[str, str], ...] = option((), "two by two")

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ConfigError(f"gamma: {self.gamma} is negative")


def made(**values: Any) -> Sample:
    return build(Sample, {"must": 1, **values}, "here", "a sample")


def message(values: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(Sample, values, "guidance.x", "distance 'sample'")
    return str(caught.value).split("\n")


def test_options_are_described_in_order_with_type_default_and_help() -> None:
    described = describe_options(Sample)
    assert [o.key for o in described] == [
        "must", "gamma", "layers", "pair", "from", "table", "names", "counts", "flag", "mode", "pairs",
    ]  # fmt: skip
    assert (described[1].type, described[1].default, described[1].help) == ("a number", 1.0, "strength")
    assert described[2].default == ["mid"]
    assert described[5].default == {0.5: [1.0, 2]}
    assert described[0].help == ""


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (float, "a number"),
        (float | None, "a number or nothing"),
        (tuple[str, ...], "a list of text"),
        (list[int], "a list of whole numbers"),
        (tuple[float, int], "a list of 2: a number, a whole number"),
        (Mapping[float, int], "a mapping from numbers to whole numbers"),
        (dict[str, bool], "a mapping from text to true or false"),
        (Literal["a", "b"], "one of a, b"),
        (Any, "anything"),
        (type(None), "nothing"),
        (Sample, "a mapping with the keys must, gamma, layers, pair, from, table, names, counts, flag, mode, pairs"),
    ],
)
def test_types_are_said_as_people_say_them(hint: Any, text: str) -> None:
    assert type_text(hint) == text


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), 10**400, "1", True, [1]])
def test_a_bound_that_is_no_number_is_refused(bound: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Range: high: "):
        Range(0, bound)


def test_mutable_defaults_are_not_shared() -> None:
    assert Sample(1).table is not Sample(1).table


def test_plain_values_become_the_declared_types() -> None:
    sample = made(gamma=2, layers=["mid", "up"], pair=[1, 3], names={"a": [1, 2]}, flag=True, mode="hard")
    assert sample == Sample(1, 2.0, ("mid", "up"), (1.0, 3), names={"a": [1, 2]}, flag=True, mode="hard")
    assert type(sample.gamma) is float
    assert type(sample.pair[0]) is float


def test_reserved_words_lose_their_underscore_in_configurations() -> None:
    assert made(**{"from": 1}).from_ == 1.0
    assert to_values(made(**{"from": 0.5}))["from"] == 0.5


def test_nothing_is_taken_where_the_type_says_so() -> None:
    assert made(**{"from": None}).from_ is None
    assert message({"must": 1, "gamma": None}) == ["guidance.x.gamma: None is not a number"]


def test_keys_that_json_made_text_become_numbers_again() -> None:
    assert made(table={"0.25": [1, 2]}).table == {0.25: (1.0, 2)}
    assert made(counts={"3": "three"}).counts == {3: "three"}


LISTED = "must, gamma, layers, pair, from, table, names, counts, flag, mode, pairs"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("must", True, "must: True is not a whole number"),
        ("must", 1.0, "must: 1.0 is not a whole number"),
        ("gamma", True, "gamma: True is not a number"),
        ("gamma", "1", "gamma: '1' is not a number"),
        ("gamma", float("nan"), "gamma: nan is not a number"),
        ("gamma", float("inf"), "gamma: inf is not a number"),
        ("gamma", 10**400, "gamma: a whole number of 401 digits is too large"),
        ("layers", "mid", "layers: 'mid' is not a list of text; write ['mid']"),
        ("layers", [1], "layers[0]: 1 is not text"),
        ("layers", None, "layers: None is not a list of text"),
        ("pair", [1.0], "pair: [1.0] is not a list of 2: a number, a whole number"),
        ("pair", "1x2", "pair: '1x2' is not a list of 2: a number, a whole number; write it as [.., ..]"),
        ("pair", [1.0, 2.5], "pair[1]: 2.5 is not a whole number"),
        ("table", [0.5], "table: [0.5] is not a mapping from numbers to a list of 2: a number, a whole number"),
        ("table", {"half": [1.0, 2]}, "table, key: 'half' is not a number"),
        ("table", {"nan": [1.0, 2]}, "table, key: nan is not a number"),
        ("table", {0.5: 1.0}, "table[0.5]: 1.0 is not a list of 2: a number, a whole number; write it as [.., ..]"),
        ("flag", 1, "flag: 1 is not true or false"),
        ("mode", "sofd", "mode: 'sofd' is not one of soft, hard (did you mean 'soft'?)"),
        ("names", {"a": 1}, "names.a: 1 is not a list of whole numbers; write [1]"),
        ("names", {"a": "1"}, "names.a: '1' is not a list of whole numbers"),
        ("pairs", ["red", "dog"], "pairs: ['red', 'dog'] is not a list of a list of 2: text, text; write [['red', 'dog']]"),
        ("gama", 1, f"gama: no such option for distance 'sample' (did you mean 'gamma'?); options: {LISTED}"),
        ("from_", 0.5, f"from_: no such option for distance 'sample' (did you mean 'from'?); options: {LISTED}"),
        ("gamma", -1, "gamma: -1.0 is negative"),
    ],
)
def test_a_fault_is_named_with_its_path_what_was_given_and_what_was_expected(key: str, value: Any, problem: str) -> None:
    assert message({"must": 1, key: value}) == [f"guidance.x.{problem}"]


def test_every_problem_is_reported_at_once() -> None:
    assert message({"gama": 1, "pair": ["a", "b"], "mode": "h"}) == [
        f"guidance.x.gama: no such option for distance 'sample' (did you mean 'gamma'?); options: {LISTED}",
        "guidance.x.pair[0]: 'a' is not a number",
        "guidance.x.pair[1]: 'b' is not a whole number",
        "guidance.x.mode: 'h' is not one of soft, hard",
        "guidance.x.must: missing; distance 'sample' needs it",
    ]


def test_refusals_of_the_class_itself_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Schedule, {"decay": "linaer", "site": "befor", "repeats": 0, "gamma": "x"}, "guidance.x")
    paths = [line.split(" ")[0] for line in str(caught.value).split("\n")]
    assert paths == ["guidance.x.decay:", "guidance.x.site:", "guidance.x.repeats:", "guidance.x.gamma:"]


def test_a_default_that_stands_in_for_a_faulty_value_is_not_blamed() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Schedule, {"from": "x", "until": 0.0}, "guidance.x")
    assert str(caught.value) == "guidance.x.from: 'x' is not a number"


def test_a_required_option_of_a_wrong_type_is_not_missing_too() -> None:
    assert message({"must": "x"}) == ["guidance.x.must: 'x' is not a whole number"]


NESTED = Sample(3)


@dataclass(frozen=True)
class Outer:
    inner: Sample = NESTED
    file: Path | None = None


def test_options_may_hold_options_and_paths() -> None:
    outer = build(Outer, {"inner": {"must": 2, "gamma": 3}, "file": "a/b"}, "here")
    assert outer == Outer(Sample(2, 3.0), Path("a/b"))
    assert build(Outer, to_values(outer), "here") == outer
    with pytest.raises(ConfigError, match=r"^here\.inner\.must: 'x' is not a whole number$"):
        build(Outer, {"inner": {"must": "x"}}, "here")


def test_a_plugin_without_options_says_so() -> None:
    with pytest.raises(ConfigError, match="it has no options"):
        build(dataclass(frozen=True)(type("Bare", (), {})), {"eta": 1}, "sampler", "sampler 'bare'")


def test_keys_that_are_no_text_are_refused_and_not_crashed_on() -> None:
    assert message({"must": 1, 3: 4})[0].startswith("guidance.x.3: no such option")  # type: ignore[dict-item]


def test_built_instances_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        made().gamma = 3  # type: ignore[misc]


def test_dataclasses_become_plain_under_their_configuration_keys() -> None:
    assert plain({"a": (Schedule(from_=0.25),)})["a"][0]["from"] == 0.25


@pytest.mark.parametrize("plugin", CONFIGURABLE, ids=lambda p: f"{p.kind}-{p.name}")
def test_every_registered_plugin_survives_the_round_trip_through_json(plugin: Any) -> None:
    instance = build(plugin.cls, {}, "here", plugin.name)
    values = to_values(instance)
    assert build(plugin.cls, json.loads(json.dumps(values)), "here", plugin.name) == instance
    assert [o.key for o in describe_options(plugin.cls)] == list(values)
    assert all(o.help for o in describe_options(plugin.cls)), "every option has a line of help"


SHARE = st.floats(0, 1)
SCHEDULES = st.builds(
    lambda window, refine, blend, **rest: {
        "from": window[0],
        "until": window[1],
        "refine": {fraction: due for fraction, due in refine.items() if window[0] <= fraction < window[1]},
        **rest,
        "stop_below": None if rest["gamma"] < 0 else rest["stop_below"],  # they wait for a low energy
        **({"refine": {}} if rest["gamma"] < 0 else {}),
        "blend": blend,
        **({} if blend is None else {"gamma": 1.0, "normalise": "none"}),  # it stands in for them
    },
    blend=st.none() | SHARE,
    window=st.tuples(SHARE, SHARE).map(sorted).filter(lambda w: w[0] < w[1]),
    gamma=st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
    decay=st.sampled_from(list(DECAYS)),
    repeats=st.integers(1, 50),
    stop_below=st.none() | st.floats(-1e3, 1e3),
    stop_forever=st.booleans(),
    refine=st.dictionaries(st.floats(0, 1, exclude_max=True), st.tuples(st.floats(0, 1), st.integers(1, 20)), max_size=3),
    final_update=st.booleans(),
    normalise=st.sampled_from(list(NORMALISATIONS)),
    site=st.sampled_from([site for site in get_args(Site) if site not in ("after", "noise")]),
    non_finite=st.sampled_from(["error", "skip"]),
)


@given(SCHEDULES)
def test_every_schedule_survives_the_round_trip_through_json(values: dict[str, Any]) -> None:
    schedule = build(Schedule, values, "here", "a schedule")
    assert build(Schedule, json.loads(json.dumps(to_values(schedule))), "here", "a schedule") == schedule
    assert set(values) == {name.rstrip("_") for name in (f.name for f in fields(Schedule))}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
HINTS = [float, int, bool, str, float | None, tuple[str, ...], tuple[float, int], Mapping[float, int], list[float], Literal["a"]]


@given(JSON, st.sampled_from(HINTS))
def test_whatever_is_given_is_converted_or_refused_and_converting_again_changes_nothing(value: Any, hint: Any) -> None:
    try:
        converted = convert(value, hint, "here")
    except ConfigError:
        return
    assert convert(converted, hint, "here") == converted
    assert convert(plain(converted), hint, "here") == converted


@dataclass(frozen=True)
class Bare:
    """Without a line of help, as what a file holds is read."""

    count: int
    inner: Mapping[str, Sample] | None = None


def test_any_dataclass_is_made_of_a_mapping() -> None:
    assert convert([{"count": 2, "inner": {"a": {"must": 1}}}], list[Bare], "here") == [Bare(2, {"a": Sample(1)})]
    with pytest.raises(ConfigError, match=r"here\[0\]\.count"):
        convert([{"count": "two"}], list[Bare], "here")
