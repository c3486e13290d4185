"""`lsregen evaluate table`, `page` and `plot`: what came out of comparisons, to read and to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...evaluation.tables.markdown import PARTS
from ...framework.errors import ConfigError, nearest
from ...framework.files import is_file, is_folder
from ..option_types import COUNT, NAME, PATH
from ..output import RESULT, claim, write_file
from ..showing.show import check_page
from .comparison import check_plot

if TYPE_CHECKING:
    from ...evaluation.tables.paper import Table

LAYOUTS = ("paper", "full")


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, each once."""
    if value is None:
        return None
    found = tuple(name.strip() for name in value.split(","))
    if not all(found):
        raise click.BadParameter(f"{value!r}: expected names separated by commas")
    if len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r}: a name is given twice")
    return found


def read_results(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Results of `lsregen evaluate` that may stand beside each other; a run's folder stands for the result of its scores.

    Raises:
        ConfigError: one is no result, a run has not been scored, or they cannot be compared.
    """
    from ...evaluation.runs.run_folder import PLAN
    from ...evaluation.tables.markdown import read_result
    from ...evaluation.tables.paper import check_comparable

    paths: list[Path] = []
    for path in files:
        scored = path / "scores" / RESULT
        if is_file(path / PLAN) and not is_file(scored):
            raise ConfigError(f"{path}: this run has no scores/{RESULT}; make it with `lsregen evaluate score {path} ...`")
        paths.append(scored if is_folder(path) else path)
    results = [read_result(path) for path in paths]
    check_comparable(results)
    return results


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--metrics", callback=names, metavar="NAMES", help="Only these metrics, separated by commas, in this order.")
@click.option("--part", type=click.Choice(PARTS), help="Only the rows, the differences, the diagnostics or the layers.")
@click.option("--baseline", type=NAME, metavar="ROW", help="Only the paired differences, and of them those from this row.")
@click.option("--layout", type=click.Choice(LAYOUTS), help="Of the paper's Table 1, or everything. [default: paper for scores]")
@click.option("--html", type=PATH, metavar="FILE.html", help="Write the table in the paper's layout as a page, too.")
def table(
    files: tuple[Path, ...],
    metrics: tuple[str, ...] | None,
    part: str | None,
    baseline: str | None,
    layout: str | None,
    html: Path | None,
) -> None:
    """Print results as Markdown, with intervals.

    FILES are results of `lsregen evaluate`, or folders of runs that were scored.
    """
    results = read_results(files)
    if baseline is not None and part not in (None, "differences"):
        raise ConfigError(f"--baseline chooses paired differences, and --part {part} has none; leave one of the two out")
    part = part if baseline is None else "differences"
    if layout == "paper" and (metrics or part):
        raise ConfigError("--metrics, --part and --baseline are of --layout full")
    if html is not None:
        check_page(html)
        made = in_layout_of_paper(results)
        rows = list(zip(made.methods, made.cells, strict=True))
        write_page(html, "table.html", title="Comparison of methods", table=made, rows=rows)
    click.echo(printed(results, metrics, part, baseline, layout), nl=False)
    if html is not None:
        click.echo(click.format_filename(html), err=True)


def printed(
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] | None = None,
    part: str | None = None,
    baseline: str | None = None,
    layout: str | None = None,
) -> str:
    """Results as Markdown; without a `layout` scores are in the paper's, unless some metrics or a part are asked for.

    Raises:
        ConfigError: they cannot stand in one table, or have no such metric or row.
    """
    from ...evaluation.tables.markdown import markdown
    from ...evaluation.tables.paper import markdown as in_paper

    if layout is None:
        scores = all("protocol" in result for result in results) and metrics is None and part is None
        layout = "paper" if scores else "full"
    if layout == "paper":
        return in_paper(in_layout_of_paper(results))
    return markdown(results, metrics, (part,) if part else PARTS, baseline)


def in_layout_of_paper(results: Sequence[Mapping[str, Any]]) -> Table:
    """Of runs that were scored, or of scenes of shapeworld; results of one kind.

    Raises:
        ConfigError: they cannot stand in one table.
    """
    from ...evaluation.shapeworld import table as of_scenes
    from ...evaluation.tables import paper as of_runs

    return (of_runs if any("protocol" in result for result in results) else of_scenes).table_of(results)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, metavar="FILE.html", help="The page. [default: samples.html in the first run]")
@click.option("--count", type=COUNT, default=24, show_default=True, help="Items to show.")
@click.option("--items", callback=names, metavar="NAMES", help="Instead: these items, separated by commas.")
@click.option("--methods", callback=names, metavar="NAMES", help="Only these methods, separated by commas, in this order.")
def page(
    runs: tuple[Path, ...], out: Path | None, count: int, items: tuple[str, ...] | None, methods: tuple[str, ...] | None
) -> None:
    """Make one HTML page of runs: for every item its prompt, its boxes, and the pictures of all methods side by side.

    Runs stand together as they do in a score: of the same methods, asked for the same of an item. The page is a single file that
    needs nothing else: no network, no script.
    """
    from ...evaluation.instruments.entrants import opened
    from .samples import samples_page

    path = out or runs[0] / "samples.html"
    folders = opened(runs)
    check_page(path)
    size = write_page(path, "samples.html", **samples_page(folders, count, items, methods))
    click.echo(f"{click.format_filename(path)}  {size / 1e3:.0f} kB")


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--metrics", callback=names, required=True, metavar="NAMES", help="What to plot, one chart for each.")
@click.option("--methods", callback=names, metavar="NAMES", help="Only these methods, separated by commas.")
@click.option(
    "--against", type=NAME, metavar="KEY", help="A setting, such as guidance.layout.gamma. [default: the one that varies]"
)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="The picture: .png, .svg or .pdf.")
def plot(
    files: tuple[Path, ...], metrics: tuple[str, ...], methods: tuple[str, ...] | None, against: str | None, out: Path
) -> None:
    """Draw metrics against a setting that varies over the rows of results, with intervals: an ablation.

    Methods without that setting, such as none, are drawn as level lines.

    \b
    lsregen evaluate plot run --metrics map50,clip --against guidance.layout.gamma --out gamma.png
    """
    kind = check_plot(out, "--out")
    if kind == "png":
        claim([out], cure="choose another --out")
    from ...evaluation.tables.ablation_plots import draw

    rows: list[Mapping[str, Any]] = [row for result in read_results(files) for row in result["rows"]]
    if not all(isinstance(row.get("guidance"), str) for row in rows):
        raise ConfigError("a row of these results has no 'guidance', by which a plot names it; make the result again")
    known = list(dict.fromkeys(row["guidance"] for row in rows))
    if unknown := [name for name in methods or () if name not in known]:
        raise ConfigError(
            f"method {unknown[0]!r}: not in these results{nearest(unknown[0], known)}; they have {', '.join(known)}"
        )
    rows = [row for row in rows if methods is None or row["guidance"] in methods]
    data = draw(rows, metrics, against, kind)
    write_file(out, data)
    click.echo(click.format_filename(out))


def write_page(path: Path, template: str, folder: Path | None = None, /, **values: Any) -> int:
    """Write a page from its template, one of lsregen's own or of another folder; returns its size in bytes."""
    from ..showing.pages import TEMPLATES, filled

    data = filled(template, folder or TEMPLATES, **values).encode("utf-8", "replace")
    write_file(path, data)
    return len(data)
