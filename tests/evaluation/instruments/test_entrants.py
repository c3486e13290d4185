"""Entrants: the pictures of runs, pooled by method; only what was asked for alike is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.instruments.entrants import entrants_of
from lsregen.evaluation.runs.expects import Expects
from lsregen.evaluation.runs.plan import Method, Plan
from lsregen.evaluation.runs.run_folder import RunFolder
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout.regions import Layout
from tests.evaluation import drawn


def unlike(plan: Plan, **changed: Any) -> Plan:
    """The plan with something else in its second job."""
    jobs = [replace(job, **changed) if job.number == 1 else job for job in plan.jobs]
    return Plan.of(plan.origin, plan.methods, plan.batch, jobs)


def two_runs(folder: Path, **changed: Any) -> list[RunFolder]:
    ours, theirs = drawn.plan(("ours",)), unlike(drawn.plan(("theirs",)), **changed)
    draws = {"ours": drawn.true, "theirs": drawn.true}
    return [drawn.run(folder / "a", ours, draws), drawn.run(folder / "b", theirs, draws)]


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "prompt": ({"prompt": "a dog"}, "another prompt \\('a.*' and 'a dog'\\); compare runs of one source"),
    "negative": ({"negative": "blurry"}, "another negative \\('' and 'blurry'\\)"),
    "layout": ({"layout": Layout.from_boxes({"red circle": (0.0, 0.0, 0.5, 0.5)})}, "another layout;"),
    "expects": ({"expects": Expects(counts={"cat": 2})}, "another expects;"),
}


@pytest.mark.parametrize(("changed", "said"), UNLIKE.values(), ids=list(UNLIKE))
def test_items_of_one_name_that_are_not_alike(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"item 'scene-1' is not the same in .*a and .*b: {said}"):
        entrants_of(two_runs(tmp_path, **changed))


def of_other_models(method: Method, sha256: str = "0" * 64, **changed: Any) -> Method:
    return replace(method, models={"small": {"name": "small", "sha256": {"model.safetensors": sha256}}}, **changed)


METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": "x3"}, "sizes by the policy 'model' and 'x3'"),
    "dtype": ({"dtype": "fp16"}, "guidance or dtype"),
    "a model that renders": ({"sha256": "1" * 64}, "their models' weights"),
}


@pytest.mark.parametrize(("changed", "said"), METHODS.values(), ids=list(METHODS))
def test_methods_of_one_name_that_are_not_alike(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    ours, theirs = drawn.plan(("ours",)), drawn.plan(("ours",), name="other")
    pooled: list[list[RunFolder]] = []
    for folder, change in (("alike", {}), ("unlike", changed)):
        methods = [{"ours": of_other_models(plan.methods["ours"], **more)} for plan, more in ((ours, {}), (theirs, change))]
        plans = [Plan.of(plan.origin, each, plan.batch, plan.jobs) for plan, each in zip((ours, theirs), methods, strict=True)]
        pooled.append([drawn.run(tmp_path / folder / str(i), plan, {"ours": drawn.true}) for i, plan in enumerate(plans)])
    assert [len(each.entries) for each in entrants_of(pooled[0])] == [8]
    with pytest.raises(ConfigError, match=rf"method 'ours' is not the same in .*0 and .*1: {said}; use these runs one by one"):
        entrants_of(pooled[1])


def test_what_items_share_is_held_once(tmp_path: Path) -> None:
    ours, theirs = entrants_of(two_runs(tmp_path))
    pairs = list(zip(ours.entries, theirs.entries, strict=True))
    assert all(one.job.layout is other.job.layout and one.job.expects is other.job.expects for one, other in pairs)
    assert all((one.job.method, other.job.method) == ("ours", "theirs") for one, other in pairs)
