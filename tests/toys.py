"""Toys for the tests of the framework: denoisers whose answers can be worked out by hand, one narrow real UNet, and plugins."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lsregen.framework.events import Stepped, StepReport, drained
from lsregen.framework.guidance.run import Guidance, GuidanceRun, Term
from lsregen.framework.layout.regions import Layout
from lsregen.framework.layout.tokens import Piece, TokenTable
from lsregen.framework.protocols import Run, Sampler
from lsregen.framework.sampling.loop import sample
from lsregen.framework.sampling.taps import EverythingRecorded, TapLayer, Taps
from lsregen.framework.types import Energy, Features, Needs, NoiseSchedule, Prediction, Step, TapRequest, View
from lsregen.models.networks.unet import UNet, UNetConfig
from lsregen.samplers.ddim import DDIM

LAYER = TapLayer("mid_block.toy", "mid", 0, 1, 1)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def token_table(prompt: str, length: int = 12, split: Mapping[str, int] | None = None) -> TokenTable:
    """Start, the words (those in `split` cut after so many characters), end and padding up to `length`."""
    pieces = [Piece(0, "<start>", 0, 0, special=True)]
    for word in re.finditer(r"\S+", prompt):
        cut = (split or {}).get(word[0])
        edges = [word.start(), word.end()] if cut is None else [word.start(), word.start() + cut, word.end()]
        for start, end in pairwise(edges):
            pieces.append(Piece(len(pieces), prompt[start:end], start, end))
    while len(pieces) < length:
        pieces.append(Piece(len(pieces), "<end>", 0, 0, special=True))
    return TokenTable(prompt, tuple(pieces))


class ToyModel:
    """Nothing but what guidance asks of a model."""

    name = "toy"
    device = torch.device("cpu")
    dtype = torch.float32
    noise_schedule = NoiseSchedule()

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z[:, :3])


class LinearDenoiser:
    """`eps = slope * z + offset`; with guidance scale `cfg`, the unconditional branch says `eps = 0`.

    Its only layer records the probabilities `[b 1 c h w]` of a softmax over the channels. Counts what is asked of it.
    """

    def __init__(self, slope: float = 0.5, offset: float = 0.1, cfg: float = 1.0, prompts: Sequence[str] = ("toy",)) -> None:
        self.slope, self.offset, self.cfg = slope, offset, cfg
        self.layers = (LAYER,)
        self.prompts = tuple(prompts)
        self.tokens = tuple(token_table(prompt) for prompt in prompts)
        self.observed: list[tuple[int, Taps]] = []
        self.predicted: list[Prediction | None] = []

    def conditional(self, z: Tensor, step: Step) -> Prediction:
        return Prediction.from_eps(z, self.slope * z + self.offset, step)

    def predict(self, z: Tensor, step: Step, conditional: Prediction | None = None) -> Prediction:
        self.predicted.append(conditional)
        with torch.no_grad():
            known = conditional or self.conditional(z, step)
            return Prediction.from_eps(z, self.cfg * known.eps, step)

    def observe(self, z: Tensor, step: Step, taps: Taps) -> View:
        self.observed.append((step.index, taps))
        with torch.enable_grad():
            try:
                if taps.wants(LAYER.name, "cross_probs"):
                    taps.record(LAYER.name, "cross_probs", torch.softmax(z, dim=1)[:, None])
            except EverythingRecorded:
                return View(z, step, taps, self.layers)
            return View(z, step, taps, self.layers, self.conditional(z, step), ToyModel().decode)

    def select(self, samples: Sequence[int]) -> Self:
        some = copy(self)  # its records are this one's
        some.prompts, some.tokens = tuple(self.prompts[i] for i in samples), tuple(self.tokens[i] for i in samples)
        return some


NARROW = UNetConfig(
    in_channels=4,
    out_channels=4,
    widths=(8, 16),
    attention_down=(True, True),
    attention_up=(True, True),
    heads=(2, 2),
    depths=(1, 1),
    context_channels=6,
    layers_per_block=1,
    groups=4,
)


class UNetDenoiser:
    """A narrow real UNet with random weights; every word of a prompt has an embedding of its own."""

    def __init__(self, prompts: Sequence[str], seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unet = UNet(NARROW).requires_grad_(False)
        self.layers = self.unet.layers
        self.prompts = tuple(prompts)
        self.tokens = tuple(token_table(prompt) for prompt in prompts)
        self.context = torch.stack([self._embed(table) for table in self.tokens])
        self.observed: list[int] = []

    @staticmethod
    def _embed(table: TokenTable) -> Tensor:
        return torch.stack([3 * draw(sum(map(ord, piece.text)) + piece.index, NARROW.context_channels) for piece in table.pieces])

    def predict(self, z: Tensor, step: Step, conditional: Prediction | None = None) -> Prediction:
        with torch.no_grad():
            return conditional or Prediction.from_eps(z, self.unet(z, self._t(z, step), self.context), step)

    def observe(self, z: Tensor, step: Step, taps: Taps) -> View:
        self.observed.append(step.index)
        with torch.enable_grad():
            eps = self.unet.observe(z, self._t(z, step), self.context, taps)
            return View(z, step, taps, self.layers, None if eps is None else Prediction.from_eps(z, eps, step))

    def select(self, samples: Sequence[int]) -> Self:
        some = copy(self)
        some.prompts, some.tokens = tuple(self.prompts[i] for i in samples), tuple(self.tokens[i] for i in samples)
        some.context = self.context[list(samples)]
        return some

    def _t(self, z: Tensor, step: Step) -> Tensor:
        return torch.full((len(z),), step.t)


def make_run(
    denoiser: Any, z: Tensor, *, count: int = 5, layouts: Sequence[Layout] = (), sampler: Sampler | None = None, seed: int = 0
) -> Any:
    """A `Run` of `count` steps from `z`; sample `i` has the seed `seed + i`. Tests look at its toy denoiser's own records."""
    sampler = sampler or DDIM()
    model: Any = ToyModel()
    seeds = tuple(seed + i for i in range(len(z)))
    return Run(
        model=model,
        denoiser=denoiser,
        sampler=sampler,
        steps=sampler.schedule(model.noise_schedule, count),
        z_T=z,
        seeds=seeds,
        layouts=tuple(layouts) or (Layout(),) * len(z),
        size=(8 * z.shape[-1], 8 * z.shape[-2]),
        generators=tuple(torch.Generator().manual_seed(s) for s in seeds),
    )


