"""One request with several settings, a sampler as an object, and what a result shows in Python."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from lsregen.framework import ConfigError, Guidance, Layout, Pipeline, Result, Term
from lsregen.samplers.ddim import DDIM
from tests.near import same_pictures
from tests.toys import Look, Measure, square

PROMPT = "a red circle and a blue square"
BOXES = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5)})
OPTIONS: dict[str, Any] = {"layout": BOXES, "guidance": "layout-guidance", "seed": [3, 4], "steps": 2}
GAMMA = "guidance.layout.gamma"


@pytest.fixture(scope="module")
def result(pipeline: Pipeline) -> Result:
    return pipeline([PROMPT] * 2, **OPTIONS)


def test_a_sweep_is_a_run_for_every_combination(pipeline: Pipeline) -> None:
    request = pipeline.request([PROMPT] * 2, **OPTIONS)
    sweep = pipeline.sweep(request, {GAMMA: [1, 30], "cfg": [2.0]})
    assert [dict(settings) for settings in sweep.settings] == [{GAMMA: 1, "cfg": 2.0}, {GAMMA: 30, "cfg": 2.0}]
    rows = sweep.rows()
    assert [(row[GAMMA], row["image"], row["seed"]) for row in rows] == [(1, 0, 3), (1, 1, 4), (30, 0, 3), (30, 1, 4)]
    assert all(row["layout, first"] > 0 for row in rows)
    by_hand = pipeline([PROMPT] * 2, **OPTIONS, sets=[f"{GAMMA}=30", "cfg=2"])
    assert same_pictures(sweep.results[1].images, by_hand.images)
    assert sweep.results[1].report.config == by_hand.report.config
    assert sweep.sheet.width >= 128
    assert sweep.sheet.height > 128
    assert repr(sweep) == "Sweep(2 runs over guidance.layout.gamma, cfg)"
    assert GAMMA in sweep._repr_html_()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no setting to vary"),
        ({GAMMA: []}, "guidance.layout.gamma: "),
        ({GAMMA: 3}, "guidance.layout.gamma: 3"),
        ({"guidance.nobody.gamma": [1]}, "no term 'nobody'"),
        ({"steps": [1, 0]}, "steps"),
        ({"seed": [1]}, "the seeds are the request's"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_the_first_image(pipeline: Pipeline, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pipeline.sweep(pipeline.request(PROMPT, **{**OPTIONS, "seed": 1}), settings)


def test_a_sweep_over_classes_that_nobody_registers_is_refused(pipeline: Pipeline) -> None:
    request = pipeline.request(PROMPT, guidance=Guidance([Term(Look(), Measure(square), name="mine")]))
    with pytest.raises(ConfigError, match="no extractor is called"):
        pipeline.sweep(request, {"steps": [1]})


def test_a_sampler_may_be_an_object(pipeline: Pipeline) -> None:
    result = pipeline(PROMPT, steps=2, sampler=DDIM(eta=0.5), seed=1)
    named = pipeline(PROMPT, steps=2, sampler={"name": "ddim", "eta": 0.5}, seed=1)
    assert result.report.config == named.report.config
    assert same_pictures(result.images, named.images)
    with pytest.raises(ConfigError, match=r"sets: 'sampler.eta=1' beside a sampler that is built"):
        pipeline.request(PROMPT, sampler=DDIM(), sets=["sampler.eta=1"])
    with pytest.raises(ConfigError, match="sampler: the class DDIM; expected an instance"):
        pipeline.request(PROMPT, sampler=DDIM)  # type: ignore[arg-type]


def test_a_result_is_one_line(result: Result) -> None:
    assert repr(result) == "Result(2 images of 64x64, seeds 3, 4, 2 steps, guided by layout)"


def test_energies_are_plain_rows(result: Result) -> None:
    rows = result.energies()
    entries = result.report.energies
    assert len(rows) == 2 * len(entries)
    assert rows[1] == {
        "image": 1, "seed": 4, "step": 0, "term": "layout", "energy": entries[0].energy[1],
        "updated": entries[0].updated[1], "strength": entries[0].strength,
    }  # fmt: skip
    ends = result.energy_ends(1)
    assert ends["layout, first"] == entries[0].energy[1]


def test_a_notebook_shows_images_with_boxes_and_energies(result: Result) -> None:
    shown: Any = result
    with Image.open(io.BytesIO(shown._repr_png_())) as sheet:
        assert sheet.size == (132, 64)
    html = shown._repr_html_()
    assert html.count("<rect") == html.count("data:image/png") == 2
    assert "red circle" in html
    assert "layout, last" in html


def test_a_progress_bar_is_shown_where_it_is_asked_for(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(PROMPT, steps=2, progress=True)
    assert "2/2" in capsys.readouterr().err
    pipeline(PROMPT, steps=2)
    assert capsys.readouterr().err == ""
