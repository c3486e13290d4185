"""The protocols of the library: what models, samplers, extractors and distances do, and what one run fixes for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from .errors import ConfigError
from .events import Inverted, Passes, drained
from .plugins.calls import calling
from .sampling.taps import TapLayer, Taps
from .types import Energy, Features, Image, Latents, Needs, NoiseSchedule, Prediction, Step, View

if TYPE_CHECKING:
    from .layout.regions import Layout
    from .layout.tokens import TokenTable


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
        """Once a run, without gradient: spans, masks (by the distance's `raster`), renders. The result comes back as `state`.

        It may be a generator, which returns the state: what makes passes through a network should be one, with
        `image = yield from run.rendering(source)` and `latents = yield from run.inverting(z0)`. The run can then be watched and
        cancelled between any two of those passes. A plain `prepare` calls `run.render` and `run.invert`, which it waits for.
        """
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
    """Loaded weights, stateless. What some can do besides stands in `capabilities.py`."""

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
    renderer: Callable[[Mapping[str, Any]], Passes[Image]] | None = field(repr=False, default=None)
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

    def rendering(self, source: Mapping[str, Any]) -> Passes[Image]:
        """Images `[b 3 H W]` of this run's prompts and layouts, made by another configuration.

        `source` has its own `model`, `guidance`, `size`, ..., and says how its model is loaded (`revision`, `vae`, ...).
        The images are no larger than this run's, and have their proportions. A source is rendered once a run, whoever asks.

        Raises:
            ConfigError: a configuration that cannot be used, or of such a size.
        """
        if self.renderer is None:
            raise ConfigError("this run cannot render a source image: it was not started by a Pipeline")
        return (yield from self.renderer(source))

    def render(self, source: Mapping[str, Any]) -> Image:
        """`rendering`, waited for."""
        return drained(self.rendering(source))

    @torch.no_grad()
    def inverting(self, z0: Latents) -> Passes[dict[int, Latents]]:
        """The latents that deterministic sampling would pass on its way to `z0`, by step index (Song et al. 2020, eq. 12).

        The model is asked at each step's own timestep, with its prompt and without classifier-free guidance.
        """
        z, found = z0, dict[int, Latents]()
        for step in reversed(self.steps):
            cleaner = replace(step, alpha_bar=step.alpha_bar_prev)  # the level that z is at while the model is asked
            prediction = self.denoiser.observe(z, cleaner, Taps((), full=True)).prediction
            with calling(f"step {step.index}", "sampler", self.sampler, "invert_step"):
                z = found[step.index] = self.sampler.invert_step(z, prediction, step)
            del prediction
            yield Inverted(step)
        return found

    def invert(self, z0: Latents) -> dict[int, Latents]:
        """`inverting`, waited for."""
        return drained(self.inverting(z0))
