"""The loop: the plain sampler when nothing pulls, its reports, and stopping early."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lsregen.framework.errors import ConfigError, NonFiniteError
from lsregen.framework.events import StepReport
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.protocols import Sampler
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM
from tests.near import near
from tests.toys import LinearDenoiser, Look, Measure, draw, make_run, plain_walk, sampled, square


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(eta=0.7), DDPM()], ids=str)
def test_without_guidance_the_loop_is_the_plain_sampler(sampler: Sampler) -> None:
    z = draw(0, 2, 3, 4, 4)
    plain = plain_walk(make_run(LinearDenoiser(cfg=3.0), z, sampler=sampler))
    guided, _ = sampled(make_run(LinearDenoiser(cfg=3.0), z, sampler=sampler), Guidance())
    assert near(guided, plain)


@pytest.mark.parametrize("site", ["before", "after", "noise", "z0"])
def test_terms_outside_of_their_window_change_nothing(site: str) -> None:
    z = draw(0, 2, 3, 4, 4)
    denoiser = LinearDenoiser()
    term = Term(Look("z0"), Measure(square), Schedule(gamma=0.1, from_=0.5, until=0.6, site=site))
    guided, pull = sampled(make_run(denoiser, z, count=4), Guidance([term]), lambda report: report.step.index < 1)
    unguided, _ = sampled(make_run(LinearDenoiser(), z, count=4), Guidance(), lambda report: report.step.index < 1)
    assert near(guided, unguided)
    assert denoiser.observed == []
    assert pull.log == []


def test_an_observer_sees_every_step_and_what_was_denoised() -> None:
    seen: list[StepReport] = []
    run = make_run(LinearDenoiser(), draw(0, 2, 3, 4, 4), count=3)
    term = Term(Look("z"), Measure(square), Schedule(gamma=0.1), name="pull")
    z, pull = sampled(run, Guidance([term]), seen.append)
    assert [report.step for report in seen] == list(run.steps)
    assert near(seen[0].z, run.z_T - 0.1 * 2 * run.z_T)  # what was denoised: after the pull
    for report, following in pairwise(seen):
        assert near(following.z, report.z_next - 0.1 * 2 * report.z_next)
        expected = run.sampler.step(report.z, report.prediction, report.step, None)
        assert near(report.z_next, expected)
    assert torch.equal(seen[-1].z_next, z)
    assert torch.equal(seen[-1].energies["pull"], pull.energies["pull"])
    assert seen[0].energies["pull"].shape == (2,)


def test_returning_false_ends_the_run_with_the_latent_of_that_step() -> None:
    run = make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4), count=5)
    states: list[torch.Tensor] = []

    def stop(report: StepReport) -> bool | None:
        states.append(report.z_next)
        return False if report.step.index == 2 else None

    z, _ = sampled(run, Guidance(), stop)
    assert len(states) == 3
    assert torch.equal(z, states[-1])


def test_the_result_carries_no_gradient() -> None:
    term = Term(Look("z0"), Measure(square), Schedule(gamma=0.1))
    z, _ = sampled(make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4)), Guidance([term]))
    assert not z.requires_grad


def test_a_latent_that_breaks_stops_the_run_and_names_its_seed() -> None:
    z = draw(0, 2, 3, 4, 4)
    z[1, 0, 0, 0] = float("inf")
    run = make_run(LinearDenoiser(), z, count=3)
    with pytest.raises(NonFiniteError, match=rf"step 0 .* seeds {run.seeds[1]} are not finite.*; try a lower cfg$") as caught:
        sampled(run, Guidance())
    assert str(run.seeds[0]) not in str(caught.value).split("seeds")[1].split("are")[0]


def test_a_window_without_a_step_is_refused_and_not_skipped_over() -> None:
    term = Term(Look("z"), Measure(square), Schedule(from_=0.55, until=0.6), name="thin")
    with pytest.raises(ConfigError, match=r"term 'thin': none of the 10 steps lies between from 0.55 and until 0.6"):
        sampled(make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4), count=10), Guidance([term]))


def test_a_window_before_the_step_that_a_picture_is_entered_at_is_refused() -> None:
    run = make_run(LinearDenoiser(), draw(0, 1, 3, 4, 4), count=10)
    entered, term = replace(run, steps=run.steps[3:]), Term(Look("z"), Measure(square), Schedule(until=0.1), name="small")
    said = "leaves out the first 3 of the 10 steps, and with them all between from 0 and until 0.1; raise strength to 1, or "
    with pytest.raises(ConfigError, match=f"^term 'small': image-to-image {said}set until above 0.3$"):
        sampled(entered, Guidance([term]))
    late = Term(Look("z"), Measure(square), Schedule(from_=0.55, until=0.6), name="thin")
    with pytest.raises(ConfigError, match="none of the 7 steps lies between"):
        sampled(entered, Guidance([late]))
