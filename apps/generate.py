"""`lsregen generate`: a prompt and boxes in, pictures out."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..framework.errors import ConfigError, PhraseError
from ..framework.items import SEEDS
from ..framework.layout import BOX_FORM, Layout, Region
from ..framework.tokens import TokenTable
from .checks import check_folder, check_model, check_text, memory_errors, parse_size, read_box
from .cli import INTERRUPTED
from .job import Job, Made, Work
from .output import check_name, claim, prepare_folder, slug

if TYPE_CHECKING:
    from ..framework.config import ResolvedConfig
    from ..framework.pipeline import Pipeline
    from ..framework.plugins import Plugins
    from ..framework.types import StepReport

NO_TOKENS = "\ntokens: none"  # what an error says of a prompt that no tokenizer has seen yet
POSITIVE = click.IntRange(min=1)


@dataclass(frozen=True)
class Options:
    """The command line as it was typed."""

    prompt: str
    box: tuple[str, ...]
    phrase: tuple[str, ...]
    negative: str
    model: str | None
    guidance: str | None
    sets: tuple[str, ...]
    steps: int | None
    cfg: float | None
    sampler: str | None
    seed: int | None
    count: int
    batch: int
    size: str | None
    device: str
    dtype: str
    out: Path
    name: str | None
    trace: int
    metadata: bool
    as_json: bool


@click.command()
@click.option("--prompt", required=True, metavar="TEXT", help="What the image shows.")
@click.option("--box", multiple=True, metavar=BOX_FORM, help="Where a phrase of the prompt stands, in fractions of the image.")
@click.option("--phrase", multiple=True, metavar="TEXT", help="A phrase that must be there, wherever. circle#2 is the second.")
@click.option("--negative", default="", metavar="TEXT", help="What to steer away from.")
@click.option("--model", metavar="NAME|DIR", help="A model that ships with lsregen, or a folder. [default: shapeworld-base]")
@click.option(
    "--guidance",
    metavar="PRESET|FILE.yaml|none",
    help="What pulls, and how: see `lsregen presets`. [default: layout-guidance with a --box, attend-and-excite with only a "
    "--phrase, else none]",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting, such as guidance.layout.gamma=40.")
@click.option("--steps", type=POSITIVE, metavar="N", help="Sampling steps. [default: the preset's]")
@click.option("--cfg", type=float, help="Classifier-free guidance scale; 1 is off. [default: the preset's, else the model's]")
@click.option("--sampler", metavar="NAME", help="See `lsregen plugins`. [default: the preset's]")
@click.option(
    "--seed", type=click.IntRange(0, SEEDS - 1), metavar="N", help="Of the first image; the next ones count up. [default: 0]"
)
@click.option("--count", type=click.IntRange(1, 100_000), default=1, show_default=True, metavar="N", help="How many images.")
@click.option(
    "--batch", type=POSITIVE, default=1, show_default=True, metavar="N", help="How many at once; the images do not depend on it."
)
@click.option("--size", metavar="WxH", help="Width and height in pixels. [default: the model's]")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", default="auto", show_default=True, metavar="NAME", help="auto, fp32, fp16, bf16.")
@click.option("--out", type=click.Path(path_type=Path), default="outputs", show_default=True, metavar="DIR", help="The folder.")
@click.option("--name", metavar="NAME", help="How files begin: NAME-SEED.png. [default: made from the prompt]")
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

    \b
    Written to the output folder:
      NAME-SEED.png            each image, with all settings inside
      NAME-SEED-layout.png     the boxes drawn over it
      NAME-SEED-attention.png  where each phrase looked, over the steps
      report.json              energies, seconds, settings, hashes of this run
    Pictures of the same name are replaced if lsregen made them, else never. The
    report.json of an earlier run is kept as report-1.json, report-2.json, ...
    unless all of its images are made again.
    """
    begun, given = time.perf_counter(), Options(**options)
    job, plugins = plan(given)
    old = claim([job.report, *(path for seed in job.seeds for path in job.files(seed).all)])
    work, shown = Work(job, begun), list[Made]()
    work.seconds["start"] = time.perf_counter() - begun
    try:
        with work.timed("load"):
            pipeline = load(given, job, plugins)
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


def plan(given: Options) -> tuple[Job, Plugins]:
    """Check everything that can be checked without a model; what is cheap comes before the plugins, which import torch.

    Raises:
        LsregenError: a value that cannot be used.
    """
    prompt = check_text("--prompt", given.prompt, needed=True)
    negative = check_text("--negative", given.negative)
    layout = layout_of(given.box, given.phrase)
    check_phrases(TokenTable(prompt, ()), layout)
    guidance_name, guidance = choose_guidance(given.guidance, layout)
    size = parse_size(given.size) if given.size is not None else None
    if given.cfg is not None and not (math.isfinite(given.cfg) and given.cfg >= 0):
        raise ConfigError(f"--cfg {given.cfg}: expected a number of at least 0, such as 4; 1 is off")
    name = check_name(given.name) if given.name is not None else slug(prompt)
    check_folder(given.out)
    if given.model is not None:
        check_model(given.model)
    resolved, plugins = check_config(given, guidance)
    if resolved.model is not None:
        check_model(resolved.model, plugins)
    check_regions(resolved, layout, guidance_name)
    seeds = seeds_of(resolved.seed if given.seed is None else given.seed, given.count)
    prepare_folder(given.out)
    job = Job(
        prompt=prompt,
        negative=negative,
        layout=layout,
        guidance=guidance,
        guidance_name=guidance_name,
        options={"steps": given.steps, "cfg": given.cfg, "sampler": given.sampler, "sets": given.sets},
        model=resolved.model,
        steps=resolved.steps,
        seeds=seeds,
        batch=given.batch,
        size=size,
        folder=given.out,
        name=name,
        trace=given.trace,
        with_metadata=given.metadata,
    )
    return job, plugins