def plain_walk(run: Run) -> Tensor:
    """The sampler without any guidance, written out."""
    z = run.z_T
    for step in run.steps:
        z = run.sampler.step(z, run.denoiser.predict(z, step), step, run.noise(step))
    return z


def features(*maps: Tensor, present: Tensor | None = None, group: Tensor | None = None, kind: str = "attention") -> Features:
    """Features of maps `[b n k h w]`; by default every thing is present, and a phrase of its own."""
    b, k = maps[0].shape[0], maps[0].shape[2]
    return Features(
        maps,
        kind,
        torch.ones(b, k, dtype=torch.bool) if present is None else present,
        torch.arange(k).expand(b, k) if group is None else group,
    )


@dataclass(frozen=True)
class Look:
    """Looks at one thing: `z` (runs no network), `z0` or `image` of the prediction, or `probs` of the toy's layer."""

    at: str = "z"
    aim: Any = 0.0

    kind: ClassVar[str] = "latent"

    @property
    def needs(self) -> Needs:
        return {
            "z": Needs(),
            "z0": Needs(prediction=True),
            "image": Needs(image=True),
            "probs": Needs(taps=(TapRequest("cross_probs", ("all",)),)),
        }[self.at]

    def prepare(self, run: Run, raster: str) -> Any:
        assert not torch.is_grad_enabled()
        return None

    def current(self, view: View, state: Any) -> Features:
        assert torch.is_grad_enabled()
        if self.at == "probs":
            return features(view.taps[next(iter(view.taps.wanted))], kind=self.kind)
        values = {"z": lambda: view.z, "z0": lambda: view.z0, "image": view.image}[self.at]()
        return features(values[:, None], kind=self.kind)

    def target(self, view: View, state: Any) -> Features | None:
        if self.aim is None:
            return None
        maps = self.current(view, state).maps[0].detach()
        return features(torch.zeros_like(maps) + self.aim, kind=self.kind)


@dataclass(frozen=True)
class Measure:
    """An energy given by a function of the first map `[b n k h w]`."""

    of: Callable[[Tensor], Tensor]
    refine: Callable[[Tensor], Tensor] | None = None
    raster: str = "area"

    accepts: ClassVar[tuple[str, ...]] = ("latent",)
    needs_target: ClassVar[bool] = False

    def __call__(self, current: Features, target: Features | None) -> Energy:
        value = self.of(current.maps[0])
        return Energy(value, value.detach(), None if self.refine is None else self.refine(current.maps[0]))


def square(maps: Tensor) -> Tensor:
    return maps.square().flatten(1).sum(dim=1)


def mean_square(maps: Tensor) -> Tensor:
    return maps.square().flatten(1).mean(dim=1)


class Pulls:
    """Guidance within a run, whose generators are waited for."""

    def __init__(self, pull: GuidanceRun) -> None:
        self.pull = pull

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pull, name)

    def before(self, z: Tensor, step: Step) -> Tensor:
        return drained(self.pull.before(z, step))

    def predict(self, z: Tensor, step: Step) -> Prediction:
        return drained(self.pull.predict(z, step))


def start(terms: Guidance | Term | Sequence[Term], run: Run) -> Any:
    """Guidance, or what it is made of, within a run."""
    guidance = terms if isinstance(terms, Guidance) else Guidance(terms)
    return Pulls(drained(guidance.start(run)))


def sampled(run: Run, guidance: Guidance, on_step: Callable[[StepReport], object] | None = None) -> tuple[Tensor, GuidanceRun]:
    """A whole run: the latent that it ends with, and its guidance. `on_step` sees every step, and ends the run with False."""
    pull = drained(guidance.start(run))
    passes = sample(run, pull)
    while True:
        try:
            event = next(passes)
        except StopIteration as end:
            return end.value, pull
        if isinstance(event, Stepped) and on_step is not None and on_step(event.report) is False:
            return event.report.z_next, pull


def gradient_of(energy: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    leaf = z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf)
    return gradient


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())
