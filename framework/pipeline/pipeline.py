"""From a prompt, a layout and a configuration to images: the one place where models, samplers and guidance meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import torch
from PIL import Image as PILImage

from ..config.constraints import Range
from ..config.merging import KEYS, apply_sets, merge
from ..config.options import convert, plain
from ..config.other_models import folders_of
from ..config.presets import DEFAULT_MODEL
from ..config.resolve import ResolvedConfig, checked_source, load_guidance, validate
from ..config.values import MOST_STEPS, as_list
from ..errors import ConfigError, NonFiniteError, told_of
from ..events import StepReport
from ..guidance.contracts import check_steps, overshoot, remedies
from ..guidance.run import Guidance, Term
from ..layout.regions import Layout
from ..layout.tokens import check_phrases
from ..pipeline.sizes import check_proportions
from ..plugins.calls import calling
from ..plugins.class_checks import check_instance
from ..plugins.registry import Plugins, installed
from ..protocols import Model, Run
from ..sampling.attention_trace import AttentionTrace
from ..sampling.image_to_image import beginning, checked_strength, entered, pictures_of, to_pil
from ..sampling.loop import OnStep, sample
from ..sampling.taps import select_layers
from ..types import Image
from .preflight import check_seen, render_warnings, unused_settings
from .report import Report, Result, described
from .requests import Batch, check_callable, make_batch
from .sizes import checked_size, rendered_size

log = logging.getLogger(__name__)

GuidanceLike: TypeAlias = "Guidance | Term | Sequence[Term] | Mapping[str, Any] | str | Path | None"


class Pipeline:
    """A loaded model, ready to make images.

    `Pipeline.load("shapeworld-base")("a red circle and a blue square", layout=..., guidance="layout-guidance", seed=0)`
    """

    def __init__(self, model: Model, plugins: Plugins | None = None) -> None:
        check_instance("model", model)
        self.model = model
        self.plugins = installed(plugins)

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        plugins: Plugins | None = None,
        **options: Any,
    ) -> Pipeline:
        """Load the weights of an embedded model by name, of a model's folder or file by path, or of the hub's `owner/name`.

        Args:
            options: `revision` (a branch, a tag or a commit) of a model of the hub; the others are of the plugin that loads it.
                lsregen's own take `vae` (the path of another autoencoder), `variant` (of a folder's weights, such as `fp16`),
                `prediction_type` (`epsilon` or `v_prediction`), for a single file `family` (`sd1`, `sd2`, `sdxl`), and for GLIGEN
                `grounding` (the share of the steps, from the first, in which it sees the boxes). `memory` is what guided passes
                keep of what they compute: `fast` (nearly all), `balanced`, or `low` (little, for a third more time); the pull is
                the same. `tiling` (`auto`, `on`, `off`) and `tile` (pixels): whether the autoencoder takes large images piece by
                piece. `offload`: the networks wait in the CPU's memory, and come to the device for the stage that needs them.

        Raises:
            ConfigError: no such model, device, dtype or option.
            CheckpointError: the files cannot be used.
        """
        plugins = installed(plugins)
        return cls(plugins.load_model(model, device=device, dtype=dtype, **options), plugins)

    def __call__(
        self,
        prompt: str | Iterable[str],
        *,
        layout: Layout | Iterable[Layout | None] | None = None,
        negative: str | Iterable[str] = "",
        guidance: GuidanceLike = None,
        steps: int | None = None,
        cfg: float | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        seed: int | Iterable[int] | None = None,
        count: int = 1,
        size: tuple[int, int] | None = None,
        init_image: PILImage.Image | Iterable[PILImage.Image] | None = None,
        strength: float | None = None,
        sets: Iterable[str] = (),
        on_step: OnStep | None = None,
        trace: int = 0,
    ) -> Result:
        """Make one batch of images. Where one is given per image, any iterable with an order will do, such as a list or an array.

        Args:
            prompt: one prompt for `count` images with the seeds `seed, seed + 1, ...`, or one prompt per image.
            layout: the phrases and their places; one for all images, or one (or None) per image. It pulls by `guidance` alone.
            negative: what to steer away from, one for all or one per image.
            guidance: the name of a preset, a YAML file, a configuration as a mapping, a `Guidance`, a `Term` or a list
                of them, or None for none.
            steps, cfg, sampler: override the preset's; cfg 1 switches classifier-free guidance off.
            seed: of the first image, or one per image.
            size: width and height in pixels; the model's own by default.
            init_image: start from this picture instead of from noise (image-to-image; Meng et al. 2022, SDEdit); one for all
                images, or one per image, of `size`'s proportions. Its own size is the default one.
            strength: how much of the walk is made then, 0.8 by default: 1 is all of it, and leaves little of the picture.
            sets: further settings as text, e.g. `"guidance.layout.gamma=40"`.
            on_step: sees every step, and ends the run by returning False.
            trace: at how many steps the attention maps of the phrases are recorded.

        Raises:
            ConfigError, LayoutError, PhraseError: a setting, a box or a phrase cannot be used.
            NonFiniteError: a value became NaN or infinite.
        """
        clock = _Clock()
        check_callable(on_step, "on_step")
        trace = convert(trace, Annotated[int, Range(0, MOST_STEPS)], "trace")
        resolved, terms = self.resolve(guidance, steps=steps, cfg=cfg, sampler=sampler, sets=sets)
        batch = make_batch(prompt, negative, layout, resolved.seed if seed is None else seed, count)
        resolved = replace(resolved, seed=batch.seeds[0])  # what the report says makes this image again
        if size is not None:
            size = checked_size(size)
        pictures = None if init_image is None else pictures_of(init_image, len(batch.prompts))
        strength = checked_strength(strength, pictures, resolved.steps)
        if not terms.terms and any(layout.boxed for layout in batch.layouts):
            check_seen(self.model, str(guidance))
        if size is None and pictures:
            size = pictures[0].size
            with told_of("init_image"):
                self.model.latent_shape(size)
        models: dict[str, Mapping[str, Any]] = {}
        run = self._start(resolved, batch, size or self.model.default_size, models)
        if pictures is not None:
            run = entered(run, pictures, strength)
        run, renders = _keeping_renders(run)
        for table, layout in zip(run.denoiser.tokens, run.layouts, strict=True):
            check_phrases(table, layout.phrases, seen=bool(terms.terms))
            check_proportions(layout, run.size)
        cfg = cast("float", resolved.cfg)
        for sentence in unused_settings(run, guidance, bool(terms.terms), batch.negatives, cfg):
            log.warning("%s", sentence)
        for term in terms.terms:
            if said := overshoot(term.name, term.extractor, term.distance, term.schedule):
                log.warning("%s", said)
        tracer = self._tracer(run, trace)
        clock.lap("prepare")
        watch = _Watch(tracer, on_step)
        z, pull = sample(run, terms, watch)
        clock.lap("sample")
        images = to_pil(self._decode(z, batch.seeds))
        clock.lap("decode")
        report = Report(
            **vars(batch),
            **described(self.model, self.plugins, resolved),
            size=run.size,
            models=models,
            energies=tuple(pull.log),
            seconds=clock.laps,
            guided_passes=pull.passes,
            skipped_updates=pull.skipped,
            steps_made=watch.steps,
            initial=beginning(pictures, strength) if pictures is not None else {},
        )
        return Result(images, report, tracer.maps if tracer is not None else {}, tuple(renders))

    def resolve(
        self,
        guidance: GuidanceLike,
        *,
        steps: int | None = None,
        cfg: float | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        sets: Iterable[str] = (),
    ) -> tuple[ResolvedConfig, Guidance]:
        """The complete configuration of a run, every default filled in, and the guidance it describes.

        Raises:
            ConfigError: a setting that cannot be used, one that another overrides too; or `sets` of a `Guidance` object's terms.
        """
        sets = cast("Sequence[str]", convert(as_list(sets, str), Sequence[str], "sets"))
        if isinstance(guidance, Term | list | tuple):
            guidance = Guidance(cast("Term | Sequence[Term]", guidance))
        given = {"steps": steps, "cfg": cfg, "sampler": sampler}
        overrides = {name: value for name, value in given.items() if value is not None}
        if isinstance(guidance, Guidance):
            for text in sets:
                if text.partition("=")[0].strip().partition(".")[0] == "guidance":
                    raise ConfigError(f"sets: {text!r} beside a Guidance object, whose terms are built; build them so instead")
        base = {} if isinstance(guidance, Guidance) else load_guidance(cast("Any", guidance))
        for name in overrides:  # what is overridden must be of the right kind too
            if name in base:
                convert(base[name], KEYS[name], name)
        config = merge(base, overrides)
        resolved = validate(apply_sets(config, sets), self.plugins)
        # Which model to load is the caller's affair; what was loaded stands in the report beside the configuration.
        resolved = replace(resolved, cfg=self.model.default_cfg if resolved.cfg is None else resolved.cfg, model=None)
        if isinstance(guidance, Guidance):
            return resolved.with_terms(guidance.terms, self.plugins), guidance
        return resolved, Guidance([Term(t.extractor, t.distance, t.schedule, t.name) for t in resolved.terms])

    def _start(self, config: ResolvedConfig, batch: Batch, size: tuple[int, int], models: dict[str, Mapping[str, Any]]) -> Run:
        """Everything that is fixed for one run; each sample draws its noise from its own stream, on the CPU.

        `models` takes the descriptions of those that render for it, and of those that its plugins load.
        """
        shape = self.model.latent_shape(size)
        cfg = self.model.default_cfg if config.cfg is None else config.cfg
        for term in config.terms:
            models.update(folders_of(term.extractor, f"guidance.{term.name}.extractor"))
            models.update(folders_of(term.distance, f"guidance.{term.name}.distance"))
        with calling("", "sampler", config.sampler, "schedule"):
            steps = check_steps(config.sampler.schedule(self.model.noise_schedule, config.steps), config.sampler)
        generators = tuple(torch.Generator().manual_seed(seed) for seed in batch.seeds)
        z_T = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return Run(
            model=self.model,
            denoiser=self.model.bind(batch.prompts, batch.negatives, batch.layouts, cfg=cfg, count=len(steps)),
            sampler=config.sampler,
            steps=steps,
            z_T=z_T.to(self.model.device),
            seeds=batch.seeds,
            layouts=batch.layouts,
            size=size,
            generators=generators,
            renderer=partial(self._render, batch, size, models),
        )

    def _render(
        self, batch: Batch, wanted: tuple[int, int], models: dict[str, Mapping[str, Any]], source: Mapping[str, Any]
    ) -> Image:
        """The images of another configuration for the same batch, computed where and as this one's: `[b 3 H W]` in [0, 1].

        Args:
            wanted: the size of this pipeline's images; a source that names no size renders at its model's, in these proportions.
            models: takes the description of the model that renders, and of those that render for it.
            source: see `source_settings`.

        Raises:
            ConfigError: it cannot be used, its size is larger than `wanted`, or a size that it names has other proportions.
        """
        if (release := getattr(self.model, "release", None)) is not None:
            release()
        precision = str(self.model.dtype).removeprefix("torch.")
        options: dict[str, Any] = {"device": str(self.model.device), "dtype": precision, "plugins": self.plugins}
        with told_of("source"):
            settings = checked_source(source, self.plugins)
            name, size = settings.pop("model"), settings.pop("size", None)
            other = Pipeline.load(name, **options)
            if (
                "guidance" not in settings
                and any(layout.boxed for layout in batch.layouts)
                and "grounding" not in other.model.describe()
            ):
                raise ConfigError(
                    f"the model {name!r} does not see boxes, so its picture would not have the layout; name a GLIGEN model, or "
                    "give the source a guidance (or none, if that is meant)"
                )
            config, terms = other.resolve(settings)
            run = other._start(config, batch, rendered_size(other.model, size, wanted), models)
            models[name] = plain(other.model.describe())
        for sentence in render_warnings(run, terms.terms, None if size is not None else wanted):
            log.warning("source: %s", sentence)
        return other._decode(sample(run, terms)[0], batch.seeds)

    @torch.no_grad()
    def _decode(self, z: torch.Tensor, seeds: Sequence[int]) -> Image:
        images = self.model.decode(z)
        broken = [seed for seed, image in zip(seeds, images, strict=True) if not bool(torch.isfinite(image).all())]
        if broken:
            raise NonFiniteError(
                f"the autoencoder gave values that are not finite for the seeds {', '.join(map(str, broken))}, computing in "
                f"{self.model.dtype}; {remedies(self.model, 'a lower cfg', 'a lower gamma')}"
            )
        return images

    def _tracer(self, run: Run, shots: int) -> AttentionTrace | None:
        layers = run.denoiser.layers
        if shots < 1 or not layers or not any(layout.phrases for layout in run.layouts):
            return None
        cls = self.plugins.extractor("cross_attention").cls
        extractor = cls(heads="mean", combine="mean", pieces="mean")
        try:
            select_layers(layers, extractor.layers)
        except ConfigError:  # a network of another build: what all of its layers look at
            extractor = replace(extractor, layers=("all",))
        return AttentionTrace(run, extractor, shots)


def _keeping_renders(run: Run) -> tuple[Run, list[list[PILImage.Image]]]:
    """The same run, and a list that fills with what is rendered for it."""
    renders: list[list[PILImage.Image]] = []

    def render(source: Mapping[str, Any]) -> Image:
        images = run.render(source)
        renders.append(to_pil(images))
        return images

    return replace(run, renderer=render), renders


@dataclass
class _Watch:
    """Counts the steps, and shows each to the trace and to whoever asked to see it."""

    tracer: AttentionTrace | None
    on_step: OnStep | None
    steps: int = 0

    def __call__(self, report: StepReport) -> bool | None:
        self.steps += 1
        if self.tracer is not None:
            self.tracer(report)
        return self.on_step(report) if self.on_step is not None else None


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