def layout_of(boxes: Sequence[str], phrases: Sequence[str]) -> Layout:
    """The regions of the command line; a phrase that has a box already needs no second mention."""
    if any(not phrase.strip() for phrase in phrases):
        raise PhraseError("--phrase '' is empty; expected words of the prompt, such as 'red circle'")
    boxed = Layout(tuple(read_box(box) for box in boxes))
    named = Layout(tuple(Region(phrase) for phrase in phrases))
    return Layout((*boxed.regions, *(Region(phrase) for phrase in named.phrases if not boxed.of(phrase))))


def check_phrases(table: TokenTable, layout: Layout) -> None:
    """Every phrase is in the prompt, once; with a model's table of tokens also: in the part that the model sees."""
    for phrase in layout.phrases:
        try:
            if table.pieces:
                table.span(phrase)
            else:
                table.locate(phrase)
        except PhraseError as error:
            option = "--phrase" if all(region.box is None for region in layout.of(phrase)) else "--box"
            raise PhraseError(f"{option}: {str(error).removesuffix(NO_TOKENS)}") from None


def choose_guidance(given: str | None, layout: Layout) -> tuple[str, Mapping[str, Any]]:
    """The guidance to use, by name and as a configuration; what suits the layout if none is given."""
    from ..framework.config import load_guidance

    if given is None:
        boxed = any(region.box is not None for region in layout.regions)
        given = "layout-guidance" if boxed else "attend-and-excite" if layout.regions else "none"
    return given, load_guidance(given)


def check_config(given: Options, guidance: Mapping[str, Any]) -> tuple[ResolvedConfig, Plugins]:
    """The configuration as the pipeline will resolve it, and the plugins that it may name."""
    from ..framework.config import apply_sets, merge, validate
    from ..framework.plugins import discover

    plugins = discover()
    for broken in plugins.broken:
        _say(f"Warning: not loaded: {broken}")
    flags = {"model": given.model, "steps": given.steps, "cfg": given.cfg, "sampler": given.sampler}
    config = merge(guidance, {name: value for name, value in flags.items() if value is not None})
    return validate(apply_sets(config, given.sets, plugins), plugins), plugins


def check_regions(config: ResolvedConfig, layout: Layout, guidance: str) -> None:
    """Whether the attention terms have something to look at; what other extractors need, they say once a model is there.

    Raises:
        ConfigError: no phrase is named, or none has a box and a distance needs one.
    """
    for term in config.terms:
        if term.extractor_name != "cross_attention":
            continue
        where = f"guidance {guidance!r}, term {term.name!r}"
        if not layout.regions:
            raise ConfigError(f"{where}: no phrase to look at; give one with --phrase, or with its place: --box {BOX_FORM}")
        if term.distance.needs_target and not layout.boxed:
            raise ConfigError(f"{where}: distance {term.distance_name} needs a box; give at least one: --box {BOX_FORM}")


def seeds_of(first: int, count: int) -> tuple[int, ...]:
    if not 0 <= first <= SEEDS - count:
        raise ConfigError(f"seed {first} with --count {count}: expected whole numbers from 0 to 2^63 - 1 for every image")
    return tuple(range(first, first + count))


def load(given: Options, job: Job, plugins: Plugins) -> Pipeline:
    """The pipeline, once its model has agreed to the size and the phrases."""
    from ..framework.pipeline import DEFAULT_MODEL, Pipeline

    with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
        pipeline = Pipeline.load(job.model or DEFAULT_MODEL, device=given.device, dtype=given.dtype, plugins=plugins)
    if job.size is not None:
        pipeline.model.latent_shape(job.size)
    table = pipeline.model.tokens(job.prompt)
    check_phrases(table, job.layout)
    if table.truncated_from is not None:
        _say(f"Warning: the prompt is too long for {pipeline.model.name}; not seen: {job.prompt[table.truncated_from :]!r}")
    return pipeline


class Progress:
    """A progress bar on stderr, only where somebody can watch it; called after every step."""

    def __init__(self, job: Job) -> None:
        from tqdm import tqdm

        self.unit, self.count = ("image" if job.batch == 1 else "batch"), len(job.batches)
        self.bar = tqdm(total=job.steps * self.count, unit="step", leave=False, file=sys.stderr, disable=not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, report: StepReport) -> None:
        if report.step.index == 0 and self.count > 1:
            self.bar.set_description(f"{self.unit} {self.bar.n // report.step.count + 1}/{self.count}")
        self.bar.update()

    def line(self, text: str) -> None:
        """A line on stdout, above the bar, for whoever reads along."""
        with self.bar.external_write_mode(sys.stdout):
            click.echo(text)


def _line(made: Made) -> str:
    return f"{click.format_filename(made.files.image)}  {made.seconds:.1f} s"


def _summary(work: Work, old: Sequence[Path]) -> None:
    """What there is to say besides the images: what the guidance reached, what was kept, what was replaced."""
    made, wanted, folder = len(work.made), len(work.job.seeds), click.format_filename(work.job.folder)
    if not made:
        if work.interrupted:
            _say("Interrupted; no image was finished.")
        return
    for term, (first, last) in work.energies().items():
        _say(f"{term}: energy {first:.3g} -> {last:.3g}{f' (mean of {made} images)' if made > 1 else ''}")
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
    if replaced := len(written.intersection(old)):
        _say(f"{replaced} file{'s' * (replaced > 1)} of an earlier run {'were' if replaced > 1 else 'was'} replaced.")


def _say(text: str) -> None:
    click.echo(text, err=True)
