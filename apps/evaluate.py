"""`lsregen evaluate`: methods compared on scenes whose answers are known, and tables of the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..evaluation.tables import PARTS
from ..framework.errors import ConfigError
from .attention import attention
from .checks import parse_size
from .cli import NamingGroup
from .comparison import Settings, check, check_result, compare, comparison_options, diagnostics, require_extra
from .output import write_file

if TYPE_CHECKING:
    from ..evaluation.shapeworld.rows import RowSpec


@click.group(name="evaluate", cls=NamingGroup)
def command() -> None:
    """Measure methods on a world with exact answers.

    \b
    lsregen evaluate shapeworld --guidance none,layout-guidance --json result.json
    lsregen evaluate table result.json
    """


command.add_command(attention)


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r}: expected names separated by commas")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r}: a name is given twice")
    return names


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    return None if value is None else parse_size(value)


@command.command()
@click.option("--guidance", "guidances", callback=_names, help="Presets, YAML files or none, separated by commas.")
@click.option(
    "--rows", metavar="all|FILE.yaml", help="Instead: rows of a file, each with its guidance, model and size; all that ship."
)
@click.option("--size", callback=_size, metavar="WxH", help="Width and height in pixels; the model's own by default.")
@click.option("--model", help="An embedded model or a model folder; the guidance's or shapeworld-base by default.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A further setting of every guidance; may be repeated.")
@click.option("--diagnostics", "diagnosed", is_flag=True, help="Measure the autoencoder and the attention on true images too.")
@comparison_options
def shapeworld(
    result: Path,
    guidances: tuple[str, ...] | None,
    rows: str | None,
    size: tuple[int, int] | None,
    model: str | None,
    sets: tuple[str, ...],
    diagnosed: bool,
    **given: Any,
) -> None:
    """Compare methods on held-out scenes of coloured shapes, found again by an exact detector.

    Prints the table of the result. Interrupt and repeat at will: finished items are kept in the --out folder.
    """
    settings = Settings(**given)
    require_extra()
    check_result(result)
    wanted = _rows(guidances, rows, model=model, size=size, sets=sets)
    check(settings, wanted)
    comparison = compare(settings, wanted)
    data = {**comparison.to_json(), "diagnostics": diagnostics(comparison) if diagnosed else {}}
    write_file(result, (json.dumps(data, indent=2) + "\n").encode())
    from ..evaluation.shapeworld.classifier import FEATURES
    from ..evaluation.tables import markdown

    click.echo(markdown([data]), nl=False)
    if settings.count <= FEATURES:
        click.echo(
            f"--count {settings.count}: too few for a Frechet distance, which needs more than {FEATURES} images.", err=True
        )


def _rows(guidances: tuple[str, ...] | None, rows: str | None, **common: Any) -> Mapping[str, RowSpec]:
    """What is compared, by name: the rows of a file, or guidances that share everything else."""
    from ..evaluation.shapeworld.rows import RowSpec, read_rows

    if (guidances is None) == (rows is None):
        raise ConfigError("expected either --guidance NAME,... or --rows all, and not both")
    if rows is None:
        return {name: RowSpec(name, **common) for name in guidances or ()}
    if RowSpec(**common) != RowSpec():
        raise ConfigError("--rows with --model, --size or --set: the rows say that themselves; leave one of them out")
    return read_rows(rows)


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metrics", callback=_names, metavar="NAMES", help="Only these metrics, separated by commas, in this order.")
@click.option("--part", type=click.Choice(PARTS), help="Only the rows, the paired differences or the diagnostics.")
def table(files: tuple[Path, ...], metrics: tuple[str, ...] | None, part: str | None) -> None:
    """Print results as Markdown, with intervals."""
    from ..evaluation.tables import markdown, read_result

    click.echo(markdown([read_result(path) for path in files], metrics, (part,) if part else PARTS), nl=False)
