"""`lsregen study`: two methods compared by people, blind, on one page; and their answers counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lsregen.apps.cli import NamingGroup
from lsregen.apps.option_types import COUNT, NAME, PATH, SEED
from lsregen.apps.output import claim
from lsregen.apps.showing.show import check_page
from lsregen.framework.errors import ConfigError, counted, nearest

if TYPE_CHECKING:
    from lsregen.evaluation.instruments.entrants import Entry
    from lsregen.evaluation.runs.run_folder import RunFolder
    from lsregen_study.study import Pair

LARGEST = 1024  # the longer side of a picture on the page
RESULT = "lsregen-study"
TEMPLATES = Path(__file__).parent / "templates"


@click.group(name="study", cls=NamingGroup)
def command() -> None:
    """Let people compare two methods, blind, by the three questions of the LSReGen paper.

    \b
    lsregen study make run --first layout-guidance --second none --out study.html
    lsregen study score answers-1.json answers-2.json
    """


@command.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--first", type=NAME, metavar="METHOD", help="Of the first run; may be left out if it has only one.")
@click.option("--second", type=NAME, metavar="METHOD", help="Of the second run, or of the first if there is one run only.")
@click.option("--count", type=COUNT, default=20, show_default=True, help="Pairs.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides the pairs, their order and sides.")
@click.option("--out", type=PATH, required=True, metavar="FILE.html", help="The page.")
def make(runs: tuple[Path, ...], first: str | None, second: str | None, count: int, seed: int, out: Path) -> None:
    """Make the page of a study: pairs of pictures of the same item and seed, sides and order at random.

    RUNS are one folder of `lsregen evaluate run`, or two. The page is a single file that needs nothing else; whoever answers
    saves a file of answers and sends it back. Answers that are not saved yet are kept in the browser.
    """
    from lsregen.evaluation.runs.run_folder import RunFolder
    from lsregen_study.study import ANSWERS, QUESTIONS, Study, pairs_of

    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs; expected one or two")
    folders = [RunFolder.open(folder) for folder in runs]
    check_page(out)
    one, two = _entries(folders[0], first, "--first"), _entries(folders[-1], second, "--second")
    names = one[0].job.method, two[0].job.method
    if len(set(names)) < 2:
        if folders[0].path.resolve() == folders[-1].path.resolve():
            raise ConfigError(f"--first and --second are both {names[0]!r} of {folders[0].path}; expected two methods")
        names = f"{names[0]} ({folders[0].path.name})", f"{names[1]} ({folders[-1].path.name})"
    study = Study(*names, pairs_of(one, two, count, seed))
    shown = [_shown(pair) for pair in study.pairs]
    from lsregen.apps.evaluating.reports import write_page

    size = write_page(
        out,
        "study.html",
        TEMPLATES,
        pairs=shown,
        questions=QUESTIONS,
        data={
            "format": ANSWERS,
            "key": study.key,
            "pairs": [pair.name for pair in study.pairs],
            "questions": [question.key for question in QUESTIONS],
        },
    )
    click.echo(f"{click.format_filename(out)}  {size / 1e3:.0f} kB, {counted(count, 'pair')} of {names[0]} and {names[1]}")


def _entries(run: RunFolder, method: str | None, where: str) -> list[Entry]:
    """The finished pictures of a run's method.

    Raises:
        ConfigError: no such method, or several and none was named, or nothing is finished.
    """
    from lsregen.evaluation.instruments.entrants import Entry

    known = list(run.plan.methods)
    if method is None and len(known) != 1:
        raise ConfigError(f"{run.path}: it has several methods ({', '.join(known)}); name one ({where})")
    name = method or known[0]
    if name not in known:
        raise ConfigError(f"{where} {name!r}: {run.path} has no such method{nearest(name, known)}; it has {', '.join(known)}")
    found = [
        Entry(run, run.plan.jobs[record.job], record.image)
        for record in run.records()
        if record.method == name and record.image is not None
    ]
    if not found:
        raise ConfigError(f"{run.path}: no pictures by {name!r} are finished; make them with `lsregen evaluate run`")
    return found


def _shown(pair: Pair) -> dict[str, Any]:
    """What the page shows of a pair: nothing that tells the methods apart but the pictures.

    The sketch of the layout has the shape of the left picture, whosever it is.
    """
    from lsregen.apps.evaluating.samples import SMALL, data_uri, outlines, phrases_of

    job = pair.first.job
    pictures = [each.picture() for each in (pair.left, pair.right)]
    return {
        "name": pair.name,
        "prompt": job.prompt,
        "wide": pictures[0].width / pictures[0].height,
        "boxes": outlines(job.layout),
        "phrases": phrases_of(job.layout),
        "pictures": [{"uri": data_uri(each, LARGEST), "pixelated": max(each.size) < SMALL} for each in pictures],
    }


@command.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--partial", is_flag=True, help="Count files in which answers are missing, too.")
@click.option("--json", "out", type=PATH, metavar="FILE", help="Write the numbers as JSON, too.")
def score(files: tuple[Path, ...], partial: bool, out: Path | None) -> None:
    """Count the answers of a study's raters: preference with intervals, and how far they agree.

    FILES are what the page saved, one of each rater.
    """
    from lsregen.apps.evaluating.comparison import check_file, write_result
    from lsregen_study.study import markdown, read_answers, scored

    if out is not None:
        check_file(out, "--json", "such as preferences.json")
        claim([out], RESULT, "choose another --json")
    result = scored(read_answers(files, partial))
    if out is not None:
        write_result(out, {"format": RESULT, **result})
    click.echo(markdown(result), nl=False)
