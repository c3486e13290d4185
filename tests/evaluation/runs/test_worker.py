"""Batches made by the local engine with the model that ships, and what is said of models and devices that cannot make them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lsregen.evaluation.runs import worker as maker
from lsregen.evaluation.runs.engine_local import Local
from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.planning import MethodSpec, make_plan
from lsregen.evaluation.runs.run_folder import RunFolder
from lsregen.evaluation.runs.runner import run
from lsregen.evaluation.runs.worker import Maker, Workshop
from lsregen.evaluation.sources import Asked, read_source
from lsregen.framework.errors import ConfigError
from lsregen.framework.pipeline import report as reports
from lsregen.framework.pipeline.pipeline import Pipeline
from lsregen.framework.pipeline.request import Request
from lsregen.framework.plugins.registry import discover
from lsregen.framework.sampling.image_to_image import fingerprint

pytestmark = [pytest.mark.slow, pytest.mark.same_request]  # one plan, made twice: pictures to the last byte

CPU = Workshop("cpu")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Three scenes, two methods, two steps."""
    specs = {"none": MethodSpec(steps=2), "layout-guidance": MethodSpec("layout-guidance", steps=2)}
    return make_plan(read_source("shapeworld", Asked(count=3)), specs, batch=2, device="cpu")[0]


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder.begin(tmp_path_factory.mktemp("whole"), plan)
    run(folder, partial(Local().make, workshop=CPU))
    return folder


def test_pictures_are_those_of_the_pipeline(plan: Plan, whole: RunFolder) -> None:
    jobs = plan.jobs[3:5]
    images = Pipeline.load("shapeworld-base", device="cpu")(
        [job.prompt for job in jobs],
        layout=[job.layout for job in jobs],
        guidance="layout-guidance",
        steps=2,
        seed=[job.seed for job in jobs],
    ).images
    for job, image in zip(jobs, images, strict=True):
        with Image.open(whole.image_path(job)) as kept:
            assert fingerprint(kept) == fingerprint(image) == whole.record(job.number).image
            assert kept.info["Software"] == "lsregen"


def test_a_record_says_what_was_measured(whole: RunFolder) -> None:
    measured = whole.record(0).measured
    assert measured["seconds"] > 0
    assert measured["device"] == "cpu"
    assert measured["worker"].endswith(f":{os.getpid()}")
    assert measured["peak_bytes"] is None or measured["peak_bytes"] >= 0
    assert measured["versions"] == reports.versions()


