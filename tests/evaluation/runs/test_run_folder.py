"""The folder of a run: finished jobs are whole, kept once, and of one plan."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import Fault, Record, RunFolder
from lsregen.framework.errors import ConfigError

Small = Callable[..., Plan]


def record(plan: Plan, number: int, error: Fault | None = None) -> Record:
    job = plan.jobs[number]
    image = None if error else f"{number:064}"
    return Record(number, job.method, job.item, job.seed, image, error, {"seconds": 0.5})


def test_finished_jobs_are_read_back_in_order(tmp_path: Path, small: Small) -> None:
    plan = small()
    folder = RunFolder.begin(tmp_path / "run", plan).make()
    for number in (4, 1):
        folder.keep(record(plan, number), b"png")
    folder.keep(record(plan, 2, Fault("NonFiniteError", "nan")), None)
    found = RunFolder.open(tmp_path / "run")
    assert [each.job for each in found.records()] == [1, 2, 4]
    assert found.missing() == [0, 3, 5]
    assert found.failed() == [record(plan, 2, Fault("NonFiniteError", "nan"))]
    assert found.image_path(1) == tmp_path / "run/images/none/000/000001.png"
    assert found.image_path(found.plan.jobs[4]).read_bytes() == b"png"
    assert not found.image_path(2).exists()
    assert found.record_path(4) == tmp_path / "run/records/layout-guidance/000/000004.json"
    assert found.plan.digest == plan.digest


def test_what_is_decided_leaves_out_what_is_measured(small: Small) -> None:
    assert record(small(), 1).decided == {
        "job": 1,
        "method": "none",
        "item": "item-1",
        "seed": 101,
        "image": f"{1:064}",
        "error": None,
        "alone": False,
    }


def test_a_record_is_of_one_plan(tmp_path: Path, small: Small) -> None:
    """One of each method is looked at when a run begins, and each when it is read."""
    plan, other = small(), small(items=4)
    folder = RunFolder.begin(tmp_path, plan).make()
    assert json.loads(kept(folder, 0).read_text())["plan"] == plan.digest
    kept(folder, 4)
    other.write(tmp_path / "plan.jsonl")
    theirs = RunFolder.open(tmp_path)
    said = (
        rf"000000.json: a record of the plan {plan.digest[:12]}, and .*plan.jsonl is the plan {other.digest[:12]}; put that plan"
    )
    with pytest.raises(ConfigError, match=said):
        theirs.record(0)
    with pytest.raises(ConfigError, match=said):
        RunFolder.begin(tmp_path, other).make()
    folder.record_path(0).unlink()
    with pytest.raises(ConfigError, match=r"layout-guidance/000/000004.json: a record of the plan"):
        RunFolder.begin(tmp_path, other).make()


def kept(folder: RunFolder, number: int) -> Path:
    folder.keep(record(folder.plan, number), b"png")
    return folder.record_path(number)


def test_the_record_of_an_error_is_replaced(tmp_path: Path, small: Small) -> None:
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    folder.keep(record(plan, 0, Fault("NonFiniteError", "nan")), None)
    folder.keep(record(plan, 0), b"png")
    assert folder.failed() == []
    assert folder.finished() == {0}


def test_a_run_of_the_same_plan_goes_on(tmp_path: Path, small: Small) -> None:
    plan = small()
    RunFolder.begin(tmp_path, plan).make().keep(record(plan, 3), b"png")
    assert RunFolder.begin(tmp_path, small()).make().finished() == {3}


def test_the_folder_of_another_run_is_refused(tmp_path: Path, small: Small) -> None:
    RunFolder.begin(tmp_path, small()).make()
    with pytest.raises(ConfigError, match=r"it is the run of another plan, other in jobs 4 and 6, source.items; choose another"):
        RunFolder.begin(tmp_path, small(items=2)).make()


def test_pictures_without_a_plan_are_somebody_elses(tmp_path: Path, small: Small) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ConfigError, match=r"it has images or records and no plan.jsonl"):
        RunFolder.begin(tmp_path, small()).make()


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        RunFolder.open(tmp_path)


def test_a_folder_that_is_a_file(tmp_path: Path, small: Small) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="a run cannot be kept there"):
        RunFolder.begin(tmp_path / "run", small()).make()


@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_full_disk_loses_nothing_finished(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """A job forces four things to the disk: its picture and the name of that, then its record and the name of that."""
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    folder.keep(record(plan, 0), b"png")
    calls: list[int] = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"job 1 cannot be written \(No space left on device\); what was finished"):
        folder.keep(record(plan, 1), b"png")
    assert folder.finished() == {0}
    assert not list(tmp_path.rglob("*.part"))
    folder.keep(record(plan, 1), b"png")
    assert folder.finished() == {0, 1}


def test_names_are_forced_to_the_disk_with_the_files(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they must be there: no record without its picture, and nothing without the plan."""
    forced, fsync = list[Path](), os.fsync

    def noted(descriptor: int) -> None:
        forced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    plan = small()
    folder = RunFolder.begin(tmp_path / "a" / "run", plan).make()
    made, forced[:] = [str(path) for path in forced], []
    assert made == [".", "a", "a/run/.plan.jsonl.part", "a/run"]
    folder.keep(record(plan, 0), b"png")
    first, forced[:] = [str(path.relative_to("a/run")) for path in forced], []
    assert first == [
        *(".", "images", "images/none", "images/none/000/.000000.png.part", "images/none/000"),
        *(".", "records", "records/none", "records/none/000/.000000.json.part", "records/none/000"),
    ]
    folder.keep(record(plan, 1), b"png")
    assert [path.name for path in forced] == [".000001.png.part", "000", ".000001.json.part", "000"]


