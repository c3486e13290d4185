"""`lsregen evaluate shapeworld`: plan, run and score at once, on scenes whose answers are known."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...evaluation.tables.markdown import FORMAT
from ...framework.errors import ConfigError, counted
from ...framework.files import look
from ..checks import check_folder, memory_errors, parse_size
from ..cli import INTERRUPTED
from ..option_types import BATCH, COUNT, NAME, PATH, SEED, STEPS, Finite
from ..output import OutputError, write_file
from .comparison import check_file, check_result, progress, require_extra, write_result
from .plan_and_run import varying
from .reports import names, write_page

if TYPE_CHECKING:
    from ...evaluation.runs.plan import Plan
    from ...evaluation.runs.planning import MethodSpec
    from ...evaluation.runs.run_folder import RunFolder
    from ...evaluation.shapeworld.results import Judged
    from ...evaluation.shapeworld.rows import RowSpec
    from ...framework.pipeline.pipeline import Pipeline
    from ...framework.plugins.registry import Plugins

SAMPLES = 24  # of the page of images
MOST_LETTERS = 60  # of a method's name, which is a folder's


@dataclass(frozen=True)
class Settings:
    """How rows are compared: on which scenes, where and how the images are made."""

    objects: int
    count: int
    seed: int
    steps: int | None
    cfg: float | None
    batch: int
    device: str
    dtype: str
    images: bool
    folder: Path
    records: Path | None


OPTIONS = (
    click.option("--objects", type=click.IntRange(1, 3), default=2, show_default=True, help="Objects in every scene."),
    click.option("--count", type=COUNT, default=300, show_default=True, help="Scenes, one image each."),
    click.option("--seed", type=SEED, default=0, show_default=True, help="Of the first scene and of its image."),
    click.option("--steps", type=STEPS, help="Sampling steps; 50 unless the guidance says otherwise."),
    click.option("--cfg", type=Finite(0), help="Strength of classifier-free guidance; the model's own by default."),
    click.option("--batch", type=BATCH, default=8, show_default=True, help="Images made at once."),
    click.option("--device", type=NAME, default="auto", show_default=True, help="auto, cpu, cuda or mps."),
    click.option("--dtype", type=NAME, default="fp32", show_default=True, help="fp32, fp16 or bf16."),
    click.option("--images", is_flag=True, help="Write a page of the images of the first scenes, samples.html in the run."),
    click.option(
        "--out",
        "folder",
        type=PATH,
        default=Path("outputs/shapeworld"),
        show_default=True,
        help="Folder of runs: each plan has its own in it, and goes on where it was interrupted.",
    ),
    click.option("--records", type=PATH, metavar="FILE.jsonl.gz", help="Write what was seen of every image, too."),
    click.option("--json", "result", type=PATH, required=True, metavar="FILE", help="The result file."),
)


def scene_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `Settings` holds, and `--json` as `result`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else "{}x{}".format(*parse_size(value))


@click.command()
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
@click.option("--vary", multiple=True, callback=varying, metavar="KEY=VALUE,...", help="A row for each value of a setting.")
@click.option("--diagnostics", "diagnosed", is_flag=True, help="Measure the autoencoder and the attention on true images too.")
@scene_options
def shapeworld(
    result: Path,
    guidances: tuple[str, ...] | None,
    rows: str | None,
    size: str | None,
    model: str | None,
    sets: tuple[str, ...],
    vary: Mapping[str, Sequence[str]],
    diagnosed: bool,
    **given: Any,
) -> None:
    """Compare methods on held-out scenes of coloured shapes, found again by an exact detector.

    Prints the table of the result. Interrupt and repeat at will: finished images are kept in the --out folder.
    """
    settings = Settings(**given)
    require_extra()
    check_result(result)
    wanted = _rows(guidances, rows, vary, model=model, size=size, sets=sets)
    comparison = compare(settings, wanted)
    data = {**comparison.to_json(), "diagnostics": diagnostics(comparison, settings) if diagnosed else {}}
    write_result(result, data)
    from ...evaluation.shapeworld.classifier import FEATURES
    from ...evaluation.tables.markdown import markdown

    click.echo(markdown([data]), nl=False)
    if settings.count <= FEATURES:
        click.echo(
            f"--count {settings.count}: too few for a Frechet distance, which needs more than {FEATURES} images.", err=True
        )


def _rows(
    guidances: tuple[str, ...] | None, rows: str | None, vary: Mapping[str, Sequence[str]], **common: Any
) -> Mapping[str, RowSpec]:
    """What is compared, by name: the rows of a file, or guidances that share everything else."""
    from ...evaluation.runs.planning import varied
    from ...evaluation.shapeworld.rows import RowSpec, read_rows

    if (guidances is None) == (rows is None):
        raise ConfigError("expected either --guidance NAME,... or --rows all, and not both")
    if rows is None:
        return varied({name: RowSpec(name, **common) for name in guidances or ()}, vary)
    if vary or RowSpec(**common) != RowSpec():
        raise ConfigError("--rows with --model, --size, --set or --vary: the rows say that themselves; leave one of them out")
    return read_rows(rows)


@dataclass(frozen=True)
class Comparison:
    """Rows whose images were judged, in the order in which they were asked for, and the runs that made them."""

    rows: Sequence[Judged]
    runs: Sequence[RunFolder]

    def to_json(self) -> dict[str, Any]:
        """The result file."""
        from ...evaluation.shapeworld.results import result

        return result(self.rows)


def compare(settings: Settings, rows: Mapping[str, RowSpec]) -> Comparison:
    """Plan, run and judge; every setting is checked before the first image is made.

    Raises:
        LsregenError: a value that cannot be used, or an image that could not be made.
        Exit: interrupted; what is finished is kept.
    """
    from ...evaluation.instruments.entrants import entrants_of
    from ...evaluation.shapeworld.results import PASSES, judge

    check_folder(settings.folder)
    if settings.records is not None:
        check_records(settings.records)
    called = method_names(rows)
    plans = plans_of(settings, {called[name]: row for name, row in rows.items()})
    try:
        runs = [_made(plan, settings) for plan in plans]
        entrants = {each.name: each for each in entrants_of(runs)}
        judged: list[Judged] = []
        with progress(PASSES * settings.count * len(rows), "judging", "look") as on_done:
            for name in rows:
                judged.append(judge(entrants[called[name]], name, on_done=on_done))
    except KeyboardInterrupt:
        click.echo(f"Interrupted; finished images are kept in {settings.folder}: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    if settings.images:
        from .samples import samples_page

        write_page(runs[0].path / "samples.html", "samples.html", **samples_page(runs, SAMPLES))
        click.echo(f"The images: {runs[0].path / 'samples.html'}", err=True)
    if settings.records is not None:
        write_records(settings.records, judged)
    return Comparison(judged, runs)


def method_names(rows: Mapping[str, RowSpec]) -> dict[str, str]:
    """What each row is called as a method of a plan, whose name is a folder's.

    Raises:
        ConfigError: two rows would be called alike.
    """
    found: dict[str, str] = {}
    for name in rows:
        called = re.sub(r"[^\w@+. -]+", "-", name).strip(" .-")[:MOST_LETTERS].strip(" .-") or "row"
        if twin := next((other for other, one in found.items() if one == called), None):
            raise ConfigError(f"rows {twin!r} and {name!r} would both be kept as {called!r}; call one of them otherwise")
        found[name] = called
    return found


def plans_of(settings: Settings, rows: Mapping[str, RowSpec]) -> list[Plan]:
    """The plans of rows by their methods' names, one for the rows of each kind of scene."""
    from ...evaluation.runs.planning import make_plan, pixels
    from ...evaluation.sources import Asked, read_source

    kinds: dict[tuple[Fraction, float | None], dict[str, RowSpec]] = {}
    for name, row in rows.items():
        size = pixels(row.enlarged) or pixels(row.size) or Asked.size
        kinds.setdefault((Fraction(*size), row.place), {})[name] = row
    plans: list[Plan] = []
    for (ratio, place), members in kinds.items():
        sizes = (pixels(row.size) or pixels(row.enlarged) for row in members.values())
        size = Asked.size if ratio == 1 else next(each for each in sizes if each)
        asked = Asked(objects=settings.objects, count=settings.count, first=settings.seed, size=size, place=place)
        specs = {name: _spec(row, settings) for name, row in members.items()}
        with memory_errors("to look at a model", "use --dtype fp16, or a smaller --model"):
            plans.append(make_plan(read_source("shapeworld", asked), specs, batch=settings.batch, device=settings.device)[0])
    return plans


