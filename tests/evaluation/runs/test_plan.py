"""A plan is read as it was written, and refused when it is anything else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.runs.expects import Expects, Relation
from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Origin, Plan
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout.regions import Layout

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
    with pytest.raises(ConfigError, match=r"header\.batch: missing"):
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


def forged(path: Path, edit: Callable[[list[Any]], Any]) -> Path:
    """Change the lines of a plan, the head and its jobs, and give it the digest that it then has."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(lines)
    head = {key: value for key, value in lines[0].items() if key != "digest"}
    texts = [json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *lines[1:])]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    path.write_text("".join([json.dumps({**head, "digest": digest}, ensure_ascii=False) + "\n", *texts[1:]]))
    return path


def renamed(name: str) -> Callable[[list[Any]], None]:
    def edit(lines: list[Any]) -> None:
        lines[0]["methods"][name] = lines[0]["methods"].pop("none")
        for job in lines[1:]:
            job["method"] = name if job["method"] == "none" else job["method"]

    return edit


def with_head(**changes: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[0].update(changes)


def with_job(number: int, /, **changes: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[number + 1].update(changes)


def with_method(**changes: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[0]["methods"]["none"].update(changes)


def all_in_one_batch(lines: list[Any]) -> None:
    for job in lines[1:]:
        job["batch"] = 0


def without(key: str) -> Callable[[list[Any]], None]:
    return lambda lines: lines[2].pop(key)


REGION = {"phrase": "red circle", "box": [0.5, 0.1, 0.2, 0.5]}
FORGED: Mapping[str, tuple[Callable[[list[Any]], Any], str]] = {
    "above": (renamed("../../../evil"), "'../../../evil'"),
    "elsewhere": (renamed("/elsewhere/evil"), "'/elsewhere/evil'"),
    "the parent": (renamed(".."), "'..'"),
    "no name": (renamed(""), "method ''"),
    "one batch": (all_in_one_batch, "batch 0"),
    "another number": (with_job(0, job=7), "job 7"),
    "a number twice": (with_job(1, job=0), "job 0"),
    "a true number": (with_job(1, job=True), "True"),
    "a float number": (with_job(1, job=1.0), "1.0"),
    "a text batch": (with_job(0, batch="0"), "'0'"),
    "a method that is not there": (with_job(5, method="other"), "batch 3"),
    "a method that is a list": (with_job(0, method=["none"]), r"method: \['none'\]"),
    "an item that is a number": (with_job(4, item=4), "item: 4"),
    "a seed out of range": (with_job(4, seed=2**63), str(2**63)),
    "a seed that is a float": (with_job(4, seed=1.5), "seed: 1.5"),
    "a size of a batch": (with_job(1, size=[32, 64]), "batch 0"),
    "a size that is a text": (with_job(1, size="64x64"), "size"),
    "a side of nothing": (with_job(4, size=[0, 64]), "size"),
    "a side of nothing in the first job": (with_job(0, size=[0, 64]), "size"),
    "a side without end": (with_job(4, size=[64, 10**9]), f"size: .*{10**9}"),
    "a side without end in the first job": (with_job(0, size=[10**9, 64]), f"size: .*{10**9}"),
    "a size of three sides": (with_job(4, size=[64, 64, 64]), "size"),
    "a side that is true": (with_job(4, size=[True, 64]), "size"),
    "a prompt that is no text": (with_job(4, prompt=None), "prompt: None"),
    "a bad box": (with_job(4, regions=[REGION]), "red circle"),
    "expects of another kind": (with_job(4, expects={"counts": {"dog": "one"}}), "counts"),
    "a key that is not known": (with_job(4, number=4), "number"),
    "no seed": (without("seed"), "seed: missing"),
    "a line that is a list": (lambda lines: lines.__setitem__(3, []), "line 4"),
    "no jobs": (lambda lines: (lines.__delitem__(slice(1, None)), lines[0].update(jobs=0)), "jobs: 0"),
    "methods as a list": (with_head(methods=["none"]), "methods"),
    "a method as a text": (with_head(methods={"none": "none"}), "methods.none"),
    "a source as a text": (with_head(source="list"), "source: 'list'"),
    "a batch as a text": (with_head(batch="2"), "batch: '2'"),
    "a batch of nothing": (with_head(batch=0), "batch: 0"),
    "a batch that is true": (with_head(batch=True), "batch: True"),
    "seeds of nothing": (with_head(seeds=0), "seeds: 0"),
    "a seed as a float": (with_head(seed=0.5), "seed: 0.5"),
    "a version as a number": (with_head(lsregen=1), "lsregen: 1"),
    "a key too many": (with_head(more=1), "more"),
    "a config as a list": (with_method(config=[]), "methods.none.config"),
    "a model as a number": (with_method(model=3), "methods.none.model: 3"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_plan_that_nobody_could_have_made_is_refused_whatever_its_digest(tmp_path: Path, small: Small, case: str) -> None:
    edit, said = FORGED[case]
    small().write(tmp_path / "plan.jsonl")
    with pytest.raises(ConfigError, match=said):
        Plan.read(forged(tmp_path / "plan.jsonl", edit))


@pytest.mark.parametrize("change", ["edited", "cut", "longer"])
def test_a_plan_that_is_changed_while_it_is_in_use_is_not_used_any_more(tmp_path: Path, small: Small, change: str) -> None:
    path = tmp_path / "plan.jsonl"
    small().write(path)
    plan, data = Plan.read(path), path.read_bytes()
    first = plan.jobs[0]
    edited = {"edited": data.replace(b'"seed": 102', b'"seed": 999'), "cut": data[:-20], "longer": data.replace(b"100", b"1000")}
    with path.open("r+b") as file:  # in place: a file that is put in its stead leaves this one as it was
        file.truncate(0)
        file.write(edited[change])
    with pytest.raises(ConfigError, match=r"plan.jsonl, line \d+: changed while the plan was in use"):
        list(plan.jobs)
    path.unlink()
    path.write_bytes(data)
    assert Plan.read(path).jobs[0] == first


def test_a_plan_outlives_its_file(tmp_path: Path, small: Small) -> None:
    path = tmp_path / "plan.jsonl"
    small().write(path)
    plan = Plan.read(path)
    path.unlink()
    assert list(plan.jobs) == list(small().jobs)


def test_forging_alone_changes_nothing(tmp_path: Path, small: Small) -> None:
    plan = small()
    plan.write(tmp_path / "plan.jsonl")
    assert Plan.read(forged(tmp_path / "plan.jsonl", lambda lines: None)).digest == plan.digest


def test_what_a_line_shares_with_another_is_checked_in_it_too(tmp_path: Path, small: Small) -> None:
    """The second method's job differs from the first's in what is its own; a bad value there is found all the same."""
    small().write(tmp_path / "plan.jsonl")
    with pytest.raises(ConfigError, match="line 5"):
        Plan.read(forged(tmp_path / "plan.jsonl", with_job(3, seed=-1)))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"job": ' * 2000, "\\ud800", '{"job": 0, "prompt": "\\ud800"}', "\xff"])
def test_lines_that_are_no_json(tmp_path: Path, small: Small, line: str) -> None:
    path = tmp_path / "plan.jsonl"
    small().write(path)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    lines = [line.encode("latin-1") + b"\n", *rest[1:]]
    head = {key: value for key, value in json.loads(first).items() if key != "digest"}
    text = (json.dumps(head, ensure_ascii=False) + "\n").encode()
    digest = hashlib.sha256(b"".join([text, *lines])).hexdigest()
    path.write_bytes(b"".join([json.dumps({**head, "digest": digest}, ensure_ascii=False).encode() + b"\n", *lines]))
    with pytest.raises(ConfigError, match=r"plan.jsonl, line 2"):
        Plan.read(path)
    path.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(ConfigError, match="not a plan"):
        Plan.read(path)


def test_a_pipe_or_a_device_is_no_plan(tmp_path: Path) -> None:
    """None of them is opened: a pipe would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="cannot be read"):
            Plan.read(path)
