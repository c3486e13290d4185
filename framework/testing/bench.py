"""Where extractors and models are looked at: three prompts with different layouts, and the runs of any model on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..events import at_once
from ..layout.regions import Box, Layout, Region
from ..protocols import Model, Run
from ..sampling.taps import TapPoint, Taps, select_layers
from ..types import Latents, Needs, NoiseSchedule, Prediction, Step, View
from .inputs import draw, even_steps

PROMPTS = ("a red circle and a blue square", "a green circle", "a blue square and a red circle")
LAYOUTS = (
    Layout((Region("red circle", Box(0.0, 0.0, 0.5, 0.5)), Region("blue square", Box(0.55, 0.6, 0.6, 0.65)))),  # a speck
    Layout((Region("green circle", Box(0.0, 0.0, 1.0, 1.0)),)),  # the whole image
    Layout((Region("blue square", Box(0.1, 0.3, 0.9, 0.7)), Region("red circle"))),  # a phrase without a place
)
EVERY = tuple(range(len(PROMPTS)))
COUNT = 4
CELLS = 8  # of the latent's shorter side


class Walk:
    """The sampler of the bench's runs: deterministic, exact for exact predictions (Song et al. 2020, eq. 12)."""

    stochastic = False

    def schedule(self, noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
        return even_steps(noise, count)

    def step(self, z: Latents, prediction: Prediction, step: Step, noise: Latents | None) -> Latents:
        end = step.alpha_bar_prev
        return end**0.5 * prediction.z0 + (1 - end) ** 0.5 * prediction.eps

    def invert_step(self, z: Latents, prediction: Prediction, step: Step) -> Latents:
        source, target = step.alpha_bar_prev, step.alpha_bar
        z0 = (z - (1 - source) ** 0.5 * prediction.eps) / source**0.5
        return target**0.5 * z0 + (1 - target) ** 0.5 * prediction.eps


@dataclass(frozen=True)
class Bench:
    """Makes runs of a model; `cells` counts the latent cells of a square image's side."""

    model: Model
    cells: int = CELLS

    def size(self, shape: str = "square") -> tuple[int, int]:
        """Width and height in pixels of a square, wide or tall image."""
        short, long = self.cells * self.model.factor, 2 * self.cells * self.model.factor
        return {"square": (short, short), "wide": (long, short), "tall": (short, long)}[shape]

    def latent(self, seed: int, samples: Sequence[int] = EVERY, shape: str = "square") -> Latents:
        """Standard normal latents; those of a sample are the same in every batch."""
        drawn = [draw(100 * seed + i, *self.model.latent_shape(self.size(shape))) for i in samples]
        return torch.stack(drawn).to(self.model.device)

    def images(self, shape: str = "square", samples: Sequence[int] = EVERY) -> Tensor:
        """Smooth pictures `[b 3 H W]`, in [0, 1]."""
        width, height = self.size(shape)
        coarse = torch.stack([torch.sigmoid(draw(500 + i, 3, 4, 4)) for i in samples])
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").to(self.model.device)

    def run(self, samples: Sequence[int] = EVERY, shape: str = "square", *, layouts: Sequence[Layout] = LAYOUTS) -> Run:
        """A run of some of the samples; a render asked for by an extractor is a decoded latent of the run's own."""
        picked = [layouts[i] for i in samples]
        prompts = [PROMPTS[i] for i in samples]
        z = self.latent(0, samples, shape)
        return Run(
            model=self.model,
            denoiser=self.model.bind(prompts, [""] * len(prompts), picked, cfg=self.model.default_cfg, count=COUNT),
            sampler=Walk(),
            steps=even_steps(self.model.noise_schedule, COUNT),
            z_T=z,
            seeds=tuple(samples),
            layouts=tuple(picked),
            size=self.size(shape),
            generators=tuple(torch.Generator().manual_seed(i) for i in samples),
            renderer=lambda _: at_once(self.model.decode(0.5 * z)),
        )


@dataclass
class Looks:
    """What was looked at of a view."""

    taps: set[TapPoint] = field(default_factory=set[TapPoint])
    prediction: bool = False
    image: bool = False


class WatchedTaps(Taps):
    """Remembers which points were read."""

    def __init__(self, wanted: Sequence[TapPoint], looks: Looks, *, full: bool = False) -> None:
        super().__init__(wanted, full=full)
        self.looks = looks

    def __getitem__(self, point: TapPoint) -> Tensor:
        self.looks.taps.add(point)
        return super().__getitem__(point)


class WatchedView(View):
    """Another view's contents, remembering what was read of them."""

    def __init__(self, inner: View, looks: Looks) -> None:
        super().__init__(inner.z, inner.step, inner.taps, inner.layers)
        self.inner, self.looks = inner, looks

    @property
    def prediction(self) -> Prediction:
        self.looks.prediction = True
        return self.inner.prediction

    def image(self) -> Tensor:
        self.looks.image = True
        return self.inner.image()


def needed_points(run: Run, needs: Needs) -> list[TapPoint]:
    """The tap points that are declared, on the layers of a run's model."""
    layers = run.denoiser.layers
    return [TapPoint(layer.name, request.kind) for request in needs.taps for layer in select_layers(layers, request.layers)]


def declared_view(run: Run, z: Latents, step: Step, needs: Needs, looks: Looks | None = None) -> View:
    """What guidance shows an extractor that stands alone: what it declares, and nothing else."""
    looks = looks or Looks()
    points = needed_points(run, needs)
    taps = WatchedTaps(points, looks, full=needs.estimate)
    if not points and not taps.full:
        return WatchedView(View(z, step, taps, run.denoiser.layers), looks)
    seen = run.denoiser.observe(z, step, taps)
    if not taps.full:  # a model may give more than it was asked for
        seen = View(z, step, taps, run.denoiser.layers)
    elif not needs.image:
        seen = View(z, step, taps, run.denoiser.layers, seen.prediction)
    return WatchedView(seen, looks)


def generous_view(run: Run, z: Latents, step: Step, kinds: Sequence[str]) -> View:
    """What guidance shows beside terms that need everything: every layer's maps, the prediction and the image."""
    points = [TapPoint(layer.name, kind) for layer in run.denoiser.layers for kind in kinds]
    seen = run.denoiser.observe(z, step, Taps(points, full=True))
    return View(z, step, seen.taps, run.denoiser.layers, seen.prediction, run.model.decode)