def _spec(row: RowSpec, settings: Settings) -> MethodSpec:
    """A row as a method; what it does not say itself is the settings'."""
    from ...evaluation.runs.planning import MethodSpec

    own: dict[str, Any] = {each.name: getattr(row, each.name) for each in fields(MethodSpec)}
    common: dict[str, Any] = {"steps": settings.steps, "cfg": settings.cfg, "dtype": settings.dtype}
    of_all = {key: value for key, value in common.items() if own[key] == getattr(MethodSpec, key)}
    return MethodSpec(**{**own, **of_all})


def _made(plan: Plan, settings: Settings) -> RunFolder:
    """The run of a plan with all its images.

    Raises:
        ConfigError: an image could not be made; says how many, and why the first.
    """
    import torch

    from ...evaluation.runs import runner
    from ...evaluation.runs.engine_local import Local
    from ...evaluation.runs.run_folder import RunFolder
    from ...evaluation.runs.worker import Workshop

    run = RunFolder.begin(settings.folder / plan.digest[:12], plan)
    engine = partial(Local().make, workshop=Workshop(settings.device, torch.get_num_threads()))
    with progress(len(plan.jobs), "images") as on_done, memory_errors("to load a model", "choose another --device"):
        outcome = runner.run(run, engine, retry_failed=True, on_done=on_done, say=partial(click.echo, err=True))
    if outcome.failed and (first := outcome.failed[0].error) is not None:
        raise ConfigError(
            f"{len(outcome.failed)} of {counted(len(plan.jobs), 'image')} could not be made ({first.type}: {first.message}); the "
            f"others are kept in {run.path}; where the memory is full, lower --batch {settings.batch} or --size"
        )
    return run


