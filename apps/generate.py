"""`lsregen generate`: a prompt and boxes in, pictures out."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..framework.errors import ConfigError, counted
from ..framework.formats import MASK_FORM
from ..framework.items import POLICIES, SEEDS
from ..framework.layout import BOX_FORM, Layout
from .checks import check_boxes, check_folder, check_model, check_regions, memory_errors
from .initial import initial_options, read_initial
from .interrupts import INTERRUPTED
from .job import Job, Made, Work
from .metadata import LONGEST, MOST_SAMPLES, check_autoencoder, made_with
from .model_options import LOADED, model_options
from .option_types import NAME, PATH, Finite
from .output import OutputError, check_name, claim, prepare_folder
from .shots import Options, Request, check_phrases, request_of, shots_of

if TYPE_CHECKING:
    from ..framework.config import ResolvedConfig
    from ..framework.pipeline import Pipeline
    from ..framework.plugins import Plugins
    from ..framework.types import StepReport
    from .metadata import Metadata


@click.command()
@click.option("--prompt", metavar="TEXT", help="What the image shows.")
@click.option(
    "--box",
    multiple=True,
    metavar=BOX_FORM,
    help="Where a phrase of the prompt stands, in fractions of the image; once for each phrase.",
)
@click.option("--mask", multiple=True, metavar=MASK_FORM, help="The same by a PNG of the picture's proportions, white there.")
@click.option("--phrase", multiple=True, metavar="TEXT", help="A phrase that must be there, wherever. circle#2 is the second.")
@click.option("--negative", default="", metavar="TEXT", help="What to steer away from.")
@click.option(
    "--layout",
    type=PATH,
    metavar="FILE",
    help="A file of boxes or masks: lsregen's JSON, COCO, YOLO, pixels, NSR-1K, GLIGEN; see `lsregen layout`.",
)
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE.jsonl",
    help='Many images: one item a line, such as {"prompt": "a dog", "boxes": {"dog": [0.1, 0.2, 0.6, 0.9]}}; or any layout file.',
)
@click.option(
    "--on-bad-box",
    type=click.Choice(POLICIES),
    default="error",
    show_default=True,
    help="For boxes of a file: see `lsregen layout`.",
)
@click.option(
    "--from-image", type=PATH, metavar="FILE.png", help="Make a picture of lsregen's again, from the settings inside it."
)
@initial_options
@model_options
@click.option(
    "--guidance",
    type=NAME,
    metavar="PRESET|FILE.yaml|none",
    help="What pulls, and how: see `lsregen presets`. [default: layout-guidance with a --box, attend-and-excite with only a "
    "--phrase, else none]",
)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting, as guidance.layout.gamma=40; wins over options."
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Sampling steps. [default: the preset's]")
@click.option("--cfg", type=Finite(), help="Classifier-free guidance scale; 1 is off. [default: the preset's, else the model's]")
@click.option("--sampler", type=NAME, metavar="NAME", help="See `lsregen plugins`. [default: the preset's]")
@click.option(
    "--seed",
    type=click.IntRange(0, SEEDS - 1),
    metavar="N",
    help="Of a prompt's first image; the next ones count up. [default: the file's, else 0]",
)
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=1, show_default=True, metavar="N", help="How many images of a prompt."
)
@click.option(
    "--batch",
    type=click.IntRange(1, MOST_SAMPLES),
    default=1,
    show_default=True,
    metavar="N",
    help="How many at once; the images depend on it by rounding only.",
)
@click.option("--size", type=NAME, metavar="WxH", help="Width and height in pixels. [default: the model's]")
@click.option("--device", default="auto", show_default=True, type=NAME, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", default="auto", show_default=True, type=NAME, metavar="NAME", help="auto, fp32, fp16, bf16.")
@click.option("--out", type=PATH, default="outputs", show_default=True, metavar="DIR", help="The folder.")
@click.option("--name", type=NAME, metavar="NAME", help="How files begin: NAME-SEED.png. [default: made from the prompt]")
@click.option(
    "--trace", type=click.IntRange(min=0), default=8, show_default=True, metavar="N", help="At how many steps attention is drawn."
)
@click.option("--metadata/--no-metadata", default=True, show_default=True, help="Whether the PNG holds all settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout, and nothing else.")
def command(**options: Any) -> None:
    """Make images of a prompt, with its phrases where the boxes are.

    \b
    lsregen generate --prompt "a red circle and a blue square" \\
        --box "red circle=0.05,0.1,0.45,0.6" --box "blue square=0.55,0.45,0.95,0.95"
    lsregen generate --prompts prompts.jsonl --batch 8
    lsregen generate --from-image outputs/a-red-circle-and-a-blue-square-0.png

    \b
    Written to the output folder:
      NAME-SEED.png            each image, with all settings inside
      NAME-SEED-layout.png     the boxes or masks drawn over it
      NAME-SEED-attention.png  where each phrase looked, over the steps
      NAME-SEED-source.png     the small picture that another model made for it
      report.json              energies, seconds, settings, hashes of this run
    Pictures of the same name are replaced if lsregen made them, else never. The
    report.json of an earlier run is kept as report-1.json, report-2.json, ...
    unless all of its images are made again.
    """
    begun, given = time.perf_counter(), Options(**options)
    job, plugins, request = plan(given)
    old = claim([job.report, *(path for shot in job.kept for path in job.files(shot).all)])
    check_source(given, job)
    check_masks(job)
    work, shown = Work(job, begun), list[Made]()
    work.seconds["start"] = time.perf_counter() - begun
    try:
        with work.timed("load"):
            pipeline = load(given, job, plugins, request)
        _say(f"{pipeline.model.name} on {pipeline.model.device}, guidance: {job.guidance_name}")
        with Progress(job) as progress:

            def show(made: Made) -> None:
                if not given.as_json:
                    progress.line(_line(made))
                shown.append(made)

            work.run(pipeline, progress, show)
    except KeyboardInterrupt:  # before the first image, or a second one while the first was dealt with
        work.interrupted = True
    finally:
        if given.as_json:
            if work.made:
                click.echo(json.dumps(work.report(), indent=2))
        else:  # an interrupt may have come between keeping an image and saying so
            for made in work.made[len(shown) :]:
                click.echo(_line(made))
        _summary(work, old)
    if work.interrupted:
        sys.exit(INTERRUPTED)


def plan(given: Options) -> tuple[Job, Plugins, Request]:
    """Check everything that can be checked without a model; what is cheap comes before the plugins, which import torch.

    Raises:
        LsregenError: a value that cannot be used.
    """
    request = request_of(given)
    guidance_name, guidance = choose_guidance(given, request)
    if given.cfg is not None and not (math.isfinite(given.cfg) and given.cfg >= 0):
        raise ConfigError(f"--cfg {given.cfg}: expected a number of at least 0, such as 4; 1 is off")
    if given.name is not None:
        check_name(given.name)
    check_folder(given.out)
    model = given.model if given.model is not None else model_of(request)
    if model is not None:
        check_model(model)
    try:
        resolved, plugins = check_config(given, guidance, model)
    except ConfigError as error:
        made = made_with(request.metadata, given.from_image) if request.metadata and given.from_image else ""
        raise ConfigError(f"{error}{made}") from None
    if resolved.model is not None:
        check_model(resolved.model, plugins)
    for i, item in enumerate(request.items):
        check_regions(resolved, item.layout, f"{request.where(i)}guidance {guidance_name!r}", listed=request.listed)
    shots = shots_of(request, given, resolved.seed)
    initial = read_initial(given, request.metadata, resolved.steps)
    if initial is not None:
        shots = tuple(replace(shot, size=shot.size or initial.picture.size) for shot in shots)
    for each in request.dropped:
        _say(f"Dropped: {each}")
    prepare_folder(given.out)
    job = Job(
        shots=shots,
        guidance=guidance,
        guidance_name=guidance_name,
        options={"steps": given.steps, "cfg": given.cfg, "sampler": given.sampler, "sets": given.sets},
        initial=initial,
        model=resolved.model,
        steps=resolved.steps,
        renders=any(getattr(term.extractor, "source", None) is not None for term in resolved.terms),
        pulled=bool(resolved.terms),
        batch=given.batch if request.metadata is None else len(shots),
        folder=given.out,
        trace=given.trace,
        with_metadata=given.metadata,
    )
    return job, plugins, request


def choose_guidance(given: Options, request: Request) -> tuple[str, Mapping[str, Any]]:
    """The guidance to use, by name and as a configuration; what suits the layouts if none is given.

    Raises:
        ConfigError: no such guidance, or the items of a file ask for different ones.
    """
    from ..framework.config import load_guidance

    if request.metadata is not None:
        return f"as in {given.from_image}", request.metadata.config
    if given.guidance is not None:
        return given.guidance, load_guidance(given.guidance)
    fitting = [_fitting(item.layout) for item in request.items]
    for i, name in enumerate(fitting):
        if name != fitting[0]:
            why = f"item 1 would have {fitting[0]}, and item {i + 1} {name}: some have boxes, and some do not"
            raise ConfigError(f"--prompts without --guidance: {why}; give every item boxes, or make two files of it")
    return fitting[0], load_guidance(fitting[0])


def _fitting(layout: Layout) -> str:
    return "layout-guidance" if layout.boxed else "attend-and-excite" if layout.regions else "none"


def model_of(request: Request) -> str | None:
    """The model that made a picture, if it ships; a name in a picture is never taken for a path."""
    return None if request.metadata is None else str(request.metadata.model.get("name"))


def check_config(given: Options, guidance: Mapping[str, Any], model: str | None) -> tuple[ResolvedConfig, Plugins]:
    """The configuration as the pipeline will resolve it, and the plugins that it may name."""
    from ..framework.config import apply_sets, merge, validate
    from ..framework.plugins import discover

    plugins = discover()
    for broken in plugins.broken:
        _say(f"Warning: not loaded: {broken}")
    if given.model is None and model is not None and model not in plugins.embedded_models():
        raise ConfigError(
            f"--from-image {given.from_image}: made by the model {model!r}, which does not ship; say where it is: --model DIR"
        )
    flags = {"model": model, "steps": given.steps, "cfg": given.cfg, "sampler": given.sampler}
    config = merge(guidance, {name: value for name, value in flags.items() if value is not None})
    return validate(apply_sets(config, given.sets, plugins), plugins), plugins


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
    from ..framework.masks import check_proportions
    from ..framework.pipeline import DEFAULT_MODEL, Pipeline

    made, device, dtype = request.metadata, given.device, given.dtype
    if made is not None:  # the same device and precision, unless others are named
        device, dtype = (made.device if device == "auto" else device), (made.dtype if dtype == "auto" else dtype)
    with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
        options = {name: getattr(given, name) for name in LOADED}
        pipeline = Pipeline.load(job.model or DEFAULT_MODEL, device=device, dtype=dtype, plugins=plugins, **options)
    for size in dict.fromkeys(shot.size for shot in job.shots):
        if size is not None:
            if job.initial is not None:
                job.initial.check_size(size, pipeline.model)
            pipeline.model.latent_shape(size)
    for shot in job.kept:
        check_proportions(shot.layout, shot.size or pipeline.model.default_size)
    check_boxes(given.guidance, job, [item.layout for item in request.items], pipeline.model)
    for i, item in enumerate(request.items):
        table = pipeline.model.tokens(item.prompt)
        check_phrases(table, item.layout, request.where(i))
        if table.truncated_from is not None:
            unseen = item.prompt[table.truncated_from :]
            _say(f"Warning: {request.where(i)}the prompt is too long for {pipeline.model.name}; not seen: {unseen!r}")
    if made is not None:
        if given.vae is None:
            check_autoencoder(made.model, pipeline.model.describe())
        _say_what_differs(made, pipeline)
    return pipeline


def _say_what_differs(made: Metadata, pipeline: Pipeline) -> None:
    """What may keep a picture from coming out as it was."""
    from ..framework.report import versions, weights

    now = {"weights": weights(pipeline.model.describe()), "device": str(pipeline.model.device), "torch": versions()["torch"]}
    then = {"weights": weights(made.model), "device": made.device, "torch": made.versions.get("torch")}
    for what, value in now.items():
        if value != then[what]:
            said = "" if what == "weights" else f" ({then[what]} then, {value} now)"
            _say(f"Warning: the picture was made with other {what}{said}; it may come out different.")


class Progress:
    """A progress bar on stderr, only where somebody can watch it; called after every step."""

    def __init__(self, job: Job) -> None:
        from tqdm import tqdm

        self.unit, self.count = ("image" if job.batch == 1 else "batch"), len(job.batches)
        self.first = 0 if job.initial is None else job.initial.entry
        self.walk = job.steps - self.first
        self.bar = tqdm(total=self.walk * self.count, unit="step", leave=False, file=sys.stderr, disable=not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, report: StepReport) -> None:
        if report.step.index == self.first and self.count > 1:
            self.bar.set_description(f"{self.unit} {self.bar.n // self.walk + 1}/{self.count}")
        self.bar.update()

    def line(self, text: str) -> None:
        """A line on stdout, above the bar, for whoever reads along."""
        with self.bar.external_write_mode(sys.stdout):
            click.echo(text)


def _line(made: Made) -> str:
    return f"{click.format_filename(made.files.image)}  {made.seconds:.1f} s"


def _summary(work: Work, old: Sequence[Path]) -> None:
    """What there is to say besides the images: what the guidance reached, what was kept, what was replaced."""
    made, wanted, folder = len(work.made), len(work.job.kept), click.format_filename(work.job.folder)
    if not made:
        if work.interrupted:
            _say("Interrupted; no image was finished.")
        return
    for term, ends in work.energies().items():
        notes = [*["one evaluation"] * (len(ends) == 1), *[f"mean of {made} images"] * (made > 1)]
        said = " -> ".join(f"{energy:.3g}" for energy in ends)
        _say(f"{term}: energy {said}" + (f" ({', '.join(notes)})" if notes else ""))
    if work.skipped_updates:
        _say(f"Warning: {work.skipped_updates} updates were left out, because their gradients were not finite.")
    report = f"{'with' if work.reported else 'without a'} {work.job.report.name}"
    if made < wanted or not work.reported:
        ended = "Interrupted" if work.interrupted else "Failed"
        _say(f"{ended}; {made} of {wanted} images were finished and are kept in {folder}, {report}.")
    else:
        _say(f"{made} image{'s' * (made > 1)} in {work.seconds['total']:.1f} s, {report} in {folder}.")
    written = {path for image in work.made for path in image.files.all}
    if work.aside is not None:
        _say(f"The {work.job.report.name} of an earlier run is kept as {click.format_filename(work.aside.name)}.")
    elif work.reported:
        written.add(work.job.report)
    for count, what in (
        (len(written.intersection(old)), "replaced"),
        (work.removed, "removed: beside the new images of the same names, they would still show the old ones"),
    ):
        if count:
            _say(f"{counted(count, 'file')} of an earlier run {'were' if count > 1 else 'was'} {what}.")


def _say(text: str) -> None:
    click.echo(text, err=True)
