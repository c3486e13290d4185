"""`lsregen evaluate ablation`: what one setting does, measured and plotted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..option_types import NAME, PATH
from ..output import claim, write_file
from .comparison import (
    Settings,
    check,
    check_plot,
    check_result,
    compare,
    comparison_options,
    require_extra,
    write_result,
    write_sheet,
)


def _list(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        require_extra()
        from ...evaluation.shapeworld.ablations import ablations

        for name, each in ablations().items():
            click.echo(f"{name}\n    {each.says}")
        ctx.exit()


@click.command()
@click.argument("name", type=NAME)
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Say what can be varied.")
@click.option("--plot", "picture", type=PATH, metavar="FILE.png", help="The plot; beside the result, if not given.")
@comparison_options
def ablation(name: str, picture: Path | None, result: Path, **given: Any) -> None:
    """Vary the setting NAME, and plot what it does.

    \b
    lsregen evaluate ablation --list
    lsregen evaluate ablation strength --count 100 --json strength.json
    """
    plotted = picture or result.with_suffix(".png")
    require_extra()
    from ...evaluation.shapeworld.ablations import ablation as named
    from ...evaluation.shapeworld.ablations import draw, moving_sheet
    from ...evaluation.tables.markdown import markdown

    chosen, kind = named(name), check_plot(plotted, "--plot", (".png",))
    settings = Settings(**given)
    settings = replace(settings, images=settings.images or chosen.moves)
    check_result(result)
    grid = plotted.with_name(f"{plotted.stem}-pictures.png")
    claim([plotted, grid], cure="choose another --plot")
    rows = chosen.rows()
    check(settings, rows)
    comparison = compare(settings, rows)
    made = dict(zip(rows, comparison.rows, strict=True))
    points = chosen.points(made)
    about = {"name": name, "says": chosen.says, "axis": chosen.axis, "metrics": list(chosen.metrics), "points": points}
    data = {**comparison.to_json(), "ablation": about}
    write_result(result, data)
    click.echo(markdown([data], parts=("rows",)), nl=False)
    write_file(plotted, draw(chosen, points, kind))
    click.echo(f"The plot: {plotted}")
    if chosen.moves:
        write_sheet(grid, moving_sheet(chosen, made, settings.folder))
        click.echo(f"The pictures: {grid}")