def check_records(path: Path) -> None:
    """Find out before the work that records cannot be written there, or would replace something else."""
    check_file(path, "--records", "such as records.jsonl.gz")
    if look(path).kind == "file":
        with path.open("rb") as file:
            if FORMAT.encode() not in file.read(2 * len(FORMAT)):
                raise OutputError(f"--records {str(path)!r}: exists and was not made by lsregen; choose another file")


def write_records(path: Path, judged: Sequence[Judged]) -> None:
    """What was seen of every image, as JSON lines, compressed; the same records are the same bytes."""
    from ...evaluation.shapeworld.results import records

    packed = BytesIO()
    with gzip.GzipFile(FORMAT, "wb", fileobj=packed, mtime=0) as file:  # the name that lsregen knows its own by
        for each in records(judged):
            file.write((json.dumps(each) + "\n").encode())
    write_file(path, packed.getvalue())


@dataclass
class Pipelines:
    """Models by name, each loaded once."""

    device: str
    dtype: str
    plugins: Plugins
    _loaded: dict[str, Pipeline] = field(default_factory=dict[str, "Pipeline"])

    def __getitem__(self, name: str) -> Pipeline:
        from ...framework.pipeline.pipeline import Pipeline

        if name not in self._loaded:
            with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
                self._loaded[name] = Pipeline.load(name, device=self.device, dtype=self.dtype, plugins=self.plugins)
        return self._loaded[name]


def diagnostics(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    """By the name of the model, on the scenes of its first row, in the size of its images."""
    from ...evaluation.shapeworld.diagnostics import diagnose
    from ...framework.plugins.registry import discover

    pipelines = Pipelines(settings.device, settings.dtype, discover())
    found: dict[str, Any] = {}
    for row in comparison.rows:
        method, scenes = row.looked.entrant.method, replace(row.kind, size=row.looked.jobs[0].size)
        if (model := str(method.described.get("name", method.model))) not in found:
            with progress(scenes.count, f"diagnostics of {model}") as on_done:
                found[model] = diagnose(pipelines[method.model], scenes, on_done=on_done)
    return found
