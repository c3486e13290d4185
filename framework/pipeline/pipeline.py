"""From a prompt, a layout and a configuration to images: the one place where models, samplers and guidance meet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import torch
from PIL import Image as PILImage

from ..config.options import convert
from ..config.presets import DEFAULT_MODEL
from ..config.resolve import ResolvedConfig
from ..errors import ConfigError
from ..events import Stepped, StepReport
from ..guidance.run import Guidance
from ..layout.regions import Layout
from ..plugins.class_checks import check_instance
from ..plugins.registry import Plugins, installed
from ..protocols import Model
from .engine import Engine
from .events import Event, Finished
from .making import Making
from .progress_bar import ProgressBar
from .report import Result
from .request import Request, Settings, check_callable, checked_request, make_batch, make_request
from .resolving import GuidanceLike, SamplerLike, guidance_of, resolve
from .sweep import Sweep, settings_of, varied

OnStep: TypeAlias = Callable[[StepReport], bool | None]
"""Sees every finished step; returning False ends the run there."""


class Pipeline:
    """A loaded model, ready to make images.

    `Pipeline.load("shapeworld-base")("a red circle and a blue square", layout=..., guidance="layout-guidance", seed=0)`

    Models that render for it (`Run.rendering`) stay loaded with it, so that a next batch finds them.
    """

    def __init__(self, model: Model, plugins: Plugins | None = None, options: Mapping[str, Any] | None = None) -> None:
        """`options`: how the model was loaded; models that render for it take over `memory`, `tiling`, `tile` and `offload`."""
        check_instance("model", model)
        self.model = model
        self.plugins = installed(plugins)
        self._engine = Engine(self.model, self.plugins, convert({} if options is None else options, Mapping[str, Any], "options"))

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        plugins: Plugins | None = None,
        **options: Any,
    ) -> Pipeline:
        """Load the weights of an embedded model by name, of a model's folder or file by path, or of the hub's `owner/name`.

        Args:
            options: those of `LoadOptions` by name, such as `device="cpu"`, `dtype="fp16"` or `vae="vae.safetensors"`.

        Raises:
            ConfigError: no such model, device, dtype or option, or a value that it cannot have.
            CheckpointError: the files cannot be used.
        """
        plugins = installed(plugins)
        return cls(plugins.load_model(model, **options), plugins, options)

    def __call__(
        self,
        prompt: str | Iterable[str] | Request,
        *,
        on_step: OnStep | None = None,
        progress: bool = False,
        **settings: Unpack[Settings],
    ) -> Result:
        """Make one batch of images, and wait for it.

        Args:
            prompt: one prompt, one for each image, or a whole request, which settles everything itself.
            on_step: sees every step, and ends the run by returning False; see `stream` for what a run that is ended gives.
            progress: whether a progress bar is shown.
            settings: as `request` takes them.

        Raises:
            ConfigError, LayoutError, PhraseError: a setting, a box or a phrase cannot be used.
            NonFiniteError: a value became NaN or infinite.
        """
        check_callable(on_step, "on_step")
        if isinstance(prompt, Request) and settings:
            raise ConfigError(f"{next(iter(settings))}: beside a request, which settles it; make the request so instead")
        request = prompt if isinstance(prompt, Request) else self.request(prompt, **settings)
        with closing(self.stream(request)) as events, ProgressBar(shown=progress) as bar:
            on: bool | None = None
            while True:
                event = events.send(on)
                bar.show(event)
                if isinstance(event, Finished):
                    return event.result
                on = on_step(event.report) if on_step is not None and isinstance(event, Stepped) else None

    def stream(self, request: Request) -> Generator[Event, bool | None, None]:
        """Make one batch of images, and tell of everything that happens: see `Event`.

        It pauses at each event. Closing it (`close`) cancels the run there: between any two passes, in repeated updates, renders
        and inversions too. So does sending False (`send(False)`), which gives an image too: what follows then is `Finished`, with
        the last estimate of the clean image and `result.finished` False; or nothing, where no step was made yet.

        Raises:
            ConfigError, LayoutError, PhraseError: something cannot be used.
            NonFiniteError: a value became NaN or infinite.
        """
        return self._stream(Making(self._engine, checked_request(request)))

    @torch.no_grad()
    def _stream(self, making: Making) -> Generator[Event, bool | None, None]:
        with closing(making.events()) as events:
            for event in events:
                if (yield event) is False:
                    break
        if making.last is not None:
            yield Finished(making.result())

    def request(
        self,
        prompt: str | Iterable[str],
        *,
        layout: Layout | Iterable[Layout | None] | None = None,
        negative: str | Iterable[str] = "",
        guidance: GuidanceLike = None,
        steps: int | None = None,
        cfg: float | None = None,
        sampler: SamplerLike = None,
        seed: int | Iterable[int] | None = None,
        count: int = 1,
        size: tuple[int, int] | None = None,
        init_image: PILImage.Image | Iterable[PILImage.Image] | None = None,
        strength: float | None = None,
        sets: Iterable[str] = (),
        trace: int = 0,
    ) -> Request:
        """A batch and its resolved configuration, checked as far as that goes before anything is computed.

        Where one is given per image, any iterable with an order will do, such as a list or an array.

        Args:
            prompt: one prompt for `count` images with the seeds `seed, seed + 1, ...`, or one prompt per image.
            layout: the phrases and their places; one for all images, or one (or None) per image. It pulls by `guidance` alone.
            negative: what to steer away from, one for all or one per image.
            guidance: the name of a preset, a YAML file, a configuration as a mapping, a `Guidance`, a `Term` or a list
                of them, a configuration that `resolve` gave, or None for none.
            steps, cfg, sampler: override the preset's; cfg 1 switches classifier-free guidance off. A sampler is a name, a
                mapping with its options, or an object.
            seed: of the first image, or one per image.
            size: width and height in pixels; the model's own by default.
            init_image: start from this picture instead of from noise (image-to-image; Meng et al. 2022, SDEdit); one for all
                images, or one per image, of `size`'s proportions. Its own size is the default one.
            strength: how much of the walk is made then, 0.8 by default: 1 is all of it, and leaves little of the picture.
            sets: further settings as text, e.g. `"guidance.layout.gamma=40"`.
            trace: at how many steps the attention maps of the phrases are recorded.

        Raises:
            ConfigError, LayoutError, PhraseError: a setting, a box or a phrase cannot be used.
        """
        config, _ = self.resolve(guidance, steps=steps, cfg=cfg, sampler=sampler, sets=sets)
        batch = make_batch(prompt, negative, layout, config.seed if seed is None else seed, count)
        return make_request(
            self.model, config, batch, size=size, init_image=init_image, strength=strength, trace=trace, asked=guidance
        )

    def resolve(
        self,
        guidance: GuidanceLike,
        *,
        steps: int | None = None,
        cfg: float | None = None,
        sampler: SamplerLike = None,
        sets: Iterable[str] = (),
    ) -> tuple[ResolvedConfig, Guidance]:
        """The complete configuration of a run, every default filled in, and the guidance it describes.

        Raises:
            ConfigError: a setting that cannot be used, one that another overrides too; or `sets` of an object's settings.
        """
        config = resolve(self.model, self.plugins, guidance, steps=steps, cfg=cfg, sampler=sampler, sets=sets)
        return config, guidance_of(config)

    def sweep(self, request: Request, settings: Mapping[str, Sequence[Any]], *, progress: bool = False) -> Sweep:
        """The images of a request for every combination of some settings, such as `{"guidance.layout.gamma": [10, 30, 100]}`.

        Args:
            settings: the values of each setting, by its name in a configuration, as in `sets`.
            progress: whether a progress bar is shown for each run.

        Raises:
            ConfigError: no such setting, a value that it cannot have, or no values.
        """
        request, every = checked_request(request), settings_of(settings)
        requests = [varied(request, each, self.plugins) for each in every]  # all are checked before the first image
        return Sweep(tuple(every), tuple(self(each, progress=progress) for each in requests))
