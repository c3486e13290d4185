"""Whole runs on the embedded model. Its weights may be trained anew: nothing here depends on what the pictures show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import (
    ConfigError,
    Guidance,
    Layout,
    LayoutError,
    NonFiniteError,
    PhraseError,
    Pipeline,
    Result,
    Schedule,
    StepReport,
    Term,
)
from lsregen.framework.config.presets import load_preset
from lsregen.framework.config.resolve import validate
from lsregen.framework.events import LogEntry
from lsregen.framework.sampling.image_to_image import to_pil
from lsregen.samplers.ddim import DDIM
from tests.near import TRAJECTORY, near, relative, same_pictures

pytestmark = pytest.mark.slow

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
FIXED = ("guidance.layout.stop_below=null", "guidance.layout.stop_forever=false", "guidance.layout.repeats=2")


@pytest.fixture
def walk(pipeline: Pipeline) -> Callable[..., tuple[Result, list[StepReport]]]:
    """Run, and return what every step reported beside the result."""

    def run(prompt: str | Sequence[str] = PROMPT, **options: Any) -> tuple[Result, list[StepReport]]:
        reports: list[StepReport] = []
        return pipeline(prompt, **{"steps": 3, "on_step": reports.append, **options}), reports

    return run


@pytest.mark.same_request
def test_the_same_seed_makes_the_same_image_and_another_one_another(pipeline: Pipeline) -> None:
    first, again, other = (pipeline(PROMPT, steps=2, seed=seed) for seed in (3, 3, 4))
    assert first.image.tobytes() == again.image.tobytes()
    assert not same_pictures(first.images, other.images)


def test_without_guidance_a_run_is_the_plain_sampler(pipeline: Pipeline, walk: Any) -> None:
    model, sampler = pipeline.model, DDIM()
    steps = sampler.schedule(model.noise_schedule, 3)
    denoiser = model.bind([PROMPT], [""], [Layout()], cfg=model.default_cfg, count=3)
    z = torch.randn((1, *model.latent_shape(model.default_size)), generator=torch.Generator().manual_seed(7))
    for step in steps:
        z = sampler.step(z, denoiser.predict(z, step), step, None)
    result, reports = walk(seed=7, layout=LAYOUT)
    assert relative(reports[-1].z_next, z) <= TRAJECTORY
    with torch.no_grad():
        assert same_pictures(to_pil(model.decode(z)), result.images)


@pytest.mark.parametrize("guidance", [None, "layout-guidance"])
@pytest.mark.parametrize("sampler", ["ddim", {"name": "ddim", "eta": 0.7}, "ddpm"])
def test_an_image_does_not_depend_on_its_batch(walk: Any, guidance: str | None, sampler: Any) -> None:
    options = {"layout": LAYOUT, "guidance": guidance, "sampler": sampler, "sets": FIXED if guidance else ()}
    batch, in_batch = walk(seed=[4, 9], prompt=[PROMPT, PROMPT], **options)
    single, alone = walk(seed=9, **options)
    assert relative(in_batch[-1].z_next[1:], alone[-1].z_next) < 1e-4
    pixels = [np.asarray(image).astype(int) for image in (batch.images[1], single.image)]
    assert abs(pixels[0] - pixels[1]).max() <= 1


def test_a_stochastic_sampler_draws_other_noise_for_another_seed(walk: Any) -> None:
    _, plain = walk(seed=1)
    _, noisy = walk(seed=1, sampler={"name": "ddim", "eta": 1})
    assert near(plain[0].z, noisy[0].z)
    assert not torch.allclose(plain[-1].z_next, noisy[-1].z_next)


def test_count_makes_images_with_seeds_that_count_up(pipeline: Pipeline) -> None:
    result = pipeline(PROMPT, steps=1, seed=5, count=2)
    assert result.report.seeds == (5, 6)
    assert len(result.images) == 2


def test_prompts_of_one_batch_may_have_layouts_of_their_own(pipeline: Pipeline) -> None:
    prompts = ["a red circle", PROMPT]
    layouts = [Layout.from_boxes({"red circle": (0, 0, 0.5, 0.5)}), LAYOUT]
    report = pipeline(prompts, layout=layouts, guidance="layout-guidance", steps=1, seed=[1, 1], sets=FIXED).report
    assert report.prompts == tuple(prompts)
    assert report.layouts == tuple(layouts)
    assert all(len(entry.energy) == 2 for entry in report.energies)


def test_guidance_by_name_file_mapping_or_object_makes_one_and_the_same_image(pipeline: Pipeline, tmp_path: Path) -> None:
    preset = load_preset("layout-guidance")
    file = tmp_path / "mine.yaml"
    file.write_text(validate(preset, pipeline.plugins).to_yaml())
    schedule = Schedule(30, "one_minus_alpha_bar", until=0.2, repeats=5, stop_below=0.2, stop_forever=True)
    by_hand = Guidance([Term(CrossAttention(layers=("mid", "first_up")), BoxEnergy(), schedule, "layout")])
    results = [
        pipeline(PROMPT, layout=LAYOUT, guidance=guidance, steps=3, seed=2)
        for guidance in ("layout-guidance", preset, file, str(file), by_hand)
    ]
    assert all(same_pictures(result.images, results[0].images) for result in results)
    assert all(result.report.config == results[0].report.config for result in results)
    assert not same_pictures(results[0].images, pipeline(PROMPT, layout=LAYOUT, guidance="none", steps=3, seed=2).images)


def test_guidance_built_by_hand_appears_in_the_report(pipeline: Pipeline) -> None:
    guidance = Guidance([Term(CrossAttention(layers=("mid",)), BoxEnergy(), Schedule(gamma=2), "mine")])
    report = pipeline(PROMPT, layout=LAYOUT, guidance=guidance, steps=2, seed=0).report
    assert report.config["guidance"]["mine"]["extractor"]["layers"] == ["mid"]
    assert {(entry.step, entry.term, entry.updated) for entry in report.energies} == {(0, "mine", (True,)), (1, "mine", (True,))}
    assert report.guided_passes == 2


def test_a_term_or_a_list_of_terms_is_guidance(pipeline: Pipeline) -> None:
    whole = pipeline.resolve("layout-guidance")[1]
    assert pipeline.resolve(whole.terms[0])[1] == pipeline.resolve(list(whole.terms))[1] == whole


def test_guidances_add_up(pipeline: Pipeline) -> None:
    one = Guidance([Term(CrossAttention(), BoxEnergy(), Schedule(gamma=2), "one")])
    report = pipeline(PROMPT, layout=LAYOUT, guidance=one + one, steps=1, seed=0).report
    assert list(report.config["guidance"]) == ["one", "one#2"]
    assert report.guided_passes == 1, "both look at one pass"


def test_guidance_lowers_its_energy(pipeline: Pipeline) -> None:
    sets = ("guidance.layout.stop_below=null", "guidance.layout.gamma=3")
    report = pipeline(PROMPT, layout=LAYOUT, guidance="layout-guidance", steps=5, seed=[0, 1], count=2, sets=sets).report
    first, *_, last = report.energies
    assert len(report.energies) == 5
    assert all(after < before for before, after in zip(first.energy, last.energy, strict=True))


def test_settings_go_over_arguments_and_arguments_over_the_preset(pipeline: Pipeline) -> None:
    config, _ = pipeline.resolve("layout-guidance", steps=9, cfg=2, sampler="ddpm", sets=["steps=4", "guidance.layout.gamma=40"])
    assert (config.steps, config.cfg, config.sampler_name, config.terms[0].schedule.gamma) == (4, 2.0, "ddpm", 40.0)
    config, guidance = pipeline.resolve("layout-guidance")
    assert config.steps == 50
    assert guidance.terms[0].schedule.gamma == 30


def test_cfg_is_the_models_unless_something_says_otherwise(pipeline: Pipeline) -> None:
    assert pipeline.resolve(None)[0].cfg == pipeline.model.default_cfg
    assert pipeline.resolve({"cfg": 3})[0].cfg == 3
    assert pipeline.resolve({"cfg": 3}, cfg=1.5)[0].cfg == 1.5


def test_the_seed_of_a_configuration_counts_unless_one_is_given(pipeline: Pipeline) -> None:
    assert pipeline(PROMPT, guidance={"seed": 8}, steps=1).report.seeds == (8,)
    assert pipeline(PROMPT, guidance={"seed": 8}, steps=1, seed=3).report.seeds == (3,)


def test_pictures_need_not_be_square(pipeline: Pipeline) -> None:
    result = pipeline(PROMPT, layout=LAYOUT, guidance="semantic-layout", steps=2, seed=0, size=(64, 32), trace=1)
    assert result.image.size == (64, 32)
    assert result.report.size == (64, 32)
    assert next(iter(result.attention.values())).shape[-2:] == (4, 8)


def test_a_trace_holds_a_map_of_every_phrase_at_some_steps(walk: Any) -> None:
    result, reports = walk(layout=LAYOUT, steps=5, trace=3, count=2)
    assert sorted(result.attention) == [0, 2, 4]
    assert {tuple(maps.shape[:2]) for maps in result.attention.values()} == {(2, 2)}
    assert all(bool(torch.isfinite(maps).all()) and bool((maps >= 0).all()) for maps in result.attention.values())
    assert len(reports) == 5, "the caller's observer sees every step too"


def test_tracing_changes_no_picture_and_needs_phrases(pipeline: Pipeline) -> None:
    traced = pipeline(PROMPT, layout=LAYOUT, guidance="layout-guidance", steps=2, seed=0, trace=2)
    plain = pipeline(PROMPT, layout=LAYOUT, guidance="layout-guidance", steps=2, seed=0)
    assert same_pictures(traced.images, plain.images)
    assert not pipeline(PROMPT, steps=1, seed=0, trace=2).attention


def test_an_observer_may_stop_the_run(pipeline: Pipeline) -> None:
    seen: list[StepReport] = []

    def stop(report: StepReport) -> bool:
        seen.append(report)
        return report.step.index < 1

    result = pipeline(PROMPT, steps=10, seed=0, on_step=stop)
    assert [report.step.index for report in seen] == [0, 1]
    assert result.report.steps_made == 2
    assert result.image.size == (64, 64)


def test_a_report_names_the_packages_of_the_plugins_used(pipeline: Pipeline) -> None:
    tables = pipeline.plugins
    theirs = replace(tables.samplers["ddpm"], package="acme-walk", version="1.2")
    mixed = Pipeline(pipeline.model, replace(tables, samplers={**tables.samplers, "ddpm": theirs}))
    assert mixed(PROMPT, steps=1, sampler="ddpm").report.versions["acme-walk"] == "1.2"
    assert "acme-walk" not in mixed(PROMPT, steps=1).report.versions


def test_a_report_is_json_and_its_configuration_makes_the_image_again(pipeline: Pipeline) -> None:
    options = {"layout": LAYOUT, "guidance": "semantic-layout", "steps": 2, "sampler": "ddpm", "cfg": 2.0}
    result = pipeline(PROMPT, seed=11, **options)
    saved = json.loads(json.dumps(result.report.as_dict(), allow_nan=False))
    assert saved["seeds"] == [11]
    assert saved["size"] == [64, 64]
    assert saved["model"]["name"] == "shapeworld-base"
    assert saved["energies"][0].keys() == {"step", "term", "energy", "updated", "strength"}
    assert set(saved["seconds"]) == {"prepare", "sample", "decode"}
    assert Layout.from_json(saved["layouts"][0]) == LAYOUT
    again = pipeline(saved["prompts"][0], layout=Layout.from_json(saved["layouts"][0]), guidance=saved["config"])
    assert same_pictures(result.images, again.images)
    assert again.report.config == result.report.config


def test_a_sample_that_was_not_measured_is_none_in_json(pipeline: Pipeline) -> None:
    first = pipeline.resolve("layout-guidance")[1].terms[0]
    term = replace(first, schedule=replace(first.schedule, stop_below=0.5, repeats=4))
    result = pipeline(PROMPT, layout=LAYOUT, guidance=term, steps=4, count=6, seed=0)
    measured = [value for entry in result.report.energies for value in entry.energy]
    saved = json.loads(json.dumps(result.report.as_dict(), allow_nan=False))
    assert [value for entry in saved["energies"] for value in entry["energy"]] == [
        None if isnan(value) else value for value in measured
    ]
    odd = replace(
        result.report,
        energies=(LogEntry(0, "a", (float("nan"), float("inf"), 1.0), (False, False, True), 1.0),),
        config={"limits": {0.5: (float("inf"), Path("x"))}, "rule": isnan},
        model={"scale": float("nan")},
        models={"other": {"scale": -float("inf")}},
    )
    saved = json.loads(json.dumps(odd.as_dict(), allow_nan=False))
    assert saved["energies"][0]["energy"] == [None, None, 1.0]
    assert saved["config"]["limits"] == {"0.5": [None, "x"]}
    assert "isnan" in saved["config"]["rule"]
    assert (saved["model"], saved["models"]["other"]) == ({"scale": None}, {"scale": None})


# What is wrong


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"guidance": "layuot-guidance"}, ConfigError, "did you mean 'layout-guidance'"),
        ({"guidance": Path("missing.yaml")}, ConfigError, "configuration missing.yaml: cannot be read"),
        ({"sampler": "euler"}, ConfigError, "sampler: no sampler is called 'euler'"),
        ({"steps": 0}, ConfigError, "steps: 0 is out of range"),
        ({"steps": 2000}, ConfigError, "steps 2000: the model's schedule has 1000 training timesteps"),
        ({"cfg": -1}, ConfigError, "cfg: -1.0 is out of range; expected a number of at least 0"),
        ({"cfg": float("inf")}, ConfigError, "cfg: inf is not a number"),
        (
            {"guidance": 3},
            ConfigError,
            "guidance: 3: expected a preset's name, a file ending in .yaml, a mapping, a Guidance or t",
        ),
        ({"guidance": ["layout-guidance"]}, ConfigError, "guidance: 'layout-guidance' is no term"),
        ({"size": 64}, ConfigError, r"size: 64: expected a width and a height in pixels, such as \(64, 64\)$"),
        ({"size": "64x64"}, ConfigError, "size: '64x64': expected a width and a height"),
        ({"size": (64, 31)}, ConfigError, "size 64x31: .* the nearest is 64x32"),
        ({"guidance": "layout-guidance"}, ConfigError, "no sample names a phrase to look at"),
        ({"layout": Layout.from_boxes({"cat": (0, 0, 1, 1)}), "guidance": "layout-guidance"}, PhraseError, "cat"),
        ({"layout": Layout.from_boxes({"cat": (0, 0, 1, 1)}), "trace": 1}, PhraseError, "cat"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(
    pipeline: Pipeline, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline(PROMPT, **{"steps": 1, **options})


def test_a_picture_that_is_not_finite_is_an_error_and_not_black(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = pipeline.model.decode

    def broken(z: Tensor) -> Tensor:
        images = decode(z)
        images[1] = float("nan")
        return images

    monkeypatch.setattr(pipeline.model, "decode", broken)
    with pytest.raises(NonFiniteError, match=r"not finite for the seeds 6, computing in torch\.float32"):
        pipeline(PROMPT, steps=1, seed=5, count=2)


def test_a_phrase_that_is_not_in_the_prompt_is_refused_without_guidance_too(pipeline: Pipeline) -> None:
    with pytest.raises(PhraseError, match="'cat' is not in the prompt"):
        pipeline(PROMPT, layout=Layout.from_boxes({"cat": (0, 0, 1, 1)}), steps=1)


def test_an_image_of_a_batch_may_have_no_layout(pipeline: Pipeline) -> None:
    report = pipeline([PROMPT] * 2, layout=[LAYOUT, None], guidance={}, steps=1).report
    assert report.layouts == (LAYOUT, Layout())


@pytest.mark.parametrize("layout", [{"red circle": (0, 0, 1, 1)}, [{"red circle": (0, 0, 1, 1)}]])
def test_what_is_no_layout_is_refused(pipeline: Pipeline, layout: Any) -> None:
    with pytest.raises(LayoutError, match=r"layout: a dict; expected a Layout, such as Layout\.from_boxes"):
        pipeline(PROMPT, layout=layout, steps=1)
