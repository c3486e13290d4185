"""The properties of a sampler, and `check_sampler`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..config.arguments import checked, checked_device
from ..plugins.class_checks import check_instance, check_plugin
from ..protocols import Sampler
from ..types import Latents, NoiseSchedule, Prediction, Step
from .checks import (
    OPTIONS_MEND,
    REPEAT_MEND,
    UNTOUCHED_MEND,
    Conformance,
    Property,
    expect,
    expect_apart,
    expect_close,
    expect_finite,
    expect_options,
    expect_refusal,
    expect_repeatable,
    expect_untouched,
    meanings,
    run_checks,
)
from .inputs import alpha_bars, draw

NOISE = NoiseSchedule()
OTHERS = {
    "trailing spacing": NoiseSchedule(spacing="trailing", steps_offset=0, final_alpha_one=True),
    "linspace spacing": NoiseSchedule(spacing="linspace", steps_offset=0),
    "linear betas": NoiseSchedule(beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
    "no signal at the last timestep": NoiseSchedule(spacing="trailing", steps_offset=0, zero_terminal_snr=True),
}
COUNT = 10
SHAPE = (3, 4, 8, 8)


@dataclass(frozen=True)
class Subject:
    """A sampler under test and the device that its latents live on."""

    sampler: Sampler
    device: str

    def draw(self, seed: int, shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float32) -> Tensor:
        return draw(seed, *shape, dtype=dtype).to(self.device)

    def noise(self, seed: int, like: Tensor) -> Tensor | None:
        return draw(seed, *like.shape, dtype=like.dtype).to(like.device) if self.sampler.stochastic else None

    def steps(self, count: int = COUNT) -> tuple[Step, ...]:
        return self.sampler.schedule(NOISE, count)

    def advance(self, z: Latents, truth: Prediction, step: Step, seed: int = 7) -> Latents:
        return self.sampler.step(z, truth, step, self.noise(seed + step.index, z))

    def scene(self, step: Step, shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Prediction]:
        """A latent at the start of `step`, and the exact prediction for it."""
        truth = Prediction(self.draw(1, shape, dtype), self.draw(2, shape, dtype))
        return mixture(truth, step.alpha_bar), truth


def mixture(truth: Prediction, alpha_bar: float) -> Tensor:
    """`sqrt(alpha_bar) z0 + sqrt(1 - alpha_bar) eps`."""
    return alpha_bar**0.5 * truth.z0 + (1 - alpha_bar) ** 0.5 * truth.eps


def declarations(subject: Subject) -> None:
    """It is a frozen dataclass that says whether it is stochastic."""
    check_plugin("sampler", "checked", type(subject.sampler))
    expect(subject.sampler.stochastic in (True, False), "stochastic to be True or False", repr(subject.sampler.stochastic))


def schedule_count(subject: Subject) -> None:
    """A schedule has as many steps as asked for, numbered from 0, at timesteps of the model's training."""
    for count in (1, 2, 7, 50):
        steps = subject.steps(count)
        expect(
            type(steps) is tuple and len(steps) == count,
            f"a tuple of {count} steps",
            f"{type(steps).__name__} of {len(steps)}",
        )
        numbers = [(step.index, step.count) for step in steps]
        expect(numbers == [(i, count) for i in range(count)], f"index 0 to {count - 1} and count {count}", numbers)
        times = [step.t for step in steps]
        within = all(type(t) is int and 0 <= t < NOISE.train_steps for t in times)
        expect(within, f"whole timesteps from 0 to {NOISE.train_steps - 1}", times)


def schedule_descends(subject: Subject) -> None:
    """From step to step timesteps fall and the share of signal rises, and within every step too."""
    for count in (2, 7, 50):
        steps = subject.steps(count)
        for a, b in pairwise(steps):
            expect(a.t > b.t and a.alpha_bar < b.alpha_bar, "falling t and rising alpha_bar", f"{a} before {b}")
        for step in steps:
            rises = 0 <= step.alpha_bar < step.alpha_bar_prev <= 1
            expect(rises, "0 <= alpha_bar < alpha_bar_prev <= 1", f"{step.alpha_bar} and {step.alpha_bar_prev} at {step}")


def schedule_levels(subject: Subject) -> None:
    """The share of signal at a step's start is the one the model was trained with at that timestep."""
    bars = alpha_bars(NOISE)
    for step in subject.steps(7):
        wanted = float(bars[step.t])
        expect(abs(step.alpha_bar - wanted) <= 1e-3 * wanted, f"alpha_bar {wanted:.6g} at t={step.t}", f"{step.alpha_bar:.6g}")


def schedule_joins(subject: Subject) -> None:
    """Where the spacing is even, each step ends at the level at which the next one starts."""
    for a, b in pairwise(subject.steps()):
        joined = abs(a.alpha_bar_prev - b.alpha_bar) <= 1e-6
        expect(joined, f"alpha_bar_prev {b.alpha_bar:.6g} at step {a.index}, where step {b.index} starts", a.alpha_bar_prev)


