"""`lsregen show`: a run as one page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from ...framework.files import look, reason, shortened
from ..option_types import PATH
from ..output import OutputError, write_file
from .records import RunError, find_record, read_record

HEAD = 2000  # characters of a page within which it says who made it


@click.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, metavar="FILE.html", help="The page. [default: RUN.html beside the report or picture]")
def command(run: Path, out: Path | None) -> None:
    """Make one HTML page of a run: its images, boxes, attention maps, energy curves, timings and settings.

    RUN is the folder that `lsregen generate` wrote; or a report in it, such as report-1.json; or one of its pictures, to show
    that image only. The page is a single file that needs nothing else: no network, no script.

    \b
    lsregen show outputs
    lsregen show outputs/a-red-circle-and-a-blue-square-0.png --out circle.html
    """
    from .pages import render  # jinja2 and Pillow, which help can do without

    report, only = find_record(run)
    path = out or report.with_name(f"{Path(only or report).stem}.html")
    check_page(path)
    try:
        page = render(read_record(report), report, only)
    except RecursionError:
        raise RunError(f"{report}: a damaged report: its values are nested too deeply") from None
    data = page.encode("utf-8", "replace")  # a prompt may hold half a character
    write_file(path, data)
    click.echo(f"{click.format_filename(path)}  {len(data) / 1e3:.0f} kB")


def check_page(path: Path) -> None:
    """Refuse to replace what is no page of lsregen's.

    Raises:
        OutputError: something else is there.
    """
    from .pages import GENERATOR

    cure = "choose another --out, or move it away"
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"--out {str(path)!r}: expected a file that ends in .html")
    if (place := look(path)).free:
        return
    if place.kind != "file":
        raise OutputError(f"{shortened(path)}: in the way ({place.said}); {cure}")
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            own = f'content="{GENERATOR}"' in file.read(HEAD)
    except OSError as error:
        raise OutputError(f"{path}: in the way ({reason(error)}); {cure}") from None
    if not own:
        raise OutputError(f"{path} exists and was not made by lsregen show; {cure}")
