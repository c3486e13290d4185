"""Whole runs of every family beside diffusers' pipelines: from the same noise, with guidance, to the same latent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.layout.regions import Layout
from lsregen.framework.protocols import Run, Sampler
from lsregen.framework.types import NoiseSchedule
from lsregen.models import DiffusersFolder
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.configs import noise_schedule
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM
from tests.near import TRAJECTORY, relative

STEPS, CFG = 10, 4.0
PROMPTS = ("a red circle", "a blue circle and a red circle")


@dataclass(frozen=True)
class Case:
    """A sampler of ours, and the scheduler of diffusers that does the same, with changes to the model's own settings.

    `double`: the networks of both compute in double precision, see `in_double`.
    """

    sampler: Sampler
    scheduler: str
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    negatives: tuple[str, ...] | None = None
    double: bool = False


CASES = {
    "ddim": Case(DDIM(), "DDIMScheduler"),
    "a negative prompt": Case(DDIM(), "DDIMScheduler", negatives=("a blue circle", "red")),
    "eta 1": Case(DDIM(1.0), "DDIMScheduler"),
    "trailing": Case(DDIM(), "DDIMScheduler", {"timestep_spacing": "trailing"}),
    "linspace": Case(DDIM(), "DDIMScheduler", {"timestep_spacing": "linspace"}),
    "no offset, clean end": Case(DDIM(), "DDIMScheduler", {"steps_offset": 0, "set_alpha_to_one": True}),
    "clipped": Case(DDIM(), "DDIMScheduler", {"clip_sample": True, "clip_sample_range": 0.8}, double=True),
    "other betas": Case(DDIM(), "DDIMScheduler", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "epsilon": Case(DDIM(), "DDIMScheduler", {"prediction_type": "epsilon"}),
    "zero terminal SNR": Case(
        DDIM(),
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ),
    "ddpm": Case(DDPM(), "DDPMScheduler", {"variance_type": "fixed_small"}),
    "ddpm, trailing, clipped": Case(
        DDPM(), "DDPMScheduler", {"timestep_spacing": "trailing", "clip_sample": True, "clip_sample_range": 0.8}
    ),
}
FAMILIES = ("sd1", "sd2", "sdxl", "gligen", "base")
BOXES = {"red circle": (0.1, 0.2, 0.5, 0.6), "blue circle": (0.5, 0.25, 1.0, 1.0)}
# Every setting on every family takes minutes; these are the pairs in which they meet for the first time.
QUICK = {
    *((name, "ddim") for name in FAMILIES),
    *(
        ("base", case)
        for case in ("linspace", "other betas", "no offset, clean end", "clipped", "ddpm", "ddpm, trailing, clipped")
    ),
    ("sd1", "eta 1"),
    ("sd1", "a negative prompt"),
    ("sd2", "ddpm"),
    ("sd2", "epsilon"),
    ("sd2", "zero terminal SNR"),
    ("sdxl", "trailing"),
    ("sdxl", "a negative prompt"),
}
WALKS = [pytest.param(name, case, marks=() if (name, case) in QUICK else pytest.mark.long) for name in FAMILIES for case in CASES]


def noise(index: int, z: Tensor) -> Tensor:
    return torch.randn(z.shape, generator=torch.Generator().manual_seed(100 + index))


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a model and a pipeline the same changed settings of the scheduler; returns the kind of prediction."""
    import diffusers

    def change(oracle: Any, model: LatentDiffusion, case: Case) -> NoiseSchedule:
        scheduler = getattr(diffusers, case.scheduler).from_config(oracle.pipe.scheduler.config, **case.changes)
        values = {**scheduler.config, "_class_name": case.scheduler}
        monkeypatch.setattr(oracle.pipe, "scheduler", scheduler)
        monkeypatch.setattr(model, "noise_schedule", noise_schedule(values, "scheduler_config.json"))
        monkeypatch.setattr(model, "prediction", {"epsilon": "eps", "v_prediction": "v"}[values["prediction_type"]])
        return model.noise_schedule

    return change


@pytest.fixture
def in_double() -> Iterator[Callable[[LatentDiffusion, Any], None]]:
    """Lets the networks of a model and of a pipeline compute in double precision until the test ends.

    For DDIM with a clipped z0: such a run magnifies what differs at its start some hundred times, in exact arithmetic too, and
    what is clipped keeps its norm small. So two runs in fp32 differ by what the networks round, whoever steps.
    """
    changed: list[tuple[LatentDiffusion, Any]] = []

    def compute(model: LatentDiffusion, pipe: Any, dtype: torch.dtype = torch.float64) -> None:
        grounder = [] if model.grounder is None else [model.grounder.net]
        for network in (model.unet, *(encoder.network for encoder in model.text.encoders), *grounder):
            network.to(dtype)
        model.dtype = dtype
        pipe.to(dtype)
        changed.append((model, pipe))

    yield compute
    for model, pipe in list(changed):
        compute(model, pipe, torch.float32)


@pytest.fixture
def our_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands our noise to diffusers' schedulers, which draw their own, one after another."""
    import diffusers.schedulers.scheduling_ddim as ddim
    import diffusers.schedulers.scheduling_ddpm as ddpm

    calls = count()

    def draw(shape: Any, **_: Any) -> Tensor:
        return noise(next(calls), torch.empty(shape))

    for module in (ddim, ddpm):
        monkeypatch.setattr(module, "randn_tensor", draw)