def test_a_record_has_the_versions_that_the_picture_was_made_by(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its report, plugins included; of a job that fails, those that there are."""
    told = {"lsregen": "0.1.0", "a-plugin": "1.2"}
    made = maker.load(plan.methods["none"], CPU)
    call = made.__call__

    def reported(_: Pipeline, *given: Any, **more: Any) -> Any:
        result = call(*given, **more)
        return replace(result, report=replace(result.report, versions=told))

    monkeypatch.setattr(Pipeline, "__call__", reported)
    monkeypatch.setattr(maker, "load", lambda *_: made)
    assert [each.record.measured["versions"] for each in Maker.of(plan, CPU).make(plan.jobs[:2])] == [told, told]
    monkeypatch.setattr(Pipeline, "__call__", None)
    [fails] = Maker.of(plan, CPU).make(plan.jobs[:1])
    assert fails.record.error is not None
    assert fails.record.measured["versions"] == reports.versions()


def test_a_run_in_parts_is_the_whole_run(plan: Plan, whole: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, plan)
    for numbers in list(plan.batches())[::-1]:
        run(folder, lambda plan, batches, only=numbers: Local().make(plan, [only], CPU))  # pyright: ignore
    assert [record.decided for record in folder.records()] == [record.decided for record in whole.records()]
    assert all(folder.image_path(job).read_bytes() == whole.image_path(job).read_bytes() for job in plan.jobs)


def spoilt(plan: Plan, *numbers: int) -> Plan:
    """The same plan, in which some jobs cannot be made."""
    return replace(plan, jobs=[replace(job, prompt="a sky") if job.number in numbers else job for job in plan.jobs])


def test_one_job_that_fails_does_not_take_its_batch_with_it(plan: Plan, whole: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, plan).make()
    made = [
        each
        for numbers in plan.batches()
        for each in Maker.of(plan, CPU).make(spoilt(plan, 3).jobs[numbers.start : numbers.stop])
    ]
    records = [each.record for each in made]
    assert [record.job for record in records] == list(range(6))
    assert [record.job for record in records if record.error] == [3]
    assert (records[3].error and records[3].error.type, made[3].image) == ("PhraseError", None)
    assert [record.job for record in records if record.alone] == [3, 4]
    assert [record.decided for record in records[:3]] == [whole.record(number).decided for number in range(3)]
    for each in made:
        folder.keep(each.record, each.image)
    [alone] = Maker.of(plan, CPU).make([plan.jobs[4]])
    assert folder.record(4).image == alone.record.image
    assert folder.record(4).alone
    assert not alone.record.alone


class Unspeakable(Exception):
    """An error whose own text fails."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Theirs(BaseException):
    """As some libraries end their threads."""


RAISED = {
    "exit": (lambda: sys.exit(0), "SystemExit", "exit code 0"),
    "exit without a code": (lambda: sys.exit(), "SystemExit", "exit code None"),
    "exit with a text": (lambda: sys.exit("good bye"), "SystemExit", "good bye"),
    "not an Exception": (lambda: throw(Theirs("a thread")), "Theirs", "a thread"),
    "without words": (lambda: throw(Unspeakable()), "Unspeakable", "no message"),
    "a generator's end": (lambda: throw(GeneratorExit()), "GeneratorExit", "no message"),
}


def throw(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("case", RAISED)
def test_what_a_plugin_raises_is_the_error_of_its_job(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Whatever it is; the others of its batch, and the rest of the plan, are made."""
    raised, kind, said = RAISED[case]
    call = Pipeline.__call__

    def spoilt_by_a_plugin(self: Pipeline, request: Request) -> Any:
        if plan.jobs[1].seed in request.seeds:
            raised()
        return call(self, request)

    monkeypatch.setattr(Pipeline, "__call__", spoilt_by_a_plugin)
    folder = RunFolder.begin(tmp_path / "run", plan)
    outcome = run(folder, partial(Local().make, workshop=CPU))
    assert (outcome.made, folder.missing()) == (6, [])
    errors = [record.error for record in folder.failed()]
    assert [record.job for record in folder.failed()] == [1, 4]  # of both methods
    assert all(error is not None and error.type == kind and said in error.message for error in errors)


def test_ctrl_c_is_nobodys_error(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "__call__", lambda *_, **__: throw(KeyboardInterrupt()))
    folder = RunFolder.begin(tmp_path / "run", plan)
    with pytest.raises(KeyboardInterrupt):
        run(folder, partial(Local().make, workshop=CPU))
    assert folder.finished() == set()


def test_which_jobs_are_made_alone_is_the_same_in_every_run(plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, plan)
    engine = lambda _, batches: Local().make(spoilt(plan, 3), batches, CPU)  # pyright: ignore  # noqa: E731
    assert [record.job for record in run(folder, engine).failed] == [3]
    before = [record.decided for record in folder.records()]
    folder.record_path(4).unlink()
    assert run(folder, engine).unlike == []
    assert [record.decided for record in folder.records()] == before


def test_what_was_made_alone_is_not_compared_with_what_was_made_together(plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, plan)
    run(folder, lambda _, batches: Local().make(spoilt(plan, 3), batches, CPU))
    again = run(folder, partial(Local().make, workshop=CPU), retry_failed=True)
    assert (again.made, again.failed, again.unlike) == (1, [], [])
    assert [folder.record(number).alone for number in (3, 4)] == [False, True]


class Breaking:
    """A pipeline that breaks its device when it comes to a seed; what was asked of it before and after."""

    def __init__(self, pipeline: Pipeline, seed: int, *, most: int = 8) -> None:
        self.model, self.pipeline, self.seed, self.most = pipeline.model, pipeline, seed, most
        self.asked: list[list[int]] = []
        self.broken = False

    def resolve(self, *args: Any) -> Any:
        return self.pipeline.resolve(*args)

    def request(self, prompts: Any, **given: Any) -> Any:
        return self.pipeline.request(prompts, **given)

    def __call__(self, request: Request) -> Any:
        self.asked.append(list(request.seeds))
        if len(request.seeds) > self.most:
            raise torch.OutOfMemoryError("not enough")
        if self.seed in request.seeds:
            self.broken = True
            raise RuntimeError("CUDA error: device-side assert triggered\nand much advice")
        return self.pipeline(request)


@pytest.fixture
def breaking(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Breaking]:
    def make(**given: Any) -> Breaking:
        found = Breaking(maker.load(plan.methods["none"], CPU), **given)
        monkeypatch.setattr(maker, "load", lambda *_: found)
        monkeypatch.setattr(maker, "answers", lambda device: not found.broken)
        return found

    return make


def test_a_batch_that_does_not_fit_into_memory_is_made_one_by_one(plan: Plan, breaking: Callable[..., Breaking]) -> None:
    found = breaking(seed=-1, most=1)
    made = Maker.of(plan, CPU).make(plan.jobs[0:2])
    assert [(each.record.error, each.record.alone) for each in made] == [(None, True)] * 2
    assert found.asked == [[0, 1], [0], [1]]


@pytest.mark.long
def test_a_broken_device_ends_the_run_behind_its_batch(plan: Plan, tmp_path: Path, breaking: Callable[..., Breaking]) -> None:
    found, folder = breaking(seed=1), RunFolder.begin(tmp_path, plan)
    engine = partial(Local().make, workshop=CPU)
    with pytest.raises(
        ConfigError, match=r"jobs 0 to 1 broke the device \(CUDA error: device-side assert triggered\): .* the others$"
    ):
        run(folder, engine)
    assert found.asked == [[0, 1]]
    assert [(record.job, record.alone) for record in folder.failed()] == [(0, False), (1, False)]
    found.broken, found.seed = False, -1
    assert run(folder, engine).made == 4


@pytest.mark.long
def test_a_device_that_breaks_while_jobs_are_made_alone(plan: Plan, breaking: Callable[..., Breaking]) -> None:
    found = breaking(seed=1, most=2)
    made = Maker.of(plan, CPU).make(plan.jobs[0:3])
    assert found.asked == [[0, 1, 2], [0], [1]]
    assert [(each.record.job, each.record.item, each.record.error is None, each.broken) for each in made] == [
        (0, "shapeworld-0", True, False),
        (1, "shapeworld-1", False, True),
        (2, "shapeworld-2", False, True),
    ]


def test_a_device_answers() -> None:
    assert maker.answers(torch.device("cpu"))
    assert not maker.answers(torch.device("meta"))  # which computes nothing


def test_weights_that_are_not_the_plans_are_refused(plan: Plan) -> None:
    method = plan.methods["none"]
    parts = method.described["components"]
    other = {**method.described, "components": {**parts, "vae": {**parts["vae"], "sha256": {"a.safetensors": "0" * 64}}}}
    changed = replace(plan, methods={"none": replace(method, described=other)})
    with pytest.raises(ConfigError, match=r"model 'shapeworld-base': not the weights that the plan was made with .other in vae."):
        Maker.of(changed, CPU).make(plan.jobs[:1])


@pytest.fixture(scope="module")
def of_two_models() -> Plan:
    """One scene, and a method that renders with a model of its own."""
    spec = MethodSpec("lsregen", model="shapeworld-base", steps=2, sets=("guidance.small.extractor.source.steps=2",))
    return make_plan(read_source("shapeworld", Asked(count=1)), {"ours": spec}, device="cpu")[0]


def other_weights(described: dict[str, Any]) -> dict[str, Any]:
    parts = described["components"]
    return {**described, "components": {**parts, "unet": {**parts["unet"], "sha256": {"a.safetensors": "0" * 64}}}}


def test_a_model_that_renders_is_compared_too(of_two_models: Plan) -> None:
    method = of_two_models.methods["ours"]
    changed = replace(method, models={name: other_weights(each) for name, each in method.models.items()})
    with pytest.raises(ConfigError, match=r"model 'shapeworld-gligen': not the weights .* .other in unet."):
        Maker.of(replace(of_two_models, methods={"ours": changed}), CPU).make(of_two_models.jobs)


def test_a_model_that_renders_may_be_elsewhere(of_two_models: Plan, tmp_path: Path) -> None:
    [here] = Maker.of(of_two_models, CPU).make(of_two_models.jobs)
    place = tmp_path / "elsewhere"
    place.symlink_to(discover().embedded_models()["shapeworld-gligen"][0])
    [there] = Maker.of(of_two_models, Workshop("cpu", models={"shapeworld-gligen": str(place)})).make(of_two_models.jobs)
    assert here.record.error is None
    assert there.record.image == here.record.image
    with pytest.raises(ConfigError, match=r"model 'shapeworld-large': not the weights that the plan was made with"):
        Maker.of(of_two_models, Workshop("cpu", models={"shapeworld-gligen": "shapeworld-large"})).make(of_two_models.jobs)


def test_a_model_that_segments_is_compared_too() -> None:
    specs = {"it": MethodSpec("segmenter@shapeworld", steps=2)}
    plan, _ = make_plan(read_source("shapeworld", Asked(count=1)), specs, device="cpu")
    method = plan.methods["it"]
    other = {"shapeworld-segmenter": {"name": "other", "sha256": {"model.safetensors": "0" * 64}}}
    with pytest.raises(ConfigError, match=r"model 'shapeworld-segmenter': not the weights .* .other in sha256."):
        Maker.of(replace(plan, methods={"it": replace(method, models=other)}), CPU).make(plan.jobs)


def test_a_model_may_be_elsewhere(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    load = Pipeline.load
    monkeypatch.setattr(Pipeline, "load", lambda model, **options: asked.append(model) or load("shapeworld-base", **options))
    Maker.of(plan, Workshop("cpu", models={"shapeworld-base": "/there"})).make(plan.jobs[:1])
    assert asked == ["/there"]


def test_a_model_that_is_not_there_stops_the_run(plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path / "run", plan)
    workshop = Workshop("cpu", models={"shapeworld-base": str(tmp_path / "nothing")})
    with pytest.raises(ConfigError, match="nothing"):
        run(folder, partial(Local().make, workshop=workshop))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_small_files(whole: RunFolder) -> None:
    data = whole.image_path(0).read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))
