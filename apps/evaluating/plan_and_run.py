"""`lsregen evaluate plan`, `run` and `status`: a comparison as a file of jobs, made wherever there are machines for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...framework.errors import ConfigError, counted, nearest, told_of
from ...framework.files import is_there, look, reason
from ..checks import check_folder, memory_errors
from ..cli import INTERRUPTED
from ..option_types import BATCH, COUNT, NAME, PATH, SEED, STEPS, Finite, pairs
from ..output import OutputError
from .comparison import check_file

if TYPE_CHECKING:
    from ...evaluation.runs.plan import Plan
    from ...evaluation.runs.planning import MethodSpec
    from ...evaluation.runs.runner import Engine, Making, Outcome
    from ...framework.layout_files.item import Dropped

SHOWN = 3  # of what was left out, or failed
FAILED = 1  # the exit code of a run of which some jobs ended with an error
SOURCES = ("coco", "nsr1k", "attend-and-excite", "geneval", "list", "shapeworld")


def varying(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """`KEY=VALUE,...`, several times."""
    found: dict[str, tuple[str, ...]] = {}
    for text in values:
        key, equals, given = text.partition("=")
        listed = tuple(each.strip() for each in given.split(","))
        if not key.strip() or not equals or not all(listed):
            raise click.BadParameter(f"{text!r}: expected {param.metavar}, such as guidance.layout.gamma=10,30")
        found[key.strip()] = listed
    return found


@click.command()
@click.argument("source", type=click.Choice(SOURCES))
@click.argument("file", type=PATH, required=False)
@click.option("--out", type=PATH, required=True, metavar="PLAN.jsonl", help="The plan's file.")
@click.option("--guidance", "guidances", metavar="NAMES", help="Presets, YAML files or none, separated by commas: the methods.")
@click.option(
    "--methods", type=PATH, metavar="FILE.yaml", help="Instead: methods, each with its guidance, model, size, steps, cfg."
)
@click.option("--model", type=NAME, help="Of all methods; the guidance's or shapeworld-base by default.")
@click.option(
    "--size", type=NAME, metavar="model|own|xFACTOR|WxH", help="Of all images; x3 for COCO, own for lists, else the model's own."
)
@click.option("--steps", type=STEPS, help="Sampling steps; 50 unless the guidance says otherwise.")
@click.option("--cfg", type=Finite(0), help="Strength of classifier-free guidance; the model's own by default.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A further setting of every method; may be repeated.")
@click.option("--vary", multiple=True, callback=varying, metavar="KEY=VALUE,...", help="A method for each value of a setting.")
@click.option("--dtype", type=NAME, show_default="fp32", help="What networks compute in: fp32, fp16 or bf16.")
@click.option("--split", type=click.Choice(("single", "multi", "all")), default="all", show_default=True, help="COCO: images with one object, with two or more (the two largest are kept), or any.")  # fmt: skip  # noqa: E501
@click.option("--captions", type=PATH, help="COCO: captions, as JSON lines or as COCO has them; composed of names by default.")
@click.option("--objects", type=click.IntRange(1, 3), default=2, show_default=True, help="shapeworld: objects in every scene.")
@click.option("--count", type=COUNT, default=300, show_default=True, help="shapeworld: scenes.")
@click.option("--first", type=SEED, default=0, show_default=True, help="shapeworld: seed of the first scene.")
@click.option(
    "--limit",
    type=COUNT,
    help="The first so many items only; those of them that are left out are not made up for.",
)
@click.option("--on-bad-box", type=click.Choice(("error", "drop")), default="error", show_default=True, help="What to do with an item whose box or phrase cannot be used.")  # fmt: skip  # noqa: E501
@click.option("--seeds", type=COUNT, default=1, show_default=True, help="Images of each item by each method.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides the seeds of items that have none.")
@click.option("--batch", type=BATCH, default=8, show_default=True, help="Images made at once, a part of the plan.")
@click.option(
    "--device", type=NAME, default="auto", show_default=True, help="Where the models are looked at: auto, cpu, cuda or mps."
)
def plan(source: str, file: Path | None, out: Path, **given: Any) -> None:
    """Write a plan: every image that a comparison needs, item x method x seed.

    \b
    SOURCE  FILE
    coco               COCO instances (JSON)
    nsr1k              NSR-1K, spatial or counting (JSON)
    attend-and-excite  its prompts by group (JSON)
    geneval            its metadata (JSON lines)
    list               JSON lines, CSV, or any file of layouts
    shapeworld         no file: scenes of coloured shapes
    """
    from ...evaluation.runs.planning import make_plan
    from ...evaluation.sources import Asked, read_source

    check_plan(out)
    keys = ("split", "captions", "objects", "count", "first", "limit", "on_bad_box")
    found = read_source(source, Asked(file, **{key: given[key] for key in keys}))
    keys = ("seeds", "seed", "batch", "device")
    with memory_errors("to look at a model", "choose another --device"):
        made, dropped = make_plan(found, specs_of(given), **{key: given[key] for key in keys})
    try:
        made.write(out)
    except OSError as error:
        raise OutputError(f"--out {str(out)!r}: cannot be written ({reason(error)}); choose another file") from None
    tell(made, dropped)
    click.echo(out)


def check_plan(path: Path) -> None:
    """Find out before models are loaded that a plan cannot be written; an older plan is replaced, and nothing else.

    Raises:
        OutputError: something else is there, or the plan of a run that was begun; or its folder cannot be written to.
    """
    from ...evaluation.runs.plan import FORMAT
    from ...evaluation.runs.run_folder import IMAGES, PLAN, RECORDS

    check_file(path, "--out", "such as plan.jsonl")
    if look(path).kind == "file":
        try:
            with path.open("rb") as file:
                first = file.readline(1 << 20)
        except OSError as error:
            raise OutputError(f"--out {str(path)!r}: cannot be read ({reason(error)}); choose another file") from None
        if f'"{FORMAT}"'.encode() not in first:
            raise OutputError(f"--out {str(path)!r}: exists and is not a plan; choose another file, or move it away")
    if path.name == PLAN and (made := [name for name in (IMAGES, RECORDS) if is_there(path.parent / name)]):
        raise OutputError(
            f"--out {str(path)!r}: the place of the plan of a run, whose {' and '.join(made)} stand beside it; choose "
            "another file, or delete the run first"
        )


def specs_of(given: Mapping[str, Any]) -> dict[str, MethodSpec]:
    """The methods that were asked for, by name: those of a file, or guidances that share everything else."""
    from ...evaluation.runs.planning import MethodSpec, read_methods, varied

    own = ("model", "size", "steps", "cfg", "sets", "vary", "dtype")
    if (given["guidances"] is None) == (given["methods"] is None):
        raise ConfigError("expected either --guidance NAME,... or --methods FILE.yaml, and not both")
    if given["methods"] is not None:
        if said := [key for key in own if given[key] not in (None, (), {})]:
            name = "set" if said[0] == "sets" else said[0]
            raise ConfigError(f"--methods with --{name}: the methods say that themselves; leave one of them out")
        return read_methods(given["methods"])
    names = [name.strip() for name in given["guidances"].split(",")]
    labels = [Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in names]
    if not all(names) or len(set(labels)) < len(labels):
        raise ConfigError(f"--guidance {given['guidances']!r}: expected different names, separated by commas")
    rest = {key: given[key] for key in own if given[key] is not None and key != "vary"}
    specs = {label: MethodSpec(guidance=name, **rest) for label, name in zip(labels, names, strict=True)}
    return varied(specs, given["vary"])


def tell(made: Plan, dropped: Sequence[Dropped]) -> None:
    """Say what is in a plan, and what is not and why."""
    items = made.origin.items
    click.echo(
        f"{counted(items, 'item')}, {counted(len(made.methods), 'method')}: {counted(len(made.jobs), 'image')} in "
        f"{counted(len(made.starts), 'batch')}"
    )
    limit = made.origin.options.get("limit")
    if limit is not None and items + sum(each.what == "item" for each in dropped) < limit:  # crowds and boxes are no items
        click.echo(f"--limit {limit}: the source has no more", err=True)
    for kind, count in made.origin.dropped.items():
        if count:
            click.echo(f"left out: {count} x {kind}", err=True)
    shown(map(str, dropped))


def shown(lines: Iterable[str]) -> None:
    listed = list(lines)
    for line in listed[:SHOWN]:
        click.echo(f"  {line}", err=True)
    if len(listed) > SHOWN:
        click.echo(f"  and {len(listed) - SHOWN} more", err=True)


@click.command()
@click.argument("plan_file", metavar="PLAN", type=PATH)
@click.option("--out", "folder", type=PATH, required=True, help="Folder of the run; finished jobs in it are skipped.")
@click.option(
    "--engine",
    type=NAME,
    default="local",
    show_default=True,
    help="local: one worker here; ray (lsregen-ray): many machines.",
)
@click.option("--engine-option", "options", multiple=True, metavar="KEY=VALUE", callback=pairs, help="An option of the engine.")
@click.option("--device", type=NAME, default="auto", show_default=True, help="Of each worker: auto, cpu, cuda or mps.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of a worker on a CPU; the same number gives the same pictures.")  # fmt: skip  # noqa: E501
@click.option(
    "--model", "models", multiple=True, type=NAME, metavar="PLANNED=PLACE", help="Where a model of the plan is on these machines."
)
@click.option("--retry-failed", is_flag=True, help="Make jobs that ended with an error again.")
def run(plan_file: Path, folder: Path, retry_failed: bool, **given: Any) -> None:
    """Make the images of a plan, as far as they are missing.

    Interrupt, kill and repeat at will: every finished image is kept with its record, and none is made twice.
    """
    from ...evaluation.runs import runner
    from ...evaluation.runs.plan import Plan
    from ...evaluation.runs.run_folder import RunFolder
    from .comparison import progress

    found = Plan.read(plan_file)
    engine = engine_of(given, [name for method in found.methods.values() for name in (method.model, *method.models)])
    check_folder(folder)
    place = RunFolder.begin(folder, found)
    try:
        with progress(len(found.jobs), folder.name) as on_done, memory_errors("to load a model", "choose another --device"):
            outcome = runner.run(place, engine, retry_failed=retry_failed, on_done=on_done, say=partial(click.echo, err=True))
    except KeyboardInterrupt:
        click.echo(f"Interrupted; finished images are kept in {folder}: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    report(outcome, len(found.jobs))


def engine_of(given: Mapping[str, Any], planned: Iterable[str]) -> Making:
    """The engine that was asked for, with its workshop. `planned`: the models of the plan.

    Raises:
        ConfigError: an option that the engine does not have, or a place of a model that is none or not of the plan.
        PluginError: no such engine is installed.
    """
    from ...evaluation.runs.worker import Workshop
    from ...framework.config.options import build
    from ...framework.config.yaml_text import parse_value
    from ...framework.plugins.registry import discover

    models: dict[str, str] = {}
    for text in given["models"]:
        name, _, where = text.partition("=")
        if not name or not where:
            raise ConfigError(f"--model {text!r}: expected PLANNED=PLACE, such as sd15=/models/sd15")
        if name not in (known := dict.fromkeys(planned)):
            raise ConfigError(f"--model {text!r}: the plan's models are {', '.join(known)}{nearest(name, known)}")
        models[name] = where
    plugins, engine = discover(), given["engine"]
    if engine == "ray" and engine not in plugins.engines:
        raise ConfigError("--engine ray: it is a package of its own; install it with: pip install ./plugins/lsregen-ray")
    options = {key: parse_value(value, f"--engine-option {key}") for key, value in given["options"].items()}
    with told_of("--engine-option"):
        built: Engine = build(plugins.engine(engine).cls, options, "", f"engine {engine!r}")
    return partial(built.make, workshop=Workshop(given["device"], given["threads"], models))


def report(outcome: Outcome, total: int) -> None:
    """Say what became of a run; errors of jobs, also of those that were finished before, make the exit code 1."""
    before = f"{outcome.found} {'was' if outcome.found == 1 else 'were'} finished before"
    if outcome.failed_before:
        before += f", {len(outcome.failed_before)} of them failed"
    click.echo(f"{counted(total, 'image')}: {before}, {outcome.made} made, {len(outcome.failed)} of them failed")
    if outcome.unlike:
        click.echo(
            f"Warning: made again, {counted(len(outcome.unlike), 'picture')} came out unlike what the record tells of; the first "
            f"is of job {outcome.unlike[0]}: were they made on another device, or with other --threads?",
            err=True,
        )
    if failed := [*outcome.failed_before, *outcome.failed]:
        faults = Counter(f"{record.error.type}: {record.error.message}" for record in failed if record.error)
        shown(f"{count} x {fault.splitlines()[0]}" for fault, count in faults.most_common())
        click.echo("--retry-failed makes them again.", err=True)
        raise click.exceptions.Exit(FAILED)


@click.command()
@click.argument("folder", metavar="RUN", type=PATH)
def status(folder: Path) -> None:
    """Tell how far a run is: finished, failed and missing images of each method."""
    from ...evaluation.runs.run_folder import RunFolder

    place = RunFolder.open(folder)
    total = Counter(place.plan.named(number)[0] for number in range(len(place.plan.jobs)))
    done, failed, faults = Counter[str](), Counter[str](), Counter[str]()
    for record in place.records():
        done[record.method] += 1
        if record.error is not None:
            failed[record.method] += 1
            faults[f"{record.error.type}: {record.error.message}".splitlines()[0]] += 1
    for method in place.plan.methods:
        missing = total[method] - done[method]
        click.echo(
            f"{method}: {counted(total[method], 'image')}, {done[method]} finished, {failed[method]} of them failed, "
            f"{missing} missing"
        )
    shown(f"{count} x {fault}" for fault, count in faults.most_common())
