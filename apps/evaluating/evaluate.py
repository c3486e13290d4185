"""`lsregen evaluate`: methods compared, on scenes whose answers are known or by a plan of any size, and tables of the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...framework.errors import ConfigError
from ..checks import parse_size
from ..cli import NamingGroup
from ..option_types import NAME
from .ablation import ablation
from .attention import attention
from .comparison import Settings, check, check_result, compare, comparison_options, diagnostics, require_extra, write_result
from .plan_and_run import plan, run, status
from .reports import names, page, plot, table
from .scoring import score

if TYPE_CHECKING:
    from ...evaluation.shapeworld.rows import RowSpec


@click.group(name="evaluate", cls=NamingGroup)
def command() -> None:
    """Measure methods: on a world with exact answers, or on prompts and layouts of any source.

    \b
    lsregen evaluate shapeworld --guidance none,layout-guidance --json result.json
    lsregen evaluate table result.json
    \b
    lsregen evaluate plan coco instances.json --split multi --guidance none,layout-guidance --out plan.jsonl
    lsregen evaluate run plan.jsonl --out run
    lsregen evaluate score run --detector detr/ --clip clip/ --features inception.pt --reference val2017/
    """


for _each in (ablation, attention, plan, run, status, score, table, page, plot):
    command.add_command(_each)


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    return None if value is None else parse_size(value)


@command.command()
@click.option("--guidance", "guidances", callback=names, help="Presets, YAML files or none, separated by commas.")
@click.option(
    "--rows",
    type=NAME,
    metavar="all|FILE.yaml",
    help="Instead: rows of a file, each with its guidance, model and size; all that ship.",
)
@click.option("--size", callback=_size, metavar="WxH", help="Width and height in pixels; the model's own by default.")
@click.option("--model", type=NAME, help="An embedded model or a model folder; the guidance's or shapeworld-base by default.")
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
    write_result(result, data)
    from ...evaluation.shapeworld.classifier import FEATURES
    from ...evaluation.tables.markdown import markdown

    click.echo(markdown([data]), nl=False)
    if settings.count <= FEATURES:
        click.echo(
            f"--count {settings.count}: too few for a Frechet distance, which needs more than {FEATURES} images.", err=True
        )


def _rows(guidances: tuple[str, ...] | None, rows: str | None, **common: Any) -> Mapping[str, RowSpec]:
    """What is compared, by name: the rows of a file, or guidances that share everything else."""
    from ...evaluation.shapeworld.rows import RowSpec, read_rows

    if (guidances is None) == (rows is None):
        raise ConfigError("expected either --guidance NAME,... or --rows all, and not both")
    if rows is None:
        return {name: RowSpec(name, **common) for name in guidances or ()}
    if RowSpec(**common) != RowSpec():
        raise ConfigError("--rows with --model, --size or --set: the rows say that themselves; leave one of them out")
    return read_rows(rows)