def schedule_ends_clean(subject: Subject) -> None:
    """The last step ends without noise, or with that of training timestep 0."""
    first = float(alpha_bars(NOISE)[0])
    for count in (1, 7, 50):
        end = subject.steps(count)[-1].alpha_bar_prev
        expect(end == 1 or abs(end - first) <= 1e-5, f"the last alpha_bar_prev to be 1 or {first:.6g}", end)


def schedule_refuses(subject: Subject) -> None:
    """A number of steps below 1, or above the model's timesteps, is refused with an error for people."""
    for count in (0, -3, NOISE.train_steps + 1):
        expect_refusal(lambda count=count: subject.steps(count), f"schedule(noise, {count})")


def step_shape(subject: Subject) -> None:
    """A step gives a finite latent of the shape it was given, from the first step to the last."""
    for step in subject.steps():
        _expect_latent(subject, step, SHAPE, f"at step {step.index}")


def noise_level(subject: Subject) -> None:
    """After a step with an exact prediction there is as much noise as its `alpha_bar_prev` says."""
    for step in subject.steps()[:-1:3]:
        z, truth = subject.scene(step, (2, 4, 48, 48))
        end = step.alpha_bar_prev
        noise = subject.advance(z, truth, step) - end**0.5 * truth.z0
        seen, wanted = float(noise.std()), (1 - end) ** 0.5
        expect(abs(seen - wanted) <= 0.05 * wanted, f"noise of {wanted:.3g} after step {step.index}", f"{seen:.3g}")


def leads_to_z0(subject: Subject) -> None:
    """With exact predictions all the way it arrives at the clean latent, but for what noise the schedule leaves."""
    steps = subject.steps()
    z, truth = subject.scene(steps[0], dtype=torch.float64)
    for step in steps:
        exact = (z - step.alpha_bar**0.5 * truth.z0) / (1 - step.alpha_bar) ** 0.5
        z = subject.advance(z, Prediction(exact, truth.z0), step)
    end = steps[-1].alpha_bar_prev
    rest = float((z - end**0.5 * truth.z0).square().mean().sqrt())
    left = (1 - end) ** 0.5
    expect(rest <= 1.5 * left + 1e-4, f"z0 within a root mean square of {1.5 * left:.3g}", f"{rest:.3g}")


