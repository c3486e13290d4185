"""`lsregen generate`: a prompt and boxes in, pictures out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...framework.config.load_options import LoadOptions
from ...framework.config.values import MOST_STEPS
from ...framework.files import is_folder
from ...framework.layout.regions import BOX_FORM
from ...framework.layout_files.formats import MASK_FORM
from ...framework.layout_files.item import POLICIES, SEEDS
from ..field_options import load_options
from ..interrupts import INTERRUPTED
from ..option_types import NAME, PATH, STEPS, Finite
from ..output import claim, sole
from ..streams import stdout_kept
from .initial import initial_options
from .metadata import MOST_SAMPLES
from .preparation import check_masks, check_source, load, plan
from .progress import Progress, say, summary
from .request import Options

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline
    from .job import Job
    from .run_report import ReportFile
    from .work import Work

FAILED = 1
"""The exit code if some of the images could not be made, and the others were."""


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
@click.option(
    "--model",
    type=NAME,
    metavar="NAME|PATH|OWNER/NAME",
    help="A model that ships with lsregen, a folder of diffusers, a safetensors file, or a model of the Hugging Face hub. "
    "[default: shapeworld-base]",
)
@load_options()
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
@click.option("--steps", type=STEPS, metavar="N", help="Sampling steps. [default: the preset's]")
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
@click.option("--out", type=PATH, default="outputs", show_default=True, metavar="DIR", help="The folder.")
@click.option("--name", type=NAME, metavar="NAME", help="How files begin: NAME-SEED.png. [default: made from the prompt]")
@click.option(
    "--trace",
    type=click.IntRange(0, MOST_STEPS),
    default=8,
    show_default=True,
    metavar="N",
    help="At how many steps attention is drawn.",
)
@click.option("--metadata/--no-metadata", default=True, show_default=True, help="Whether the PNG holds all settings.")
@click.option("--again", is_flag=True, help="Make all images, those too that are finished.")
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
    An image that is there already, made by this command or with the same settings
    (all of them, and the same weights), is finished and not made again: so a command
    that was interrupted or killed can be repeated. --again makes all. Other pictures
    of the same name are replaced if lsregen made them, else never. The report.json
    of an earlier run is kept as report-1.json, report-2.json, ... unless all of its
    images are in the new one.
    """
    loading = {f.name: options.pop(f.name) for f in fields(LoadOptions)}
    begun, given = time.perf_counter(), Options(load=LoadOptions(**loading), **options)
    with stdout_kept() as echo, ExitStack() as folder:
        job, plugins, request = plan(given)
        from .finished import Finished  # with torch; what is cheap to refuse was refused
        from .work import Work

        there = is_folder(given.out)  # else it is made when the model has agreed, and nobody is at work in it
        if there:
            folder.enter_context(sole(given.out))
        report, old = _claimed(job)
        check_source(given, job)
        check_masks(job)
        started = time.perf_counter()
        pipeline = load(given, job, plugins, request)
        say(f"{pipeline.model.name} on {pipeline.model.device}, guidance: {job.guidance_name}")
        if not there:
            folder.enter_context(sole(given.out))
            report, old = _claimed(job)
        work = Work(job, report, begun)
        work.seconds = {"start": started - begun, "load": time.perf_counter() - started}
        if not given.again:
            batch = None if request.metadata is None else request.metadata.batch
            work.resume(Finished(job, pipeline, batch, report.earlier).all())
        _make(work, pipeline, old, echo, given.as_json)


def _claimed(job: Job) -> tuple[ReportFile, list[Path]]:
    """The report that is there, read once; and the files that will be replaced. Raises as `claim`."""
    from .run_report import ReportFile

    report = ReportFile(job.report)
    return report, claim(job.paths, known=[job.report] if report.own else ())


def _make(work: Work, pipeline: Pipeline, old: Sequence[Path], echo: Callable[[str], None], as_json: bool) -> None:
    """Make what is not finished, and tell of everything.

    Raises:
        SystemExit: some of it could not be made, or it was interrupted.
    """
    progress = Progress(work, None if as_json else echo)
    try:
        with progress:
            for made in work.made:
                progress.image(made)
            work.run(pipeline, progress)
    except KeyboardInterrupt:  # before the first image, or a second one while the first was dealt with
        work.interrupted = True
    finally:
        for made in work.made[progress.shown :]:  # an interrupt may have come between keeping an image and saying so
            progress.image(made)
        if as_json and work.made:
            echo(json.dumps(work.as_dict(), indent=2))
        summary(work, old)
    if work.interrupted:
        sys.exit(INTERRUPTED)
    if work.failed:
        sys.exit(FAILED)
