"""What begins runs, lets other models render for them, and decodes what they end with."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from PIL import Image as PILImage

from ..capabilities import Releasing, sees_boxes
from ..config.merging import LOAD_KEYS
from ..config.options import plain
from ..config.other_models import folders_of
from ..config.resolve import checked_source
from ..errors import ConfigError, NonFiniteError, told_of
from ..events import Passes, Rendering
from ..guidance.contracts import check_steps, remedies
from ..guidance.run import Guidance
from ..plugins.calls import calling
from ..plugins.registry import Plugins
from ..protocols import Model, Run
from ..reductions import listed
from ..sampling.image_to_image import to_pil
from ..sampling.loop import sample
from ..types import Image, Latents
from .preflight import render_warnings
from .report import as_json
from .request import Request
from .resolving import guidance_of, resolve
from .sizes import rendered_size

T = TypeVar("T")
log = logging.getLogger(__name__)

OF_THE_MACHINE = ("memory", "tiling", "tile", "offload")
"""Options of a loader that a source takes over from the model it renders for, as they are about the machine."""


@dataclass(frozen=True)
class Engine:
    """A loaded model and the plugins. `options`: how it was loaded. `sources`: the models that have rendered for it."""

    model: Model
    plugins: Plugins
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sources: dict[str, Engine] = field(default_factory=dict[str, "Engine"], repr=False)

    def source(self, name: str, options: Mapping[str, Any]) -> Engine:
        """Another model that renders for this one, computing where and as this one does; loaded once.

        `options`: of its loader. Those about the machine, such as `offload`, are this model's where they are not given.
        """
        key = json.dumps([name, as_json(plain(dict(options)))], sort_keys=True)
        if key not in self.sources:
            own = {name: value for name, value in self.options.items() if name in OF_THE_MACHINE}
            precision = str(self.model.dtype).removeprefix("torch.")
            device = str(self.model.device)
            model = self.plugins.load_model(name, device=device, dtype=precision, wherever_taken=own, **options)
            self.sources[key] = Engine(model, self.plugins, {**own, **options})
        return self.sources[key]

    def begin(self, request: Request, renders: Renders) -> Run:
        """Everything that is fixed for one run; each sample draws its noise from its own stream, on the CPU."""
        config, shape = request.config, self.model.latent_shape(request.size)
        for term in config.terms:
            renders.models.update(folders_of(term.extractor, f"guidance.{term.name}.extractor"))
            renders.models.update(folders_of(term.distance, f"guidance.{term.name}.distance"))
        with calling("", "sampler", config.sampler, "schedule"):
            steps = check_steps(config.sampler.schedule(self.model.noise_schedule, config.steps), config.sampler)
        cfg = self.model.default_cfg if config.cfg is None else config.cfg
        generators = tuple(torch.Generator().manual_seed(seed) for seed in request.seeds)
        z_T = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return Run(
            model=self.model,
            denoiser=self.model.bind(request.prompts, request.negatives, request.layouts, cfg=cfg, count=len(steps)),
            sampler=config.sampler,
            steps=steps,
            z_T=z_T.to(self.model.device),
            seeds=request.seeds,
            layouts=request.layouts,
            size=request.size,
            generators=generators,
            renderer=renders,
        )

    @torch.no_grad()
    def decode(self, z: Latents, seeds: tuple[int, ...]) -> Image:
        """Images `[b 3 H W]` in [0, 1].

        Raises:
            NonFiniteError: names the seeds whose images are not finite.
        """
        images = self.model.decode(z)
        finite = listed(torch.isfinite(images).flatten(1).all(dim=1))
        broken = [str(seed) for seed, fine in zip(seeds, finite, strict=True) if not fine]
        if broken:
            raise NonFiniteError(
                f"the autoencoder gave values that are not finite for the seeds {', '.join(broken)}, computing in "
                f"{self.model.dtype}; {remedies(self.model, 'a lower cfg', 'a lower gamma')}"
            )
        return images

    def release(self) -> None:
        """Take the networks off the device that wait in the CPU's memory, if the model was loaded so."""
        if isinstance(self.model, Releasing):
            self.model.release()


class Renders:
    """What other models render for one run: the images of each source, made once, whoever asks for them.

    `models`: the descriptions of those that rendered, and of those that plugins load, by name. `notices`: the warnings.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.models: dict[str, Mapping[str, Any]] = {}
        self.notices: list[str] = []
        self._images: dict[str, Image] = {}

    @property
    def images(self) -> tuple[list[PILImage.Image], ...]:
        """The images of every source, in the order in which they were rendered."""
        return tuple(to_pil(images) for images in self._images.values())

    def __call__(self, source: Mapping[str, Any]) -> Passes[Image]:
        """The images of a source `[b 3 H W]` in [0, 1].

        Raises:
            ConfigError: it cannot be used, its size is larger than the run's, or one that it names has other proportions.
        """
        key = json.dumps(as_json(plain(source)), sort_keys=True)
        if key not in self._images:
            self._images[key] = yield from self._rendered(source)
        return self._images[key]

    def note(self, sentence: str) -> None:
        """Keep a warning, and log it."""
        self.notices.append(sentence)
        log.warning("%s", sentence)

    def _rendered(self, source: Mapping[str, Any]) -> Passes[Image]:
        self.engine.release()
        with told_of("source"):
            settings = checked_source(source, self.engine.plugins)
            name, size = settings.pop("model"), settings.pop("size", None)
            options = {key: settings.pop(key) for key in LOAD_KEYS if key in settings}
            other = self.engine.source(name, options)
            boxed = any(layout.boxed for layout in self.request.layouts)
            if "guidance" not in settings and boxed and not sees_boxes(other.model):
                raise ConfigError(
                    f"the model {name!r} does not see boxes, so its picture would not have the layout; name a GLIGEN model, or "
                    "give the source a guidance (or none, if that is meant)"
                )
            config = resolve(other.model, other.plugins, settings)
            asked = rendered_size(other.model, size, self.request.size)
            request = replace(self.request, config=config, size=asked, initial=(), trace=0)
            inner = Renders(other, request)
            run = other.begin(request, inner)
            self.models[name] = plain(other.model.describe())
        guidance = guidance_of(config)
        for sentence in render_warnings(run, guidance.terms, None if size is not None else self.request.size):
            self.note(f"source: {sentence}")
        z = yield from _within(name, walked(run, guidance))
        self.models.update(inner.models)
        self.notices += inner.notices
        images = other.decode(z, request.seeds)
        other.release()
        return images


def walked(run: Run, guidance: Guidance) -> Passes[Latents]:
    """A whole run."""
    pull = yield from guidance.start(run)
    return (yield from sample(run, pull))


def _within(source: str, passes: Passes[T]) -> Generator[Rendering, None, T]:
    """The events of a render, as its run hears of them."""
    try:
        while True:
            try:
                event = next(passes)
            except StopIteration as end:
                return end.value
            yield Rendering(source, event)
    finally:
        passes.close()