def stochastic_declared(subject: Subject) -> None:
    """It uses its noise if it says so, and otherwise needs none and ignores what it gets."""
    step = subject.steps()[COUNT // 2]
    z, truth = subject.scene(step)
    one, other = (subject.sampler.step(z, truth, step, subject.draw(seed)) for seed in (3, 4))
    if subject.sampler.stochastic:
        expect_apart(one, other, "another latent for other noise, since stochastic is True", "the same")
        return
    none = subject.sampler.step(z, truth, step, None)
    same = torch.allclose(one, other) and torch.allclose(one, none)
    expect(same, "the same latent whatever the noise, since stochastic is False", "different ones")


def per_sample_independence(subject: Subject) -> None:
    """A sample's next latent is what it would be without its neighbours."""
    for step in (subject.steps()[0], subject.steps()[-1]):
        z, truth = subject.scene(step)
        noise = subject.noise(7, z)
        whole = subject.sampler.step(z, truth, step, noise)
        for i in range(len(z)):
            one, own = slice(i, i + 1), Prediction(truth.eps[i : i + 1], truth.z0[i : i + 1])
            alone = subject.sampler.step(z[one], own, step, None if noise is None else noise[one])
            expect_close(whole[one], alone, f"sample {i} at step {step.index} as in a batch of its own")


def inverts(subject: Subject) -> None:
    """`invert_step` leads from the end of a step to its start, where the prediction is exact."""
    for step in subject.steps():
        start, truth = subject.scene(step, dtype=torch.float64)
        cleaner = replace(step, alpha_bar=step.alpha_bar_prev)
        end = mixture(truth, step.alpha_bar_prev)
        found = subject.sampler.invert_step(end, Prediction.from_eps(end, truth.eps, cleaner), step)
        expect_close(found, start, f"the latent at the start of step {step.index}")


def dtype_and_device(subject: Subject) -> None:
    """Latents keep their dtype, single or double, and their device; inverted ones too."""
    step = subject.steps()[1]
    for dtype in (torch.float32, torch.float64):
        z, truth = subject.scene(step, dtype=dtype)
        results = {"step": subject.advance(z, truth, step), "invert_step": subject.sampler.invert_step(z, truth, step)}
        for name, found in results.items():
            kept = found.dtype == dtype and found.device == z.device
            expect(kept, f"{name} to give {dtype} on {z.device}, as it was given", f"{found.dtype} on {found.device}")


def deterministic(subject: Subject) -> None:
    """The same latent, prediction and noise give the same latent, whatever the state of the global random stream."""
    step = subject.steps()[1]
    z, truth = subject.scene(step)
    expect_repeatable(lambda: [subject.advance(z, truth, step)])


def inputs_untouched(subject: Subject) -> None:
    """It changes none of the tensors it is given."""
    step = subject.steps()[1]
    z, truth = subject.scene(step)
    noise = subject.noise(7, z)
    tensors = {"z": z, "prediction.eps": truth.eps, "prediction.z0": truth.z0, **({} if noise is None else {"noise": noise})}
    expect_untouched(tensors, lambda: subject.sampler.step(z, truth, step, noise))
    expect_untouched(tensors, lambda: subject.sampler.invert_step(z, truth, step))


def options_round_trip(subject: Subject) -> None:
    """Its options can be written down, read again, and explained."""
    expect_options(subject.sampler)


def every_shape(subject: Subject) -> None:
    """Latents may be wide or tall, and have any number of channels."""
    for shape in ((1, 4, 6, 10), (2, 16, 10, 6), (1, 3, 4, 4)):
        _expect_latent(subject, subject.steps()[1], shape, f"for latents {list(shape)}")


def every_noise_schedule(subject: Subject) -> None:
    """It walks on every noise schedule that models come with: other spacings, other betas, no signal at the end."""
    for name, noise in OTHERS.items():
        steps = subject.sampler.schedule(noise, COUNT)
        expect(len(steps) == COUNT, f"{COUNT} steps with {name}", len(steps))
        for step in steps:
            z, truth = subject.scene(step)
            expect_finite(subject.advance(z, truth, step), "the latent", f"at step {step.index} with {name}")


def _expect_latent(subject: Subject, step: Step, shape: Sequence[int], where: str) -> None:
    z, truth = subject.scene(step, shape)
    found = subject.advance(z, truth, step)
    expect(found.shape == z.shape, f"a latent {list(z.shape)} {where}", list(found.shape))
    expect_finite(found, "the latent", where)


FIRST, TIMED = ("declarations",), ("declarations", "schedule_count")
SOUND = (*TIMED, "step_shape")
WALKED = (*SOUND, "schedule_joins", "noise_level")  # a walk adds up what its steps do
PROPERTIES: tuple[Property[Subject], ...] = (
    Property(declarations, "see the `Sampler` protocol"),
    Property(
        schedule_count, "make one Step per sampling step, noisiest first: Step(index, count, t, alpha_bar, alpha_bar_prev)", FIRST
    ),
    Property(schedule_descends, "order the steps from the noisiest to the cleanest", TIMED),
    Property(schedule_levels, "take alpha_bar from the cumulative product of 1 - beta at t", TIMED),
    Property(schedule_joins, "let alpha_bar_prev of a step be alpha_bar of the next", TIMED),
    Property(schedule_ends_clean, "end at 1, or at alpha_bar of timestep 0 unless noise.final_alpha_one", TIMED),
    Property(schedule_refuses, "raise a ConfigError unless 1 <= count <= noise.train_steps", FIRST),
    Property(step_shape, "compute elementwise with the numbers of the step", TIMED),
    Property(noise_level, "let the shares of eps and fresh noise add up to 1 - alpha_bar_prev, as squares", SOUND),
    Property(leads_to_z0, "check the coefficients of z0 and eps against the step's alpha_bar_prev", WALKED),
    Property(stochastic_declared, "let `stochastic` say whether `step` uses its noise", SOUND),
    Property(per_sample_independence, "reduce over dimension 0 nowhere", SOUND),
    Property(inverts, "z0 from eps at alpha_bar_prev, then mix both anew at alpha_bar (Song et al. 2020, eq. 12)", TIMED),
    Property(dtype_and_device, "compute with Python's floats and the tensors given", SOUND),
    Property(deterministic, REPEAT_MEND, SOUND),
    Property(inputs_untouched, UNTOUCHED_MEND, SOUND),
    Property(options_round_trip, OPTIONS_MEND, FIRST),
    Property(every_shape, "assume no number of channels and no square", SOUND),
    Property(
        every_noise_schedule, "read spacing, betas and the final alpha_bar from the NoiseSchedule; use z0 as it is given", SOUND
    ),
)
SAMPLER_PROPERTIES = meanings(PROPERTIES)


@checked
def check_sampler(sampler: Sampler, *, only: Collection[str] | None = None, device: str = "cpu") -> Conformance:
    """Check that a sampler walks from noise to a clean latent on a model's own noise schedule.

    Args:
        only: names out of `SAMPLER_PROPERTIES`; all of them by default.
        device: where the made latents live.

    Raises:
        ConformanceError: it lacks some of the properties; a line for each.
        ConfigError: `only` names a property that does not exist.
    """
    check_instance("sampler", sampler)
    return run_checks("sampler", sampler, Subject(sampler, checked_device(device)), PROPERTIES, only)
