"""`lsregen layout`: layouts from one format into another, and what a file of them holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..framework.errors import ConfigError, counted
from .cli import NamingGroup
from .option_types import NAME, PATH

if TYPE_CHECKING:
    from ..framework.layout.regions import Region
    from ..framework.layout_files.item import Item, Items

BY_ENDING = {".json": "lsregen", ".jsonl": "jsonl"}
"""What is written if nothing is said, by the ending of the file."""
SHOWN = 20  # lines of what was dropped; `show` prints all

reading_options: tuple[Callable[[Any], Any], ...] = (
    click.option("--from", "from_", type=NAME, metavar="FORMAT", help="The format. [default: told by the content]"),
    click.option("--size", type=NAME, metavar="WxH", help="Of images of which the file does not say it, in pixels."),
    click.option(
        "--classes",
        type=PATH,
        metavar="FILE",
        help="Names of YOLO's classes. [default: classes.txt or data.yaml near]",
    ),
    click.option("--masks", is_flag=True, help="Of COCO: its segmentations as masks, in place of its boxes."),
)


def reads(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a file is read."""
    for option in reversed(reading_options):
        command = option(command)
    return command


def bad_boxes(default: str) -> Callable[[Any], Any]:
    about = "What to do with a box that cannot be used; `drop` keeps its phrase, unless a caption of COCO's does not tell it."
    return click.option("--on-bad-box", type=click.Choice(["error", "drop"]), default=default, show_default=True, help=about)


@click.group(cls=NamingGroup)
def command() -> None:
    """Read layouts (lsregen, jsonl, pixels, coco, yolo, nsr1k, gligen), and write them (the first three)."""


@command.command()
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH)
@reads
@bad_boxes("error")
@click.option("--to", type=NAME, metavar="FORMAT", help="The format of OUT. [default: by its ending: lsregen or jsonl]")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def convert(source: Path, target: Path, to: str | None, force: bool, **options: Any) -> None:
    """Convert the layouts of IN, a file or a folder of YOLO labels, to OUT.

    \b
    lsregen layout convert instances.json prompts.jsonl
    lsregen layout convert labels/ boxes.json --to pixels --size 640x480
    lsregen layout convert instances.json masks.jsonl --masks
    """
    from ..framework.layout_files.formats import encode_layouts

    to = to or BY_ENDING.get(target.suffix)
    if to is None:
        raise ConfigError(f"{target}: no format has the ending {target.suffix!r}; name it with --to")
    found = _read(source, **options)
    written = encode_layouts(target, found.items, to)
    _write(written, force)
    click.echo(f"{click.format_filename(target)}  {counted(len(found.items), 'item')} from {found.format} to {to}")
    if found.dropped:
        click.echo(f"{len(found.dropped)} dropped:", err=True)
    for dropped in found.dropped[:SHOWN]:
        click.echo(f"  {dropped}", err=True)
    if len(found.dropped) > SHOWN:
        click.echo(f"  and {len(found.dropped) - SHOWN} more", err=True)


@command.command()
@click.argument("source", metavar="FILE", type=PATH)
@reads
@bad_boxes("drop")
def show(source: Path, **options: Any) -> None:
    """List what FILE holds: its items with their boxes, and what was dropped."""
    found = _read(source, **options)
    regions = [region for item in found.items for region in item.layout.regions]
    boxes, masks = sum(r.box is not None for r in regions), sum(r.mask is not None for r in regions)
    places = f"{counted(boxes, 'box')}, {counted(masks, 'mask')}, {counted(len(regions) - boxes - masks, 'phrase')} without"
    click.echo(f"{click.format_filename(source)}: {found.format}, {counted(len(found.items), 'item')}, {places} a place")
    for i, item in enumerate(found.items, 1):
        click.echo(f"{i:>4}  {_described(item)}")
        for region in item.layout.regions:
            click.echo(f"        {region.phrase!r}  {_place(region)}")
    if found.dropped:
        click.echo(f"dropped: {len(found.dropped)}")
    for dropped in found.dropped:
        click.echo(f"  {dropped}")


def _read(source: Path, from_: str | None, size: str | None, classes: Path | None, masks: bool, on_bad_box: str) -> Items:
    from ..framework.layout_files.formats import read_layouts

    sides = None
    if size is not None:
        from .checks import parse_size

        sides = parse_size(size)
    return read_layouts(source, from_, size=sides, classes=classes, on_bad_box=on_bad_box, masks=masks)


def _write(files: Mapping[Path, bytes], force: bool) -> None:
    """Every file, whole; none if one of them is in the way."""
    from ..framework.files import reason
    from .output import OutputError, write_file

    for path in files:
        if path.is_dir():
            raise OutputError(f"{path}: a folder is in the way; choose another name, or remove it")
        if os.path.lexists(path) and not force:
            raise OutputError(f"{path} exists; choose another name, or replace it with --force")
    for path, data in reversed(list(files.items())):  # masks before the file that names them
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot make this folder ({reason(error)}); choose another") from None
        write_file(path, data)


def _described(item: Item) -> str:
    size = f"{item.size[0]}x{item.size[1]}" if item.size is not None else None
    seed = f"seed {item.seed}" if item.seed is not None else None
    negative = f"not {item.negative!r}" if item.negative else None
    return "  ".join(part for part in (item.name, size, seed, repr(item.prompt), negative) if part)


def _place(region: Region) -> str:
    if region.box is not None:
        return "box " + ",".join(f"{value:.4g}" for value in region.box.xyxy)
    if region.mask is not None:
        return f"mask of {region.mask.shape[1]}x{region.mask.shape[0]}"
    return "no place"
