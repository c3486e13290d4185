"""A plan is read as it was written, and refused when it is anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.protocol.expects import Expects, Relation
from lsregen.evaluation.protocol.plan import Job, Origin, Plan
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout import Layout

Small = Callable[..., Plan]


def edited(path: Path, edit: Callable[[dict[str, Any]], Any], line: int = 0) -> None:
    lines = path.read_text().splitlines()
    values = json.loads(lines[line])
    edit(values)
    lines[line] = json.dumps(values)
    path.write_text("\n".join(lines) + "\n")


def test_a_plan_is_read_as_it_was_written(tmp_path: Path, small: Small) -> None:
    plan = small()
    plan.write(tmp_path / "plan.jsonl")
    found = Plan.read(tmp_path / "plan.jsonl")
    assert list(found.jobs) == list(plan.jobs)
    assert found.head() == plan.head()
    assert (found.origin, found.methods, found.batch, found.lsregen) == (plan.origin, plan.methods, 2, plan.lsregen)
    assert (found.head()["seeds"], found.head()["seed"], found.seeds, found.seed) == (1, 0, 1, 0)
    assert found.differences(plan) == []
    assert [path.name for path in tmp_path.iterdir()] == ["plan.jsonl"]
    assert found.jobs[-1].number == 5
    assert [job.number for job in found.jobs[1:3]] == [1, 2]


def test_batches_are_the_jobs_that_are_made_together(tmp_path: Path, small: Small) -> None:
    plan = small()
    assert list(plan.batches()) == [range(0, 2), range(2, 3), range(3, 5), range(5, 6)]
    plan.write(tmp_path / "plan.jsonl")
    assert list(Plan.read(tmp_path / "plan.jsonl").batches()) == list(plan.batches())


def test_a_line_is_what_the_documentation_says(small: Small) -> None:
    job = small().jobs[4]
    assert job.to_json() == {
        "job": 4,
        "batch": 2,
        "method": "layout-guidance",
        "item": "item-1",
        "seed": 101,
        "prompt": "a red circle and a blue square",
        "negative": "",
        "regions": [
            {"phrase": "red circle", "box": [0.05, 0.1, 0.45, 0.5]},
            {"phrase": "blue square", "box": [0.55, 0.5, 0.95, 0.9]},
        ],
        "size": [64, 64],
        "expects": {
            "relations": [{"subject": "circle", "relation": "left of", "object": "square"}],
            "counts": {"circle": 1},
            "attributes": [{"phrase": "red circle", "noun": "circle", "attribute": "red"}],
            "classes": {"red circle": "circle", "blue square": "square"},
        },
    }
    assert Job.from_json(job.to_json()) == job


def test_what_nobody_expects_is_not_written() -> None:
    assert Expects().to_json() == {}


def test_a_relation_of_another_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'left off' is not one of left of, .* \(did you mean 'left of'\?\)"):
        Relation("dog", "left off", "cat")


def test_a_count_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1 of 'dog'; expected 0 or more"):
        Expects(counts={"dog": -1})


@pytest.mark.parametrize("change", [{"seed": 7}, {"prompt": "another"}])
def test_a_changed_job_is_found(tmp_path: Path, small: Small, change: dict[str, Any]) -> None:
    small().write(tmp_path / "plan.jsonl")
    edited(tmp_path / "plan.jsonl", lambda job: job.update(change), line=3)
    with pytest.raises(ConfigError, match=r"plan.jsonl: changed or cut off since it was made"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_changed_method_is_found(tmp_path: Path, small: Small) -> None:
    small().write(tmp_path / "plan.jsonl")
    edited(tmp_path / "plan.jsonl", lambda head: head["methods"]["none"]["config"].update(steps=3))
    with pytest.raises(ConfigError, match="changed or cut off"):
        Plan.read(tmp_path / "plan.jsonl")


@pytest.mark.parametrize("lost", [1, 40])
def test_a_plan_that_was_cut_off_is_found(tmp_path: Path, small: Small, lost: int) -> None:
    small().write(tmp_path / "plan.jsonl")
    data = (tmp_path / "plan.jsonl").read_bytes()
    (tmp_path / "plan.jsonl").write_bytes(data[:-lost])
    with pytest.raises(ConfigError, match="changed or cut off"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_plan_of_another_version_says_which(tmp_path: Path, small: Small) -> None:
    small().write(tmp_path / "plan.jsonl")
    edited(tmp_path / "plan.jsonl", lambda head: head.update(version=1, lsregen="0.0.1"))
    with pytest.raises(ConfigError, match=r"a plan of version 1, made by lsregen 0.0.1; this one reads version 2"):
        Plan.read(tmp_path / "plan.jsonl")


@pytest.mark.parametrize(
    ("content", "why"), [("", "empty file"), ("[]", "not a plan"), ("{", "not a plan"), ("{}", "not a plan")]
)
def test_a_file_that_is_no_plan(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "plan.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=f"{why}.*expected a plan that `lsregen evaluate plan` made"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_header_that_lacks_a_key(tmp_path: Path, small: Small) -> None:
    small().write(tmp_path / "plan.jsonl")
    edited(tmp_path / "plan.jsonl", lambda head: head.pop("batch"))
    with pytest.raises(ConfigError, match="its header has no 'batch'"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Plan.read(tmp_path / "plan.jsonl")


def test_differences_are_named(small: Small) -> None:
    plan = small()
    assert small(batch=3).differences(plan)[0] == "batch 3 and 2"
    assert small(items=2).differences(plan) == ["jobs 4 and 6", "source.items"]
    assert "methods.layout-guidance" in small(methods=("none",)).differences(plan)
    other = Plan.of(plan.origin, plan.methods, 2, [replace(job, seed=job.seed + 1) for job in plan.jobs])
    assert other.differences(plan) == ["their jobs"]


def wrong_number(jobs: list[Job]) -> list[Job]:
    return [replace(jobs[0], number=1), *jobs[1:]]


def two_sizes(jobs: list[Job]) -> list[Job]:
    return [replace(jobs[0], size=(32, 64)), *jobs[1:]]


def too_many(jobs: list[Job]) -> list[Job]:
    return [replace(job, batch=0) for job in jobs[:3]]


def gap(jobs: list[Job]) -> list[Job]:
    return [replace(job, batch=job.batch * 2) for job in jobs]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (wrong_number, "job 1 in place 0"),
        (two_sizes, "batch 0: expected at most 2 jobs, of one size"),
        (too_many, "batch 0: expected at most 2 jobs"),
        (gap, "batch 2; expected 1"),
        (lambda jobs: [], "a plan without jobs"),  # pyright: ignore[reportUnknownLambdaType]
    ],
)
def test_jobs_that_are_no_plan(small: Small, spoil: Callable[[list[Job]], list[Job]], why: str) -> None:
    plan = small()
    with pytest.raises(ConfigError, match=why):
        Plan.of(plan.origin, plan.methods, plan.batch, spoil(list(plan.jobs)))


@pytest.mark.parametrize("name", ["../other", "", ".hidden", "a/b", "x" * 61])
def test_a_method_that_cannot_be_a_folder(small: Small, name: str) -> None:
    plan = small()
    with pytest.raises(ConfigError, match="expected a name that a folder may have"):
        Plan.of(Origin("list"), {name: plan.methods["none"]}, 2, plan.jobs)


@pytest.mark.parametrize(("change", "why"), [({"seed": -1}, "seed: -1"), ({"size": (0, 8)}, "size: .0, 8.")])
def test_a_job_that_cannot_be_made(small: Small, change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        replace(small().jobs[0], **change)


def test_layouts_with_masks_survive(tmp_path: Path, small: Small) -> None:
    layout = Layout.from_json({"regions": [{"phrase": "red circle", "mask": [[0.0, 1.0], [0.5, 0.0]]}]})
    plan = small()
    masked = Plan.of(plan.origin, plan.methods, 2, [replace(job, layout=layout) for job in plan.jobs])
    masked.write(tmp_path / "plan.jsonl")
    assert Plan.read(tmp_path / "plan.jsonl").jobs[0].layout == layout
