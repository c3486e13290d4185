"""The nouns of the library: what models, samplers, extractors and distances are, and what passes between them.

Axis words, used everywhere: `b` samples, `n` views (attention heads, or 1), `k` things (word pieces, phrases, latent channels),
`h w` a grid, `c` channels. `z` is a latent, `z0` the clean latent a model predicts from it, `eps` the predicted noise,
`t` a training timestep, `alpha_bar` the share of signal power left at `t`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from .config.options import check_options
from .errors import ConfigError
from .plugins.calls import calling
from .sampling.taps import TapLayer, TapPoint, TapRequest, Taps

if TYPE_CHECKING:
    from .layout.regions import Layout
    from .layout.tokens import TokenTable

Latents: TypeAlias = Annotated[Tensor, "b c h w"]
Image: TypeAlias = Annotated[Tensor, "b 3 H W, in [0, 1]"]
Maps: TypeAlias = Annotated[Tensor, "b n k h w"]
PerSample: TypeAlias = Annotated[Tensor, "b"]


@dataclass(frozen=True)
class Step:
    """One sampling step: from `alpha_bar` (noisier, at training timestep `t`) to `alpha_bar_prev` (cleaner).

    `index` counts from 0, the noisiest; `count` is the number of steps of the whole run.
    """

    index: int
    count: int
    t: int
    alpha_bar: float
    alpha_bar_prev: float

    @property
    def fraction(self) -> float:
        """Share of the steps already made, in [0, 1)."""
        return self.index / self.count


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise a model was trained with, and how published samplers space steps on it: the fields of `scheduler_config.json`."""

    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    spacing: str = "leading"
    steps_offset: int = 1
    final_alpha_one: bool = False
    zero_terminal_snr: bool = False
    clip_sample: float = 0.0  # clip z0 to +- this; 0 never clips

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of `z`: the noise in it, and the clean latent under it, both `[b c h w]`.

    The two travel together because a pull at the site `z0` moves one and keeps the other, and because at zero terminal
    signal `z0` cannot be had from `eps`.
    """

    eps: Latents
    z0: Latents

    @classmethod
    def from_eps(cls, z: Latents, eps: Latents, step: Step) -> Prediction:
        return cls(eps, (z - (1 - step.alpha_bar) ** 0.5 * eps) / step.alpha_bar**0.5)

    @classmethod
    def from_v(cls, z: Latents, v: Latents, step: Step) -> Prediction:
        """From the velocity `v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z0` (Salimans & Ho 2022)."""
        signal, noise = step.alpha_bar**0.5, (1 - step.alpha_bar) ** 0.5
        return cls(signal * v + noise * z, signal * z - noise * v)


@dataclass(frozen=True)
class Needs:
    """What an extractor looks at besides `z`. Nothing at all means that no network runs for it."""

    taps: tuple[TapRequest, ...] = ()
    prediction: bool = False  # eps or z0 of the conditional branch: the pass runs to its end
    image: bool = False  # the decoded z0; implies prediction

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def estimate(self) -> bool:
        """Whether it looks at what the pass ends with: the prediction, or the picture that is decoded from it."""
        return self.prediction or self.image


class View:
    """What an extractor may look at: `z` of one step, what the pass recorded, and lazily `eps`, `z0` and the image."""

    def __init__(
        self,
        z: Latents,
        step: Step,
        taps: Taps,
        layers: Sequence[TapLayer] = (),
        prediction: Prediction | None = None,
        decode: Callable[[Latents], Image] | None = None,
    ) -> None:
        self.z, self.step, self.taps, self.layers = z, step, taps, tuple(layers)
        self._prediction, self._decode = prediction, decode
        self._image: Image | None = None

    def __getitem__(self, point: TapPoint) -> Maps:
        return self.taps[point]

    @property
    def prediction(self) -> Prediction:
        """What the conditional branch predicts; differentiable in `z`."""
        if self._prediction is None:
            raise ConfigError("this pass did not predict the noise; declare `Needs(prediction=True)` in the extractor")
        return self._prediction

    @property
    def eps(self) -> Latents:
        return self.prediction.eps

    @property
    def z0(self) -> Latents:
        return self.prediction.z0

    def image(self) -> Image:
        """The predicted clean image, differentiable in `z`; decoded once however many terms ask."""
        if self._decode is None:
            raise ConfigError("this pass has no autoencoder; declare `Needs(image=True)` in the extractor")
        if self._image is None:
            self._image = self._decode(self.z0)
        return self._image

    @property
    def loose(self) -> str:
        """A part of the pass through which no gradient goes, in words; empty if there is none."""
        if self.taps.loose:
            return f"the tap point {self.taps.loose[0]}"
        known = self._prediction
        return "the prediction" if known is not None and not (known.eps.requires_grad or known.z0.requires_grad) else ""

    def spread(self, z: Latents, taken: Callable[[Tensor], Tensor]) -> View:
        """This look at some samples as one at the whole batch `z`: `taken` gives each what it takes of a tensor `[b ...]`."""
        known = self._prediction
        prediction = None if known is None else Prediction(taken(known.eps), taken(known.z0))

        def decode(_: Latents) -> Image:
            return taken(self.image())  # only what was seen is decoded

        decoder = None if self._decode is None else decode
        return View(z, self.step, self.taps.spread(taken), self.layers, prediction, decoder)


@dataclass(frozen=True)
class Features:
    """One shape for everything that is measured.

    `maps`: tensors `[b n k h w]`, whose grids may differ. `kind`: one of `FEATURE_KINDS`. `present` `[b k]` bool: which
    things exist in which sample (a distance ignores the others; a run refuses a sample that has none). `group` `[b k]` int: the
    phrase a thing belongs to; energies are averaged within a group first. `weight`: a spatial weight for each of the maps, which
    it broadcasts against. `relations`: pairs of phrases, by group, with +1 where they should agree and -1 where they should
    differ. `layouts`: the boxes themselves.
    """

    maps: tuple[Maps, ...]
    kind: str
    present: Tensor
    group: Tensor
    weight: tuple[Tensor, ...] | None = None
    relations: tuple[tuple[int, int, int], ...] = ()
    layouts: tuple[Layout, ...] = ()


@dataclass(frozen=True)
class Energy:
    """Scalars per sample, `[b]` each: what is minimised, what stop rules watch, what is minimised during refinement."""

    value: PerSample
    watch: PerSample
    refine: PerSample | None = None

    @classmethod
    def of(cls, value: PerSample) -> Energy:
        """An energy that is its own watch."""
        return cls(value, value.detach())


class FeatureExtractor(Protocol):
    """What to look at. Implementations are frozen dataclasses: their fields are the options, their docstring the help text.

    One may also have a method `initial(run, state) -> Latents | None`: the latent to start from, if it has an opinion.
    """

    kind: ClassVar[str]

    @property
    def needs(self) -> Needs:
        """Static: depends on the options alone."""
        ...

    def prepare(self, run: Run, raster: str) -> Any:
        """Once a run, without gradient: spans, masks (by the distance's `raster`), renders. The result comes back as `state`."""
        ...

    def current(self, view: View, state: Any) -> Features:
        """The features of `z`, differentiable."""
        ...

    def target(self, view: View, state: Any) -> Features | None:
        """What they should be; None when the distance compares the current features among themselves."""
        ...


class Distance(Protocol):
    """How far it is. Implementations are frozen dataclasses, like extractors.

    One whose gradient is twice the way to the target may say so by an attribute `blends`: its strength can be given as a `blend`.
    """

    accepts: ClassVar[tuple[str, ...]]
    needs_target: ClassVar[bool]

    @property
    def raster(self) -> str:
        """The name of the rule by which boxes become masks on a grid (see `rasters.RASTERS`)."""
        ...

    def __call__(self, current: Features, target: Features | None) -> Energy: ...


class Sampler(Protocol):
    """How a latent walks: pure functions that know nothing of guidance. Implementations are frozen dataclasses."""

    def schedule(self, noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
        """`count` steps, noisiest first."""
        ...

    def step(self, z: Latents, prediction: Prediction, step: Step, noise: Latents | None) -> Latents:
        """From `step.alpha_bar` to `step.alpha_bar_prev`. `noise` is standard normal; None only if `stochastic` is False."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether `step` uses its noise."""
        ...

    def invert_step(self, z: Latents, prediction: Prediction, step: Step) -> Latents:
        """From `step.alpha_bar_prev` to `step.alpha_bar`, deterministically."""
        ...


class Denoiser(Protocol):
    """A model bound to one batch: prompts, negatives, layouts, guidance scale."""

    layers: tuple[TapLayer, ...]
    prompts: tuple[str, ...]
    tokens: tuple[TokenTable, ...]

    def predict(self, z: Latents, step: Step, conditional: Prediction | None = None) -> Prediction:
        """The prediction that the sampler follows, classifier-free guidance inside.

        `conditional`: the conditional branch's prediction at this very `z`, if a guided pass has made it already.
        """
        ...

    def observe(self, z: Latents, step: Step, taps: Taps) -> View:
        """One differentiable pass of the conditional branch, grounding included; records `taps`, and ends as soon as it can."""
        ...

    def select(self, samples: Sequence[int]) -> Denoiser:
        """The same for some samples of the batch, by their places in it."""
        ...


class Model(Protocol):
    """Loaded weights, stateless.

    One that brings its networks to the device only while they are needed may have a method `release()`, which takes them off it:
    it is called before another model is loaded to render for this one.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    noise_schedule: NoiseSchedule
    default_size: tuple[int, int]
    default_cfg: float
    factor: int
    latent_channels: int

    def bind(
        self, prompts: Sequence[str], negatives: Sequence[str], layouts: Sequence[Layout], *, cfg: float, count: int
    ) -> Denoiser:
        """A denoiser for one batch. `count`: the number of sampling steps (grounding may end after a fraction of them)."""
        ...

    def tokens(self, prompt: str) -> TokenTable: ...

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of `size` (width, height)."""
        ...

    def encode_image(self, images: Image) -> Latents: ...

    def decode(self, z: Latents) -> Image: ...

    def describe(self) -> Mapping[str, Any]:
        """What a report records of the weights: name, family, hashes."""
        ...


@dataclass(frozen=True)
class Run:
    """Everything fixed for one run of one batch, and the services that extractors may call while they prepare."""

    model: Model
    denoiser: Denoiser
    sampler: Sampler
    steps: tuple[Step, ...]
    z_T: Latents
    seeds: tuple[int, ...]
    layouts: tuple[Layout, ...]
    size: tuple[int, int]
    generators: tuple[torch.Generator, ...] = field(repr=False, default=())
    renderer: Callable[[Mapping[str, Any]], Image] | None = field(repr=False, default=None)
    eps_T: Latents | None = field(repr=False, default=None)  # the noise in z_T, where there is more than noise in it

    @property
    def initial_noise(self) -> Latents:
        """The noise that the run starts from, `[b c h w]`."""
        return self.z_T if self.eps_T is None else self.eps_T

    def noise(self, step: Step) -> Latents | None:
        """Fresh standard normal noise `[b c h w]` for a stochastic step; each sample draws from its own stream, on the CPU."""
        with calling("", "sampler", self.sampler, "stochastic"):
            if not self.sampler.stochastic:
                return None
        shape = self.z_T.shape[1:]
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.z_T)

    def render(self, source: Mapping[str, Any]) -> Image:
        """Images of this run's prompts and layouts, made by another configuration (its own `model`, `guidance`, `size`, ...).

        They are no larger than this run's, and have their proportions. The other model is loaded for this call and freed
        afterwards.

        Raises:
            ConfigError: a configuration that cannot be used, or of such a size.
        """
        if self.renderer is None:
            raise ConfigError("this run cannot render a source image: it was not started by a Pipeline")
        return self.renderer(source)

    @torch.no_grad()
    def invert(self, z0: Latents) -> dict[int, Latents]:
        """The latents that deterministic sampling would pass on its way to `z0`, by step index (Song et al. 2020, eq. 12).

        The model is asked at each step's own timestep, with its prompt and without classifier-free guidance.
        """
        z, found = z0, dict[int, Latents]()
        for step in reversed(self.steps):
            cleaner = replace(step, alpha_bar=step.alpha_bar_prev)  # the level that z is at while the model is asked
            prediction = self.denoiser.observe(z, cleaner, Taps((), full=True)).prediction
            with calling(f"step {step.index}", "sampler", self.sampler, "invert_step"):
                z = found[step.index] = self.sampler.invert_step(z, prediction, step)
        return found


@dataclass(frozen=True)
class StepReport:
    """What an observer sees of one finished step: the latent that was denoised, the next one, and what was predicted.

    `energies`: the last watched energy `[b]` of every term evaluated so far.
    """

    step: Step
    z: Latents
    z_next: Latents
    prediction: Prediction
    energies: Mapping[str, Tensor]
