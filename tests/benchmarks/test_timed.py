"""The timed benchmarks do what they say, on networks small enough to be quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import image, step
from benchmarks.clock import Timing, alternating, quotient
from benchmarks.records import Record
from benchmarks.subjects import Subject, plugins, with_random_weights
from lsregen.framework import Pipeline

pytestmark = pytest.mark.slow


def test_work_alternates_after_one_round_to_warm_up() -> None:
    done: list[str] = []

    def work(name: str) -> Callable[[], None]:
        return lambda: done.append(name)

    timings = alternating({name: work(name) for name in "ab"}, 2, torch.device("cpu"))
    assert done == list("abbaab")  # every other round goes backward
    assert [len(timings[name].seconds) for name in "ab"] == [2, 2]
    assert all(timing.median >= 0 for timing in timings.values())


def test_a_ratio_is_the_median_over_rounds_and_not_that_of_medians() -> None:
    one, other = Timing([3.0, 40.0, 5.0]), Timing([1.0, 20.0, 2.0])  # the machine was slow in the second round
    assert quotient(one, other) == 2.5
    assert one.spread == 40 / 3


@pytest.mark.long
def test_a_step_is_timed_in_every_way(narrow: Subject) -> None:
    cpu = torch.device("cpu")
    rows = step.rows(narrow, alternating(step.pieces(narrow, cpu), 1, cpu))
    assert {row.unit for row in rows} == {"s", ""}
    assert all(row.reached > 0 for row in rows)
    assert sum(row.goal is not None for row in rows) == 3


def test_a_timed_step_makes_its_guided_pass_every_time(narrow: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_random_weights(narrow, torch.device("cpu"))
    work = step.one_step(model, "layout-guidance", step.ONE_UPDATE)
    passes: list[object] = []
    observe = model.unet.observe
    monkeypatch.setattr(model.unet, "observe", lambda *args, **options: passes.append(1) or observe(*args, **options))
    for _ in range(3):
        work()
    assert len(passes) == 3


def test_diffusers_makes_as_many_passes_for_an_image(narrow: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    reference = image.Reference
    monkeypatch.setattr(reference, "gradient", lambda self, z, t: made.append("gradient") or torch.zeros_like(z))
    monkeypatch.setattr(reference, "predict", lambda self, z, t: made.append("predict") or z)
    image.of_diffusers(narrow, with_random_weights(narrow, torch.device("cpu")), repeats=1)
    assert made.count("gradient") == made.count("predict") == 2 * 50


def test_a_preset_is_timed_on_the_model_that_it_names() -> None:
    found = image.by_model(["gligen", "img2img", "lsregen", "syngen"], "a model")
    assert found == {"shapeworld-gligen": ["gligen"], "shapeworld-large": ["img2img", "lsregen"], "a model": ["syngen"]}


@pytest.mark.long
def test_random_weights_are_timed_by_batch_and_against_diffusers(narrow: Subject) -> None:
    pipeline = Pipeline(with_random_weights(narrow, torch.device("cpu")), plugins())
    rows = image.by_batch(pipeline, [2], 1)
    assert [row.quantity for row in rows] == [f"{name}, batch 2, images per second" for name in ("plain", "layout-guidance")]
    one, quotient = image.against_diffusers(narrow, pipeline, rows[1], 1)
    assert one.quantity == "diffusers' Attend-and-Excite, one at a time, images per second"
    assert quotient.reached == rows[1].reached / one.reached > 0
    assert (quotient.goal, quotient.met) == (5.0, quotient.reached >= 5)


@pytest.mark.long
def test_images_are_timed_by_preset_and_by_batch(tmp_path: Path) -> None:
    options = ["--preset", "layout-guidance", "--batch", "1", "--repeats", "1", "--device", "cpu", "--note", "a test"]
    result = CliRunner().invoke(image.main, [*options, "--json", str(tmp_path / "image.json")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = Record.read(tmp_path / "image.json")
    assert record.note == "a test"
    assert [row.quantity for row in record.rows] == [
        "layout-guidance, an image",
        "plain, 50 steps, an image",
        "layout-guidance / plain",
        "plain, batch 1, images per second",
        "layout-guidance, batch 1, images per second",
    ]
    assert record.rows[2].reached > 1
