"""What `lsregen generate` checks and loads before its first image."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...framework.config.options import to_values
from ...framework.errors import ConfigError, PluginError
from ...framework.layout.regions import Layout
from ..checks import check_boxes, check_folder, check_model, check_pixels, check_regions, memory_errors
from ..output import OutputError, check_name
from .initial import read_initial
from .job import Job
from .metadata import LONGEST, check_autoencoder, made_with
from .progress import say
from .request import Options, Request, check_phrases, request_of, shots_of

if TYPE_CHECKING:
    from ...framework.config.resolve import ResolvedConfig
    from ...framework.pipeline.pipeline import Pipeline
    from ...framework.plugins.registry import Plugins
    from .metadata import Metadata


def plan(given: Options) -> tuple[Job, Plugins, Request]:
    """Check everything that can be checked without a model; what is cheap comes before the plugins, which import torch.

    Raises:
        LsregenError: a value that cannot be used.
    """
    request = request_of(given)
    if given.cfg is not None and not (math.isfinite(given.cfg) and given.cfg >= 0):
        raise ConfigError(f"--cfg {given.cfg}: expected a number of at least 0, such as 4; 1 is off")
    if given.name is not None:
        check_name(given.name)
    check_folder(given.out)
    model = given.model if given.model is not None else model_of(request)
    if model is not None:
        check_model(model)
    plugins = found_plugins()
    guidance_name, guidance = choose_guidance(given, request, plugins)
    try:
        resolved = check_config(given, guidance, model, plugins)
    except ConfigError as error:
        made = made_with(request.metadata, given.from_image) if request.metadata and given.from_image else ""
        raise ConfigError(f"{error}{made}") from None
    if resolved.model is not None:
        check_model(resolved.model, plugins)
    for i, item in enumerate(request.items):
        check_regions(resolved, item.layout, f"{request.where(i)}guidance {guidance_name!r}", listed=request.listed)
    shots = shots_of(request, given, resolved.seed)
    for shot in shots:
        check_pixels(shot.size)
    initial = read_initial(given, request.metadata, resolved.steps)
    if initial is not None:
        shots = tuple(replace(shot, size=shot.size or initial.picture.size) for shot in shots)
    for each in request.dropped:
        say(f"Dropped: {each}")
    job = Job(
        shots=shots,
        config=replace(resolved, model=guidance.get("model")),
        guidance_name=guidance_name,
        initial=initial,
        model=resolved.model,
        batch=given.batch if request.metadata is None else len(shots),
        folder=given.out,
        trace=given.trace,
        with_metadata=given.metadata,
    )
    return job, plugins, request


def choose_guidance(given: Options, request: Request, plugins: Plugins) -> tuple[str, Mapping[str, Any]]:
    """The guidance to use, by name and as a configuration; what suits the layouts if none is given.

    Raises:
        ConfigError: no such guidance, or the items of a file ask for different ones.
    """
    from ...framework.config.presets import DEFAULT_MODEL
    from ...framework.config.resolve import load_guidance

    if request.metadata is not None:
        return f"as in {given.from_image}", request.metadata.config
    if given.guidance is not None:
        return given.guidance, load_guidance(given.guidance, plugins)
    fitting = [_fitting(item.layout, given.model or DEFAULT_MODEL, plugins) for item in request.items]
    for i, name in enumerate(fitting):
        if name != fitting[0]:
            why = f"item 1 would have {fitting[0]}, and item {i + 1} {name}: some have boxes, and some do not"
            raise ConfigError(f"--prompts without --guidance: {why}; give every item boxes, or make two files of it")
    return fitting[0], load_guidance(fitting[0], plugins)


def _fitting(layout: Layout, model: str, plugins: Plugins) -> str:
    """The preset for a layout: tuned for the model, if there is one."""
    if not layout.regions:
        return "none"
    return plugins.default_guidance("boxes" if layout.boxed else "phrases", model)


def model_of(request: Request) -> str | None:
    """The model that made a picture, if it ships; a name in a picture is never taken for a path."""
    return None if request.metadata is None else str(request.metadata.model.get("name"))


def found_plugins() -> Plugins:
    """All plugins; warns of packages that could not be loaded.

    Raises:
        PluginError: lsregen's own cannot be loaded.
    """
    from ...framework.plugins.registry import OWN, discover

    plugins = discover()
    if (own := next((broken for broken in plugins.broken if broken.package == OWN), None)) is not None:
        raise PluginError(f"lsregen's own plugins cannot be loaded: {own}; free some memory, or install lsregen again")
    for broken in plugins.broken:
        say(f"Warning: not loaded: {broken}")
    return plugins


def check_config(given: Options, guidance: Mapping[str, Any], model: str | None, plugins: Plugins) -> ResolvedConfig:
    """The whole configuration, resolved."""
    from ...framework.config.merging import apply_sets, merge
    from ...framework.config.resolve import validate

    if given.model is None and model is not None and model not in plugins.embedded_models():
        raise ConfigError(
            f"--from-image {given.from_image}: made by the model {model!r}, which does not ship; say where it is: --model DIR"
        )
    flags = {"model": model, "steps": given.steps, "cfg": given.cfg, "sampler": given.sampler}
    config = merge(guidance, {name: value for name, value in flags.items() if value is not None})
    return validate(apply_sets(config, given.sets), plugins)


def check_masks(job: Job) -> None:
    """Masks and images of regions go into the settings of a picture, with those of its whole batch: they must stay readable.

    Raises:
        ConfigError: they would not fit.
    """
    for shots in job.batches:
        regions = [region for shot in shots for region in shot.layout.regions]
        if not job.with_metadata or all(region.mask is None and region.image is None for region in regions):
            continue
        if (taken := sum(len(json.dumps(shot.layout.to_json())) for shot in shots)) > LONGEST // 2:
            cure = "lower --batch, give smaller masks (8-bit PNGs) and images, or leave the settings out with --no-metadata"
            raise ConfigError(
                f"the masks and images of a batch take {taken:,} characters in every picture, of {LONGEST // 2:,}; {cure}"
            )


def check_source(given: Options, job: Job) -> None:
    """A picture that is made again is not replaced by itself: it might come out different.

    Raises:
        OutputError: it would be.
    """
    source = given.from_image
    for path in (path for shot in job.kept for path in job.files(shot).all):
        if source is not None and path.exists() and path.samefile(source):
            raise OutputError(f"--from-image {source}: would be replaced by what is made from it; choose another --out or --name")


def load(given: Options, job: Job, plugins: Plugins, request: Request) -> Pipeline:
    """The pipeline, once its model has agreed to the sizes and the phrases."""
    from ...framework.pipeline.pipeline import DEFAULT_MODEL, Pipeline
    from ...framework.pipeline.sizes import check_proportions

    made, options = request.metadata, to_values(given.load)
    if made is not None:  # the same device and precision, unless others are named
        then = {"device": made.device, "dtype": made.dtype}
        options |= {name: value for name, value in then.items() if options[name] == "auto"}
    with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
        pipeline = Pipeline.load(DEFAULT_MODEL if job.model is None else job.model, plugins=plugins, **options)
    for size in dict.fromkeys(shot.size for shot in job.shots):
        if size is not None:
            if job.initial is not None:
                job.initial.check_size(size, pipeline.model)
            pipeline.model.latent_shape(size)
    for shot in job.kept:
        check_proportions(shot.layout, shot.size or pipeline.model.default_size)
    check_boxes(given.guidance, bool(job.config.terms), [item.layout for item in request.items], pipeline.model)
    for i, item in enumerate(request.items):
        table = pipeline.model.tokens(item.prompt)
        check_phrases(table, item.layout, request.where(i))
        if table.truncated_from is not None:
            unseen = item.prompt[table.truncated_from :]
            say(f"Warning: {request.where(i)}the prompt is too long for {pipeline.model.name}; not seen: {unseen!r}")
    if made is not None:
        if given.load.vae is None:
            check_autoencoder(made.model, pipeline.model.describe())
        _say_what_differs(made, pipeline)
    return pipeline


def _say_what_differs(made: Metadata, pipeline: Pipeline) -> None:
    """What may keep a picture from coming out as it was."""
    from ...framework.pipeline.report import versions, weights

    now = {"weights": weights(pipeline.model.describe()), "device": str(pipeline.model.device), "torch": versions()["torch"]}
    then = {"weights": weights(made.model), "device": made.device, "torch": made.versions.get("torch")}
    for what, value in now.items():
        if value != then[what]:
            said = "" if what == "weights" else f" ({then[what]} then, {value} now)"
            say(f"Warning: the picture was made with other {what}{said}; it may come out different.")