def test_a_record_of_no_job_of_the_plan_is_passed_over(tmp_path: Path, small: Small) -> None:
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    folder.keep(record(plan, 0), b"png")
    folder.record_path(0).with_name("000077.json").write_text("{}")
    assert [each.job for each in folder.records()] == [0]


def test_a_part_that_a_crash_left_is_no_job(tmp_path: Path, small: Small) -> None:
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    path = folder.record_path(0)
    path.parent.mkdir(parents=True)
    path.with_name(f".{path.name}.part").write_bytes(b'{"job"')
    assert folder.finished() == set()
    folder.keep(record(plan, 0), b"png")
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ("few", "method: missing"),
        ("other", "the record of another job"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, small: Small, content: str, why: str) -> None:
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    folder.keep(record(plan, 0), b"png")
    folder.keep(record(plan, 1), b"png")
    few = json.dumps({"plan": plan.digest, "job": 0})
    data = folder.record_path(1).read_bytes() if content == "other" else {"few": few}.get(content, content).encode()
    folder.record_path(0).write_bytes(data)
    with pytest.raises(
        ConfigError, match=rf"000000.json: .*{why}.*; `lsregen evaluate run .*plan.jsonl --out .*` makes it again"
    ):
        list(folder.records())
    assert folder.intact(0) is None
    assert RunFolder.begin(tmp_path, small()).make().finished() == {0, 1}


def test_a_job_is_finished_with_its_picture(tmp_path: Path, small: Small) -> None:
    """Unless its record tells of an error."""
    plan = small()
    folder = RunFolder.begin(tmp_path, plan).make()
    for number in (0, 1):
        kept(folder, number)
    folder.keep(record(plan, 2, Fault("NonFiniteError", "nan")), None)
    assert folder.finished() == {0, 1, 2}
    folder.image_path(1).unlink()
    assert (folder.finished(), folder.recorded(), folder.missing()) == ({0, 2}, {0, 1, 2}, [1, 3, 4, 5])
    assert [each.job for each in folder.records()] == [0, 2]
    folder.record_path(1).write_text("{")
    assert folder.finished() == {0, 2}


def test_two_runs_at_once_are_refused(tmp_path: Path, small: Small) -> None:
    folder, other = RunFolder.begin(tmp_path, small()).make(), RunFolder.begin(tmp_path, small()).make()
    with folder.held(), pytest.raises(ConfigError, match="another run is at work in it"), other.held():
        pass
    with other.held():
        pass


@pytest.mark.parametrize("given", [{}, {"image": "0" * 64, "error": Fault("ValueError", "no")}])
def test_a_record_has_a_picture_or_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="either the hash of an image or an error"):
        Record(0, "none", "item-0", 1, **given)