def grounded(name: str) -> dict[str, Any]:
    """What diffusers' pipeline of GLIGEN is told besides, in the first 30 % of the steps, as ours."""
    if name != "gligen":
        return {}
    return {
        "gligen_phrases": list(BOXES),
        "gligen_boxes": list(BOXES.values()),
        "gligen_scheduled_sampling_beta": 0.3,
    }


def their_walk(oracle: Any, z: Tensor, case: Case) -> Tensor:
    height, width = (side * oracle.pipe.vae_scale_factor for side in z.shape[-2:])
    return oracle.pipe(
        list(PROMPTS),
        negative_prompt=None if case.negatives is None else list(case.negatives),
        height=height,
        width=width,
        latents=z,
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        eta=getattr(case.sampler, "eta", 0.0),
        output_type="latent",
        **grounded(oracle.name),
    ).images


@pytest.mark.parametrize(("name", "case"), WALKS, ids=str)
@pytest.mark.usefixtures("our_noise")
def test_trajectories(oracles: Any, models: Any, schedules: Any, in_double: Any, name: str, case: str) -> None:
    oracle, model, chosen = oracles(name), models(name), CASES[case]
    schedule = schedules(oracle, model, chosen)
    z = start = torch.randn(2, model.latent_channels, 12, 4)  # no square, and odd after two halvings
    if chosen.double:
        in_double(model, oracle.pipe)
        z = start = start.double()
    layouts = (Layout.from_boxes(BOXES),) * 2 if name == "gligen" else ()
    denoiser = model.bind(PROMPTS, chosen.negatives or ("", ""), layouts, cfg=CFG, count=STEPS)
    for step in chosen.sampler.schedule(schedule, STEPS):
        drawn = noise(step.index, z) if chosen.sampler.stochastic else None
        z = chosen.sampler.step(z, denoiser.predict(z, step), step, drawn)
    assert z.isfinite().all()
    assert relative(z, start) > 0.1
    assert relative(z, their_walk(oracle, start, chosen)) <= TRAJECTORY


@pytest.mark.parametrize(
    "changes",
    [
        {
            "beta_schedule": "linear",
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "steps_offset": 3,
            "set_alpha_to_one": True,
            "clip_sample": True,
            "clip_sample_range": 0.8,
        },
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    ids=["numbers", "zero terminal SNR"],
)
def test_a_folders_own_scheduler(
    oracles: Any, copied: Any, in_double: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """What the `scheduler_config.json` of a folder says is followed, by a model that is loaded from it."""
    from diffusers import DDIMScheduler

    oracle = oracles("base")
    folder = copied(oracle.folder, "scheduler/scheduler_config.json", changes)
    model: Any = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    # By itself: a pipeline of diffusers that loads it mends what it thinks outdated, such as another offset.
    monkeypatch.setattr(oracle.pipe, "scheduler", DDIMScheduler.from_pretrained(folder / "scheduler"))
    z = start = torch.randn(2, model.latent_channels, 12, 4)
    if "clip_sample" in changes:
        in_double(model, oracle.pipe)
        z = start = start.double()
    denoiser = model.bind(PROMPTS, (), (), cfg=CFG, count=STEPS)
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    assert relative(z, their_walk(oracle, start, CASES["ddim"])) <= TRAJECTORY


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("spacing", ["leading", pytest.param("trailing", marks=pytest.mark.long)])
def test_inversion(oracles: Any, models: Any, schedules: Any, monkeypatch: pytest.MonkeyPatch, name: str, spacing: str) -> None:
    """The latents that lead to an image, on the sampler's own timesteps, asked of the prompt alone."""
    from diffusers import DDIMInverseScheduler

    oracle, model = oracles(name), models(name)
    case = Case(DDIM(), "DDIMScheduler", {"timestep_spacing": spacing})
    schedule = schedules(oracle, model, case)
    if model.grounder is not None:  # diffusers has no null tokens in a pass without boxes
        monkeypatch.setattr(model.grounder, "share", 0.0)
    z0 = 0.5 * torch.randn(2, model.latent_channels, 8, 8)
    denoiser = model.bind(PROMPTS, (), (), cfg=CFG, count=STEPS)
    steps = case.sampler.schedule(schedule, STEPS)
    found = Run(model, denoiser, case.sampler, steps, z0, (0, 1), (), (32, 32)).invert(z0)

    inverse: Any = DDIMInverseScheduler.from_config(oracle.pipe.scheduler.config)
    inverse.set_timesteps(STEPS)
    z = z0
    for step in reversed(steps):
        z = inverse.step(oracle.unet(z, step, PROMPTS), step.t, z).prev_sample
        assert relative(found[step.index], z) <= TRAJECTORY
    assert relative(found[0], z0) > 0.1


@pytest.mark.parametrize("share", [0.3, 1.0, 0.0])
def test_gligen(oracles: Any, models: Any, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grounded steps, null tokens in the unconditional branch, and the steps after them, beside diffusers' pipeline."""
    oracle, model = oracles("gligen"), models("gligen")
    monkeypatch.setattr(model.grounder, "share", share)
    z = start = torch.randn(2, model.latent_channels, 8, 12)
    denoiser = model.bind(PROMPTS, (), (Layout.from_boxes(BOXES),) * 2, cfg=CFG, count=STEPS)
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    theirs = oracle.pipe(
        list(PROMPTS),
        height=8 * model.factor,
        width=12 * model.factor,
        latents=start,
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        output_type="latent",
        **{**grounded("gligen"), "gligen_scheduled_sampling_beta": share},
    ).images
    assert relative(z, theirs) <= TRAJECTORY
    assert relative(z, start) > 0.1
