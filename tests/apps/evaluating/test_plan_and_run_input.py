"""Bad input to `lsregen evaluate plan` and `run`: one line that says what is wrong, and no traceback."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import Record, RunFolder
from lsregen.evaluation.runs.worker import Made, Maker
from recipes.shapeworld.export_coco import export_coco

Run = Callable[..., Result]
INSTANCES = "world/annotations/instances_eval.json"
NONE = ("--guidance", "none", "--size", "x1", "--steps", "2", "--device", "cpu", "--out", "plan.jsonl")


@pytest.fixture(autouse=True)
def world(run: Run) -> None:
    """Two images of two objects each, in the folder that `run` works in."""
    export_coco(Path("world"), count=2, objects=2)


def refused(result: Result, why: str) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    [said] = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert why in said
    assert result.output.splitlines()[-1] == said, "more than a line"


def edited(**changes: Any) -> None:
    Path("a.json").write_text(json.dumps({**json.loads(Path(INSTANCES).read_text()), **changes}))


def annotation(**changes: Any) -> list[dict[str, Any]]:
    return [{**each, **changes} for each in json.loads(Path(INSTANCES).read_text())["annotations"]]


FILES: dict[str, tuple[Callable[[], Any], tuple[str, ...], str]] = {
    "no file": (lambda: None, (), "a.json: cannot be read (no such file"),
    "no JSON": (lambda: Path("a.json").write_text("images"), (), "a.json: not JSON"),
    "no COCO": (lambda: Path("a.json").write_text('{"a": 1}'), (), "a.json: 'images' is missing; expected images, annotations"),
    "no annotations": (lambda: edited(annotations=None), (), "'annotations' is missing"),
    "images that are missing": (lambda: edited(images=[]), (), "annotation 1: image_id 0 is none of the 0 images of the file"),
    "unknown categories": (lambda: edited(annotations=annotation(category_id=99)), (), "category_id 99 is none of the file's"),
    "no categories": (lambda: edited(categories=[]), (), "category_id "),
    "an empty split": (lambda: edited(), ("--split", "single"), "a.json: no items (split single)"),
    "captions of others": (
        lambda: edited(),
        ("--captions", "others.jsonl"),
        "of other images are 2 of the 3 captions, the first",
    ),
    "no caption": (
        lambda: edited(),
        ("--captions", "one.jsonl"),
        "one.jsonl: no caption of image 1, which is in the split 'all'",
    ),
    "no captions": (lambda: edited(), ("--captions", "there.jsonl"), "there.jsonl: cannot be read"),
    "a bad box": (lambda: edited(annotations=annotation(bbox=[0, 0, 0, 0])), (), "--on-bad-box drop"),
}


@pytest.mark.parametrize("case", FILES)
def test_annotations_and_captions_that_cannot_be_used(run: Run, case: str) -> None:
    write, options, why = FILES[case]
    Path("one.jsonl").write_text('{"id": 0, "caption": "a shape"}\n')
    Path("others.jsonl").write_text("".join(json.dumps({"id": i, "caption": "a"}) + "\n" for i in (0, 7, 8)))
    write()
    refused(run("evaluate", "plan", "coco", "a.json", *options, *NONE), why)
    assert not Path("plan.jsonl").exists()


METHODS = {
    "key": (
        "methods: {a: {guidance: none, stesp: 3}}",
        "m.yaml: methods.a.stesp: no such option for a method (did you mean 'steps'?)",
    ),
    "top key": ("methods: {a: {}}\nseeds: 3", "m.yaml: 'seeds': no such key; expected a mapping 'methods' alone"),
    "name": ("methods: {a/b: {}}", "method 'a/b': expected a name that a folder may have"),
}


@pytest.mark.parametrize("case", METHODS)
def test_methods_that_cannot_be_used(run: Run, case: str) -> None:
    text, why = METHODS[case]
    Path("m.yaml").write_text(text)
    refused(run("evaluate", "plan", "coco", INSTANCES, "--methods", "m.yaml", "--out", "plan.jsonl"), why)
    refused(
        run("evaluate", "plan", "coco", INSTANCES, "--methods", "m.yaml", "--dtype", "fp16", "--out", "plan.jsonl"),
        "--methods with --dtype: the methods say that themselves",
    )


@pytest.fixture
def planned(run: Run) -> Path:
    assert run("evaluate", "plan", "coco", INSTANCES, *NONE).exit_code == 0
    return Path("plan.jsonl")


def of_another_version(head: dict[str, Any]) -> str:
    return json.dumps({**head, "version": 1, "lsregen": "0.0.1"})


def of_another_lsregen(head: dict[str, Any]) -> str:
    """As that one would have written it."""
    kept = {**{key: value for key, value in head.items() if key != "digest"}, "lsregen": "0.0.1"}
    lines = "".join(Path("plan.jsonl").read_text().splitlines(keepends=True)[1:])
    digest = hashlib.sha256((json.dumps(kept, ensure_ascii=False) + "\n" + lines).encode()).hexdigest()
    return json.dumps({**kept, "digest": digest}, ensure_ascii=False)


def of_another_method(head: dict[str, Any], name: str) -> str:
    """Under another name, in the jobs too, and with the digest of that."""
    _, *jobs = Path("plan.jsonl").read_text().splitlines()
    jobs = [json.dumps({**json.loads(job), "method": name}, ensure_ascii=False) + "\n" for job in jobs]
    kept = {key: value for key, value in head.items() if key != "digest"} | {"methods": {name: head["methods"]["none"]}}
    digest = hashlib.sha256((json.dumps(kept, ensure_ascii=False) + "\n" + "".join(jobs)).encode()).hexdigest()
    return json.dumps({**kept, "digest": digest}, ensure_ascii=False) + "\n" + "".join(jobs).rstrip("\n")


def of_another_config(head: dict[str, Any]) -> str:
    head["methods"]["none"]["config"]["steps"] = 3
    return json.dumps(head, ensure_ascii=False)


PLANS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "version": (of_another_version, "plan.jsonl: a plan of version 1, made by lsregen 0.0.1; this one reads version 2"),
    "lsregen": (of_another_lsregen, "the plan was made by lsregen 0.0.1, and this is "),
    "config": (of_another_config, "plan.jsonl: changed or cut off since it was made"),
    "something else": (lambda head: "{}", "plan.jsonl: not a plan"),
    "a method above": (lambda head: of_another_method(head, "../../evil"), "'../../evil'"),
    "a method elsewhere": (lambda head: of_another_method(head, f"{Path.cwd()}/evil"), "/evil'"),
}


@pytest.mark.parametrize("case", PLANS)
def test_plans_that_are_not_run(run: Run, planned: Path, case: str) -> None:
    write, why = PLANS[case]
    first, *rest = planned.read_text().splitlines(keepends=True)
    text = write(json.loads(first)) + "\n"
    planned.write_text(text if text.count("\n") > 1 else text + "".join(rest))
    before = sorted(Path("..").rglob("*"))
    refused(run("evaluate", "run", str(planned), "--out", "run", "--device", "cpu"), why)
    assert sorted(Path("..").rglob("*")) == before
    assert not Path("run").exists()


def made(self: Maker, jobs: Sequence[Job]) -> list[Made]:
    return [Made(Record(job.number, job.method, job.item, job.seed, "0" * 64), b"png") for job in jobs]


def test_the_folder_of_another_run(run: Run, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maker, "make", made)
    assert run("evaluate", "run", str(planned), "--out", "run").exit_code == 0
    assert run("evaluate", "plan", "coco", INSTANCES, *NONE, "--seeds", "2").exit_code == 0
    refused(run("evaluate", "run", str(planned), "--out", "run"), "folder run: it is the run of another plan, other in seeds")
    refused(run("evaluate", "run", str(planned), "--out", "world/images/000000000000.png"), "is not a folder")


def full(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A disk that is full after so many writes."""
    left, fsync = iter(range(after)), os.fsync

    def filled(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", filled)


def test_a_full_disk(run: Run, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Plan.read(planned).digest
    monkeypatch.setattr(Maker, "make", made)
    with monkeypatch.context() as patch:
        full(patch, 0)
        refused(run("evaluate", "plan", "coco", INSTANCES, *NONE, "--seeds", "2"), "cannot be written (No space left on device)")
    assert Plan.read(planned).digest == before
    with monkeypatch.context() as patch:
        full(patch, 15)  # the folder, the plan, job 0, and the picture of job 1
        result = run("evaluate", "run", str(planned), "--out", "run")
        refused(result, "job 1 cannot be written (No space left on device); what was finished before is kept")
    assert RunFolder.open(Path("run")).finished() == {0}
    assert run("evaluate", "run", str(planned), "--out", "run").output.startswith("2 images: 1 was finished before, 1 made")
