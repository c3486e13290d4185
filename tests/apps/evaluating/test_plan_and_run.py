"""The doors of the protocol: plan, run and status, and what they answer to bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import RunFolder
from lsregen.evaluation.runs.worker import Maker
from recipes.shapeworld.export_coco import export_coco
from tests.apps.conftest import PLAN

pytestmark = pytest.mark.slow

Run = Callable[..., Result]


def test_from_a_data_set_to_a_finished_run(run: Run) -> None:
    instances, captions = map(str, export_coco(Path("data"), count=3, objects=2))
    options = ("--split", "multi", "--captions", captions, "--size", "x1", "--steps", "2", "--batch", "2", "--device", "cpu")
    made = run("evaluate", "plan", "coco", instances, *options, "--guidance", "none,layout-guidance", "--out", "plan.jsonl")
    assert made.output == "3 items, 2 methods: 6 images in 4 batches\nplan.jsonl\n"
    done = run("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu")
    assert (done.exit_code, done.output) == (0, "6 images: 0 were finished before, 6 made, 0 of them failed\n")
    again = run("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu")
    assert again.output == "6 images: 6 were finished before, 0 made, 0 of them failed\n"
    assert run("evaluate", "status", "run").output == (
        "none: 3 images, 3 finished, 0 of them failed, 0 missing\n"
        "layout-guidance: 3 images, 3 finished, 0 of them failed, 0 missing\n"
    )
    assert len(list(Path("run").rglob("*.png"))) == 6


def test_what_is_left_out_is_counted_and_shown(run: Run) -> None:
    boxes = [{"prompt": "a red circle", "boxes": {"red circle": box}} for box in ([0, 0, 0.5, 0.5], [0.5, 0, 0.2, 1])]
    Path("a.jsonl").write_text("".join(json.dumps({**each, "name": f"n{i}"}) + "\n" for i, each in enumerate(boxes)))
    options = ("--guidance", "layout-guidance", "--device", "cpu", "--out", "plan.jsonl")
    assert run("evaluate", "plan", "list", "a.jsonl", *options).exit_code == 2
    dropped = run("evaluate", "plan", "list", "a.jsonl", *options, "--on-bad-box", "drop")
    assert "1 item, 1 method: 1 image in 1 batch" in dropped.output
    assert "left out: 1 x box that cannot be used" in dropped.output
    assert "left out: 1 x item without all of its boxes" in dropped.output
    assert "n1: item: without all of its boxes" in dropped.output


def test_a_limit_beyond_the_end_is_said(run: Run) -> None:
    """Of two items, one of which loses its box: what was left out of them makes them no more."""
    boxes = [{"prompt": "a red circle", "boxes": {"red circle": box}} for box in ([0, 0, 0.5, 0.5], [0.5, 0, 0.2, 1])]
    Path("a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in boxes))
    options = ("--guidance", "none", "--device", "cpu", "--out", "plan.jsonl", "--on-bad-box", "drop")
    assert "--limit 3: the source has no more" in run("evaluate", "plan", "list", "a.jsonl", *options, "--limit", "3").stderr
    assert "no more" not in run("evaluate", "plan", "list", "a.jsonl", *options, "--limit", "2").stderr
    instances, _ = export_coco(Path("data"), count=2, objects=2)
    data = json.loads(instances.read_text())
    data["annotations"] += [{**data["annotations"][0], "id": 100 + i, "iscrowd": 1} for i in range(5)]
    instances.write_text(json.dumps(data))
    said = run("evaluate", "plan", "coco", str(instances), *options, "--limit", "3")
    assert "left out: 5 x crowd" in said.stderr
    assert "--limit 3: the source has no more" in said.stderr


@pytest.mark.usefixtures("planned")
def test_failed_jobs_make_the_exit_code_1_and_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsregen.evaluation.runs import worker as maker

    def broken(self: Maker, jobs: Any) -> Any:
        return [maker.failed(job, maker.Fault("NonFiniteError", "nan"), {}) for job in jobs]

    with monkeypatch.context() as patch:
        patch.setattr(Maker, "make", broken)
        done = run("evaluate", "run", "plan.jsonl", "--out", "run")
    assert done.exit_code == 1
    assert "2 images: 0 were finished before, 2 made, 2 of them failed" in done.output
    assert "2 x NonFiniteError: nan" in done.output
    assert "2 x NonFiniteError: nan" in run("evaluate", "status", "run").output
    again = run("evaluate", "run", "plan.jsonl", "--out", "run")
    assert again.exit_code == 1
    assert again.output.startswith("2 images: 2 were finished before, 2 of them failed, 0 made, 0 of them failed\n")
    assert "2 x NonFiniteError: nan" in again.output
    retried = run("evaluate", "run", "plan.jsonl", "--out", "run", "--retry-failed", "--device", "cpu")
    assert (retried.exit_code, retried.output) == (0, "2 images: 0 were finished before, 2 made, 0 of them failed\n")


@pytest.mark.usefixtures("planned")
def test_what_is_made_again_is_said(run: Run) -> None:
    command = ("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu")
    assert run(*command).exit_code == 0
    place = RunFolder.open(Path("run"))
    place.image_path(0).unlink()
    place.record_path(1).write_text("")
    said = run("evaluate", "status", "run")
    assert said.exit_code == 2
    assert f"{place.record_path(1)}: cannot be read" in said.stderr
    assert "`lsregen evaluate run run/plan.jsonl --out run` makes it again" in said.stderr
    again = run(*command)
    assert (again.exit_code, again.stdout) == (0, "2 images: 0 were finished before, 2 made, 0 of them failed\n")
    assert f"made again, since the picture is lost: {place.image_path(0)}\n" in again.stderr
    assert f"made again, since the record is damaged: {place.record_path(1)}\n" in again.stderr
    assert "2 finished" in run("evaluate", "status", "run").stdout


@pytest.mark.usefixtures("planned")
def test_ctrl_c_keeps_what_is_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make, calls = Maker.make, list[Any]()

    def interrupted(self: Maker, jobs: Any) -> Any:
        calls.append(jobs)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return make(self, jobs)

    monkeypatch.setattr(Maker, "make", interrupted)
    done = run("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu")
    assert done.exit_code == 130
    assert "the same command goes on from there" in done.output
    assert RunFolder.open(Path("run")).missing() == [1]


def test_another_plan_in_the_same_folder(run: Run, planned: Path) -> None:
    assert run("evaluate", "run", str(planned), "--out", "run", "--device", "cpu").exit_code == 0
    assert run(*PLAN, "--guidance", "none", "--batch", "2", "--out", "plan.jsonl").exit_code == 0
    other = run("evaluate", "run", "plan.jsonl", "--out", "run")
    assert other.exit_code == 2
    assert "it is the run of another plan, other in batch 2 and 1; choose another folder" in other.output


def test_an_older_plan_is_replaced_and_nothing_else(run: Run, planned: Path) -> None:
    assert run(*PLAN, "--guidance", "none", "--seeds", "2", "--out", str(planned)).exit_code == 0
    assert len(Plan.read(planned).jobs) == 4
    Path("mine.txt").write_text("mine")
    refused = run(*PLAN, "--guidance", "none", "--out", "mine.txt")
    assert (refused.exit_code, "exists and is not a plan" in refused.output) == (2, True)
    assert Path("mine.txt").read_text() == "mine"


def test_the_plan_of_a_run_is_not_replaced(run: Run) -> None:
    begin = (*PLAN, "--guidance", "none", "--out", "r/plan.jsonl")
    assert run(*begin).exit_code == 0
    assert run("evaluate", "run", "r/plan.jsonl", "--out", "r", "--device", "cpu").exit_code == 0
    before = Path("r/plan.jsonl").read_bytes()
    refused = run(*begin, "--cfg", "1")
    assert refused.exit_code == 2
    assert "the place of the plan of a run, whose images and records stand beside it; choose another file, or" in refused.output
    assert Path("r/plan.jsonl").read_bytes() == before
    Path("r/plan.jsonl").unlink()
    assert "choose another file, or delete the run first" in run(*begin, "--cfg", "1").output
    assert not Path("r/plan.jsonl").exists()


def test_pictures_of_another_plan_are_not_taken_for_those_of_this_one(run: Run, planned: Path) -> None:
    """However another plan came into the folder."""
    assert run("evaluate", "run", str(planned), "--out", "run", "--device", "cpu").exit_code == 0
    assert run(*PLAN, "--guidance", "none", "--cfg", "1", "--out", "other.jsonl").exit_code == 0
    planned_digest, other = Plan.read(planned).digest, Plan.read(Path("other.jsonl"))
    Path("other.jsonl").rename("run/plan.jsonl")
    for command in (("run", "run/plan.jsonl", "--out", "run"), ("status", "run")):
        refused = run("evaluate", *command)
        assert refused.exit_code == 2
        assert f"a record of the plan {planned_digest[:12]}, and run/plan.jsonl is the plan {other.digest[:12]}" in refused.output
        assert "put that plan back, or run this one in another folder" in refused.output


BAD = {
    "no methods": ((), "expected either --guidance NAME,... or --methods FILE.yaml"),
    "both": (("--guidance", "none", "--methods", "a.yaml"), "and not both"),
    "twice": (("--guidance", "none,none"), "expected different names"),
    "no preset": (
        ("--guidance", "layout-guidnce"),
        "method 'layout-guidnce': guidance 'layout-guidnce': no such preset (did you mean",
    ),
    "dtype": (("--guidance", "none", "--dtype", "auto"), "a plan does not leave it to the machine"),
    "size": (("--guidance", "none", "--size", "3x"), "expected model, own, xFACTOR or WIDTHxHEIGHT"),
    "not its option": (("--guidance", "none", "--split", "single"), "split 'single': not of the source shapeworld"),
    "methods with steps": (("--methods", "a.yaml"), "--methods with --steps"),
    "method's name": (("--guidance", "a/.yaml"), "method '.yaml': expected a name that a folder may have"),
}


@pytest.mark.parametrize("case", BAD)
def test_plans_that_cannot_be_made(run: Run, case: str) -> None:
    options, why = BAD[case]
    result = run(*PLAN, *options, "--out", "plan.jsonl")
    assert result.exit_code == 2
    assert why in result.output
    assert not Path("plan.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--engine-option", "workers=2"), "--engine-option: workers: no such option for engine 'local'"),
        (("--engine-option", "workers"), "'workers': expected KEY=VALUE"),
        (("--model", "base"), "--model 'base': expected PLANNED=PLACE"),
        (("--model", "shapeworld=/there"), "the plan's models are shapeworld-base (did you mean 'shapeworld-base'?)"),
        (("--device", "nope"), "nope"),
        (("--device", "cpu", "--model", "shapeworld-base=/nowhere/at/all"), "/nowhere/at/all"),
        (("--device", "cpu", "--model", "shapeworld-base=shapeworld-large"), "shapeworld-large"),
        (("--threads", "1000000000000"), "1000000000000"),
    ],
)
def test_runs_that_cannot_begin_leave_nothing(run: Run, planned: Path, options: tuple[str, ...], why: str) -> None:
    result = run("evaluate", "run", str(planned), "--out", "run", *options)
    assert result.exit_code == 2
    assert why in result.output
    assert not Path("run").exists()


def test_a_model_that_renders_is_of_the_plan(run: Run) -> None:
    begin = (*PLAN, "--guidance", "lsregen", "--model", "shapeworld-base", "--out", "plan.jsonl")
    refused = run(*begin, "--set", "guidance.small.extractor.source.model=/nowhere")
    assert (refused.exit_code, "model '/nowhere' is neither" in refused.output, Path("plan.jsonl").exists()) == (2, True, False)
    assert run(*begin).exit_code == 0
    other = run("evaluate", "run", "plan.jsonl", "--out", "run", "--model", "gligen=/there")
    assert "the plan's models are shapeworld-base, shapeworld-gligen" in other.output
    gone = run("evaluate", "run", "plan.jsonl", "--out", "run", "--device", "cpu", "--model", "shapeworld-gligen=/there")
    moved = "method 'lsregen': guidance.small.extractor.source: --model shapeworld-gligen=/there"
    assert (gone.exit_code, f"{moved}: model '/there' is neither" in gone.output) == (2, True)
    assert not Path("run").exists()


def test_engines_that_are_not_installed(run: Run, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSREGEN_PLUGINS", "")
    for name, why in (("ray", "install it with: pip install ./plugins/lsregen-ray"), ("locl", "did you mean 'local'?")):
        result = run("evaluate", "run", str(planned), "--out", "run", "--engine", name)
        assert result.exit_code == 2
        assert why in result.output
        assert not Path("run").exists()


def test_a_run_that_is_no_run(run: Run) -> None:
    assert "expected the folder of a run" in run("evaluate", "status", ".").output
    assert "cannot be read" in run("evaluate", "run", "plan.jsonl", "--out", "run").output


def test_the_sources_of_the_help_are_those_that_are_read() -> None:
    from lsregen.apps.evaluating.plan_and_run import SOURCES as shown
    from lsregen.evaluation.sources import SOURCES

    assert set(shown) == set(SOURCES)


def test_help_imports_neither_torch_nor_ray() -> None:
    script = (
        "import sys\nfrom lsregen.apps.cli import main\nsys.argv = ['lsregen', 'evaluate', 'run', '--help']\ntry: main()\n"
        "except SystemExit: pass\nassert not {'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)
