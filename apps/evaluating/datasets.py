"""`lsregen evaluate export` and `caption`: data sets in COCO's form, and captions for them."""

from __future__ import annotations

from pathlib import Path

import click

from ...framework.errors import ConfigError, counted
from ..checks import check_folder, memory_errors, parse_size
from ..cli import INTERRUPTED
from ..option_types import BATCH, COUNT, NAME, PATH, SEED, TEXT


@click.group()
def export() -> None:
    """Write scenes with exact answers in the form of a data set."""


@export.command()
@click.option("--out", "folder", type=PATH, required=True, help="Folder of the data set; it must be new or empty.")
@click.option("--count", type=COUNT, default=300, show_default=True, help="Scenes, one image each.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the first scene.")
@click.option("--objects", type=click.IntRange(1, 3), help="In every scene; 1 to 3, as they come, by default.")
@click.option("--size", default="64x64", show_default=True, type=NAME, metavar="WxH", help="Width and height in pixels.")
@click.option("--split", type=NAME, default="eval", show_default=True, help="eval, reference or train.")
def shapeworld(folder: Path, count: int, seed: int, objects: int | None, size: str, split: str) -> None:
    """Scenes of coloured shapes as COCO: images, instances and captions."""
    from ...evaluation.sources.export import export_shapeworld
    from .comparison import progress

    with progress(count, "scenes") as on_done, memory_errors("for these scenes", "give a smaller --size"):
        paths = export_shapeworld(
            folder, count=count, seed=seed, objects=objects, size=parse_size(size), split=split, on_done=on_done
        )
    for path in (folder / "images", *paths):
        click.echo(path)


@click.command()
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
def caption(
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
    from ...evaluation.instruments.captioner import QUESTION, Captioner, pictures_of, write_captions
    from ...evaluation.sources import Asked
    from .comparison import progress

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
