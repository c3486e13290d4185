"""`lsregen caption`: the images of a COCO file captioned by a model of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from lsregen.apps.checks import check_folder, memory_errors
from lsregen.apps.cli import INTERRUPTED
from lsregen.apps.option_types import BATCH, COUNT, NAME, PATH, TEXT
from lsregen.framework.errors import ConfigError, counted


@click.command(name="caption")
@click.argument("instances", type=PATH)
@click.option("--images", type=PATH, required=True, help="Folder of the images.")
@click.option("--model", type=PATH, required=True, help="Folder of an image-to-text model of transformers, such as BLIP-2.")
@click.option("--out", type=PATH, required=True, metavar="FILE.jsonl", help="The captions; what is there is kept and skipped.")
@click.option("--split", type=click.Choice(("single", "multi", "all")), default="all", show_default=True, help="As in plan.")
@click.option(
    "--question", type=TEXT, help="Asked of images with two objects or more, with {first} and {second} in it; '' asks nothing."
)
@click.option("--limit", type=COUNT, help="The first so many images of the split, as in plan.")
@click.option("--on-bad-box", type=click.Choice(("error", "drop")), default="error", show_default=True, help="As in plan.")
@click.option("--batch", type=BATCH, default=8, show_default=True, help="Images captioned at once.")
@click.option("--device", type=NAME, default="auto", show_default=True, help="auto, cpu, cuda or mps.")
def command(
    instances: Path,
    images: Path,
    model: Path,
    out: Path,
    split: str,
    question: str | None,
    limit: int | None,
    on_bad_box: str,
    batch: int,
    device: str,
) -> None:
    """Caption the images of a COCO file of instances, with the question of the LSReGen paper for two objects.

    Interrupt and repeat at will: captions that are in the file are kept.
    """
    from lsregen.apps.evaluating.comparison import progress
    from lsregen.evaluation.sources import Asked
    from lsregen_captions.captioner import QUESTION, Captioner, pictures_of, write_captions

    if out.suffix != ".jsonl":
        raise ConfigError(f"--out {str(out)!r}: expected a file that ends in .jsonl")
    check_folder(out.parent)
    asked = Asked(instances, on_bad_box, limit, split)
    pictures = pictures_of(asked, images, QUESTION if question is None else question)
    cure = "give a smaller --batch, or another --device"
    try:
        with progress(len(pictures), "captions") as on_done, memory_errors("for the captions", cure):
            captioner = Captioner(model, device)
            count = write_captions(captioner, pictures, out, batch=batch, on_done=on_done)
    except KeyboardInterrupt:
        click.echo(f"Interrupted; captions are kept in {out}: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    click.echo(f"{counted(len(pictures), 'image')}, {count} captioned now")
    click.echo(out)
