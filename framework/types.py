"""The values of the library: what passes between models, samplers, extractors and distances (`protocols.py`).

Axis words, used everywhere: `b` samples, `n` views (attention heads, or 1), `k` things (word pieces, phrases, latent channels),
`h w` a grid, `c` channels. `z` is a latent, `z0` the clean latent a model predicts from it, `eps` the predicted noise,
`t` a training timestep, `alpha_bar` the share of signal power left at `t`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from torch import Tensor

from .config.options import check_options
from .errors import ConfigError
from .sampling.taps import TapLayer, TapPoint, TapRequest, Taps

if TYPE_CHECKING:
    from .layout.regions import Layout

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
    phrases: bool = False  # the phrases of the layout, of which there must be one; their places are the target, if one is needed

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
