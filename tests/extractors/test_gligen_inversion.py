"""The target that is rendered small: how it is noised, where it counts, and what a pull toward it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from lsregen.distances.l2 import L2
from lsregen.extractors.gligen_inversion import FULL_STRENGTH, GligenInversion, enlarged
from lsregen.framework import ConfigError, Guidance, Layout, Pipeline, Schedule, StepReport, Term
from lsregen.framework.protocols import Run
from lsregen.framework.sampling.image_to_image import noised, to_pil
from lsregen.framework.sampling.taps import Taps
from lsregen.framework.types import View
from tests.near import TRAJECTORY, near, relative, same_pictures

pytestmark = pytest.mark.slow

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.0, 0.0, 0.5, 0.5), "blue square": (0.75, 0.75, 1.0, 1.0)})
SOURCE: Mapping[str, Any] = {"model": "shapeworld-base", "steps": 2, "guidance": {}}
SIZE = (96, 96)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")


def walk(
    pipeline: Pipeline, extractor: GligenInversion | None, schedule: Schedule | None = None, **options: Any
) -> list[StepReport]:
    reports: list[StepReport] = []
    terms = [] if extractor is None else [Term(extractor, L2(), schedule or Schedule(blend=1, until=0.2))]
    given = {"steps": 10, "seed": 3, "size": SIZE, "layout": LAYOUT, "on_step": reports.append, **options}
    pipeline(PROMPT, guidance=Guidance(terms), **given)
    return reports


def prepared(pipeline: Pipeline, extractor: GligenInversion, **options: Any) -> tuple[Run, Any]:
    """The run and the state that an extractor makes of it."""
    seen: list[tuple[Run, Any]] = []

    class Kept(GligenInversion):
        def prepare(self, run: Run, raster: str) -> Any:
            state = yield from GligenInversion.prepare(self, run, raster)
            seen.append((run, state))
            return state

    walk(pipeline, Kept(**vars(extractor)), **{"on_step": lambda _: False, **options})
    return seen[0]


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_a_blend_of_one_is_image_to_image_entered_at_the_last_guided_step(pipeline: Pipeline, cfg: float) -> None:
    guided, count = 3, 10
    extractor = GligenInversion(source=SOURCE, noise="shared")
    reports = walk(pipeline, extractor, Schedule(blend=1, until=guided / count), cfg=cfg)
    rendered = pipeline(PROMPT, layout=LAYOUT, seed=3, steps=2, guidance={}).image
    run, state = prepared(pipeline, extractor, cfg=cfg)
    assert same_pictures(to_pil(run.render(SOURCE)), [rendered])
    steps = run.steps[guided - 1 :]
    z = noised(state.z0, run.z_T, steps[0])
    assert relative(reports[guided - 1].z, z) <= TRAJECTORY
    with torch.no_grad():
        for step in steps:
            z = run.sampler.step(z, run.denoiser.predict(z, step), step, None)
    assert relative(reports[-1].z_next, z) <= TRAJECTORY


def test_image_to_image_of_the_pipeline_is_the_same_up_to_eight_bits(pipeline: Pipeline) -> None:
    run, _ = prepared(pipeline, extractor := GligenInversion(source=SOURCE, noise="shared"))
    picture = to_pil(enlarged(run.render(SOURCE), SIZE))[0]
    pulled = walk(pipeline, extractor, Schedule(blend=1, until=0.3))
    entered = walk(pipeline, None, init_image=picture, strength=0.8)
    assert entered[0].step.index == 2
    assert relative(entered[-1].z_next, pulled[-1].z_next) < 0.02


@pytest.mark.parametrize("blend", [0.0, 0.25, 1.0])
def test_a_blend_goes_that_far_toward_the_target(pipeline: Pipeline, blend: float) -> None:
    run, state = prepared(pipeline, extractor := GligenInversion(source=SOURCE, noise="shared"))
    first = walk(pipeline, extractor, Schedule(blend=blend, until=0.1))[0]
    target = state.noised(run.steps[0])
    assert relative(first.z, (1 - blend) * run.z_T + blend * target) <= TRAJECTORY


def test_gamma_is_half_of_the_blend(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="shared")
    blended = walk(pipeline, extractor, Schedule(blend=0.4, until=0.1))[0].z
    assert near(blended, walk(pipeline, extractor, Schedule(gamma=0.2, until=0.1))[0].z)


def test_a_gamma_that_goes_beyond_the_target_is_said_so(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    extractor = GligenInversion(source={**SOURCE, "steps": 1}, noise="shared")
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.pipeline"):
        for schedule in (Schedule(gamma=0.5), Schedule(gamma=5, normalise="rms"), Schedule(gamma=5, site="after")):
            walk(pipeline, extractor, schedule, steps=1)
        assert not caplog.messages
        walk(pipeline, extractor, Schedule(gamma=5), steps=1)
    assert caplog.messages == [
        "term 'L2': gamma 5 goes 10 times the way to the target, so the pulls swing around it or lead away from it; give blend "
        "instead, between 0 (not at all) and 1 (onto it)"
    ]


def test_shared_noise_is_the_runs_own_and_fresh_noise_is_new_at_every_step(pipeline: Pipeline) -> None:
    run, state = prepared(pipeline, GligenInversion(source=SOURCE, noise="shared"))
    step = run.steps[4]
    assert torch.equal(state.noised(step), noised(state.z0, run.z_T, step))
    run, state = prepared(pipeline, GligenInversion(source=SOURCE, noise="fresh"))
    noises = [
        (state.noised(step) - step.alpha_bar**0.5 * state.z0) / (1 - step.alpha_bar) ** 0.5
        for step in (run.steps[0], run.steps[1])
    ]
    for noise in noises:
        assert abs(float(noise.mean())) < 0.1
        assert abs(float(noise.std()) - 1) < 0.1
    related = torch.corrcoef(torch.stack([*(noise.flatten() for noise in noises), run.z_T.flatten()]))
    assert float(related.triu(1).abs().max()) < 0.1  # neither with each other nor with the run's own


def test_an_inverted_target_is_the_samplers_own_walk_backward(pipeline: Pipeline) -> None:
    run, state = prepared(pipeline, GligenInversion(source=SOURCE, noise="ddim_inversion"))
    found = run.invert(state.z0)
    for step in run.steps:
        assert relative(state.noised(step), found[step.index]) <= TRAJECTORY


def test_eps_consistent_moves_the_clean_estimate_and_keeps_the_noise(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="eps_consistent")
    schedule = Schedule(blend=1, until=0.1, site="z0")
    first = walk(pipeline, extractor, schedule)[0]
    _, state = prepared(pipeline, extractor, schedule=schedule)
    assert relative(first.prediction.z0, state.z0) <= TRAJECTORY
    assert near(first.prediction.eps, walk(pipeline, None)[0].prediction.eps)


def test_boxes_limit_the_pull_and_large_ones_are_pulled_less(pipeline: Pipeline) -> None:
    _, state = prepared(pipeline, GligenInversion(source=SOURCE, mask="boxes", feather=0, box_power=0.5))
    weight = state.weight[0, 0, 0]  # [h w]
    h, w = weight.shape
    quarter, sixteenth = weight[: h // 2, : w // 2], weight[3 * h // 4 :, 3 * w // 4 :]
    torch.testing.assert_close(quarter, torch.full_like(quarter, math.sqrt(FULL_STRENGTH / 0.25)))
    torch.testing.assert_close(sixteenth, torch.ones_like(sixteenth))
    assert float(weight.sum() - quarter.sum() - sixteenth.sum()) == 0


def test_a_feathered_box_fades(pipeline: Pipeline) -> None:
    _, state = prepared(pipeline, GligenInversion(source=SOURCE, mask="boxes", feather=1))
    row = state.weight[0, 0, 0, 2]  # across the edge of the first box, at half of the width
    middle = len(row) // 2
    assert (row[:-1] - row[1:] >= -1e-6)[: middle + 4].all()
    assert 0.1 < float(row[middle]) < 0.5 < float(row[middle - 1]) < 0.9


def test_a_small_box_that_fades_is_pulled_fully(pipeline: Pipeline) -> None:
    cell = 1 / 24
    layout = Layout.from_boxes({"red circle": (6 * cell, 6 * cell, 8 * cell, 8 * cell), "blue square": (0.5, 0.5, 1, 1)})
    extractor = GligenInversion(source=SOURCE, mask="boxes", feather=1, box_power=0.5)
    weight = prepared(pipeline, extractor, layout=layout)[1].weight[0, 0, 0]  # [h w]
    assert float(weight[:12, :12].max()) == pytest.approx(1)
    assert float(weight[6:8, 6:8].min()) == pytest.approx(1)
    assert float(weight[6, 9]) < 0.5
    assert float(weight[12:, 12:].max()) == pytest.approx(math.sqrt(FULL_STRENGTH / 0.25))


def test_a_faded_box_that_covers_no_cell_pulls_nothing(pipeline: Pipeline) -> None:
    layout = Layout.from_boxes({"red circle": (0.01, 0.01, 0.03, 0.03), "blue square": (0.5, 0.5, 1, 1)})
    term = Term(GligenInversion(source=SOURCE, mask="boxes", feather=1), L2(raster="truncate"), Schedule(blend=1, until=0.1))
    reports: list[StepReport] = []
    pipeline(PROMPT, guidance=term, steps=10, seed=3, size=SIZE, layout=layout, on_step=reports.append)
    plain = walk(pipeline, None, layout=layout)
    assert near(reports[0].z[..., :9, :9], plain[0].z[..., :9, :9])
    assert not near(reports[0].z, plain[0].z)


def test_outside_of_the_boxes_nothing_moves(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="shared", mask="boxes", feather=0)
    run, state = prepared(pipeline, extractor)
    moved = walk(pipeline, extractor, Schedule(blend=1, until=0.1))[0].z
    inside = state.weight[0, 0, 0] > 0
    target = state.noised(run.steps[0])
    assert relative(moved[..., inside], target[..., inside]) <= TRAJECTORY
    assert near(moved[..., ~inside], run.z_T[..., ~inside])


def test_a_low_pass_leaves_fine_detail_alone(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="shared", low_pass=2.0)
    run, state = prepared(pipeline, extractor)
    checker = (-1.0) ** torch.arange(24)[:, None] * (-1.0) ** torch.arange(24)  # the finest pattern there is
    z = state.noised(run.steps[0]) + checker
    view = View(z, run.steps[0], Taps(()))
    energy = L2()(extractor.current(view, state), extractor.target(view, state)).value
    inner = float(checker.square().sum()) * run.z_T.shape[1]
    assert float(energy) < 1e-3 * inner


def test_a_run_may_start_from_the_target(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="ddim_inversion", init_from_target=True)
    run, state = prepared(pipeline, extractor)
    first = walk(pipeline, extractor, Schedule(blend=0, until=0.1))[0]
    assert relative(first.z, state.noised(run.steps[0])) <= TRAJECTORY


def test_only_one_may_say_what_to_start_from(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="shared", init_from_target=True)
    picture = to_pil(torch.rand(1, 3, 96, 96))[0]
    with pytest.raises(ConfigError, match="several would decide what to start from: 'L2', the image"):
        walk(pipeline, extractor, Schedule(blend=0.5), init_image=picture, strength=0.5)


def test_samples_of_a_batch_have_their_own_targets(pipeline: Pipeline) -> None:
    extractor = GligenInversion(source=SOURCE, noise="fresh", mask="boxes")
    schedule = Schedule(blend=0.7, until=0.2)
    layouts = [LAYOUT, Layout.from_boxes({"blue square": (0.1, 0.5, 0.6, 0.9)})]
    reports: list[StepReport] = []
    options: dict[str, Any] = {"steps": 4, "size": SIZE, "guidance": Guidance([Term(extractor, L2(), schedule)])}
    pipeline([PROMPT, PROMPT], layout=layouts, seed=[5, 9], on_step=reports.append, **options)
    alone: list[StepReport] = []
    pipeline(PROMPT, layout=layouts[1], seed=9, on_step=alone.append, **options)
    assert relative(reports[-1].z_next[1:], alone[-1].z_next) < 1e-4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": "share"}, "noise: 'share' is not one of .*did you mean 'shared'"),
        ({"mask": "box"}, "mask: 'box' is not one of"),
        ({"feather": -1.0}, "feather: -1.0 is out of range"),
        ({"box_power": 0.5}, "box_power: 0.5 needs boxes to act on"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GligenInversion(**options)


def test_boxes_that_are_not_there_are_refused_before_anything_is_rendered(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "render", lambda *_: pytest.fail("rendered"))
    with pytest.raises(ConfigError, match="mask boxes, but no image has one"):
        walk(pipeline, GligenInversion(source=SOURCE, mask="boxes"), layout=Layout())


@pytest.mark.parametrize("noise", ["ddim_inversion", "shared", "fresh", "eps_consistent"])
def test_nothing_but_a_clean_estimate_takes_a_network(noise: str) -> None:
    assert GligenInversion(noise=noise).needs.prediction is (noise == "eps_consistent")
    assert not GligenInversion(noise=noise).needs.taps
