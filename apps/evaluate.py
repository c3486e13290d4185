"""`lsregen evaluate`: methods compared on scenes whose answers are known, and tables of the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..evaluation.tables import FORMAT, PARTS
from ..framework.errors import ConfigError
from .checks import check_folder, check_model, memory_errors, parse_size
from .cli import INTERRUPTED, NamingGroup
from .output import OutputError, claim, reason, write_file

if TYPE_CHECKING:
    from ..evaluation.shapeworld.benchmark import Contender, Row, Scenes
    from ..evaluation.shapeworld.rows import RowSpec
    from ..framework.pipeline import Pipeline
    from ..framework.plugins import Plugins

EXTRA = {"scipy": "scipy", "faster_coco_eval": "faster-coco-eval"}
"""What the extra `eval` brings, by the name it is imported under."""


@click.group(name="evaluate", cls=NamingGroup)
def command() -> None:
    """Measure methods on a world with exact answers.

    \b
    lsregen evaluate shapeworld --guidance none,layout-guidance --json result.json
    lsregen evaluate table result.json
    """


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    guidances: tuple[str, ...] | None
    rows: str | None
    objects: int
    count: int
    seed: int
    steps: int | None
    cfg: float | None
    size: tuple[int, int] | None
    batch: int
    model: str | None
    device: str
    dtype: str
    sets: tuple[str, ...]
    images: bool
    diagnostics: bool
    folder: Path


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
@click.option("--objects", type=click.IntRange(1, 3), default=2, show_default=True, help="Objects in every scene.")
@click.option("--count", type=click.IntRange(min=1), default=300, show_default=True, help="Scenes, one image each.")
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, show_default=True, help="Of the first scene and of its image.")
@click.option("--steps", type=click.IntRange(min=1), help="Sampling steps; 50 unless the guidance says otherwise.")
@click.option("--cfg", type=float, help="Strength of classifier-free guidance; the model's own by default.")
@click.option("--size", callback=_size, metavar="WxH", help="Width and height in pixels; the model's own by default.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images made at once.")
@click.option("--model", help="An embedded model or a model folder; the guidance's or shapeworld-base by default.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--dtype", default="auto", show_default=True, help="auto, fp32, fp16 or bf16.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A further setting of every guidance; may be repeated.")
@click.option("--images", is_flag=True, help="Keep the images, and a contact sheet of the first scenes.")
@click.option("--diagnostics", is_flag=True, help="Measure the autoencoder and the attention on true images too.")
@click.option(
    "--out", "folder", type=click.Path(path_type=Path), default=Path("outputs/shapeworld"), show_default=True,
    help="Folder of finished items, which are skipped the next time.",
)  # fmt: skip
@click.option("--json", "result", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The result file.")
def shapeworld(result: Path, **given: Any) -> None:
    """Compare methods on held-out scenes of coloured shapes, found again by an exact detector.

    Prints the table of the result. Interrupt and repeat at will: finished items are kept in the --out folder.
    """
    settings = Settings(**given)
    require_extra()
    check_result(result)
    check(settings)
    try:
        data = evaluate(settings)
    except KeyboardInterrupt:
        click.echo(f"Interrupted; finished items are kept in {settings.folder}: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    write_file(result, (json.dumps(data, indent=2) + "\n").encode())
    from ..evaluation.shapeworld.classifier import FEATURES
    from ..evaluation.tables import markdown

    click.echo(markdown([data]), nl=False)
    if settings.count <= FEATURES:
        click.echo(
            f"--count {settings.count}: too few for a Frechet distance, which needs more than {FEATURES} images.", err=True
        )


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metrics", callback=_names, metavar="NAMES", help="Only these metrics, separated by commas, in this order.")
@click.option("--part", type=click.Choice(PARTS), help="Only the rows, the paired differences or the diagnostics.")
def table(files: tuple[Path, ...], metrics: tuple[str, ...] | None, part: str | None) -> None:
    """Print results as Markdown, with intervals."""
    from ..evaluation.tables import markdown, read_result

    click.echo(markdown([read_result(path) for path in files], metrics, (part,) if part else PARTS), nl=False)


def require_extra() -> None:
    """Refuse to begin without the packages that measure.

    Raises:
        ConfigError: one of them is not installed.
    """
    if missing := [package for module, package in EXTRA.items() if find_spec(module) is None]:
        raise ConfigError(f"evaluation needs {' and '.join(missing)}; install them with: pip install {' '.join(missing)}")


def check_result(path: Path) -> None:
    """Find out before an hour of work that its result cannot be written."""
    if path.is_dir():
        raise OutputError(f"--json {str(path)!r}: is a folder; expected a file, such as result.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--json {str(path)!r}: cannot be written ({reason(error)}); choose another file") from None
    claim([path], FORMAT, "choose another --json")
    probe = path.with_name(f".{path.name[-80:]}.probe")
    write_file(probe, b"")
    probe.unlink()


def check(settings: Settings) -> None:
    """What can be known before torch and any model are loaded.

    Raises:
        LsregenError: a value that cannot be used.
    """
    check_folder(settings.folder)
    rows = rows_of(settings)
    for model in {row.model for row in rows.values()} - {None}:
        check_model(str(model))
    configs_of(rows)


def rows_of(settings: Settings) -> Mapping[str, RowSpec]:
    """What is compared, by name: the rows of a file, or guidances that share a model and a size."""
    from ..evaluation.shapeworld.rows import RowSpec, read_rows

    if (settings.guidances is None) == (settings.rows is None):
        raise ConfigError("expected either --guidance NAME,... or --rows all, and not both")
    if settings.rows is None:
        return {name: RowSpec(name, settings.model, settings.size, settings.sets) for name in settings.guidances or ()}
    if settings.model is not None or settings.size is not None or settings.sets:
        raise ConfigError("--rows with --model, --size or --set: the rows say that themselves; leave one of them out")
    return read_rows(settings.rows)


def configs_of(rows: Mapping[str, RowSpec]) -> Mapping[str, Mapping[str, Any]]:
    """The configuration of every row by its name, with all that was set; what it says of the model is a name or nothing."""
    from ..framework.config import apply_sets, load_guidance, merge
    from ..framework.options import convert

    configs: dict[str, Mapping[str, Any]] = {}
    for name, row in rows.items():
        model = {} if row.model is None else {"model": row.model}
        configs[name] = config = apply_sets(merge(load_guidance(row.guidance), model), row.sets)
        convert(config.get("model"), str | None, "model")
    return configs


@dataclass
class Pipelines:
    """Models by name, each loaded once, however many guidances share it."""

    device: str
    dtype: str
    plugins: Plugins
    _loaded: dict[str, Pipeline] = field(default_factory=dict[str, "Pipeline"])

    def __getitem__(self, name: str) -> Pipeline:
        from ..framework.pipeline import Pipeline

        if name not in self._loaded:
            with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
                self._loaded[name] = Pipeline.load(name, device=self.device, dtype=self.dtype, plugins=self.plugins)
        return self._loaded[name]


def evaluate(settings: Settings) -> dict[str, Any]:
    """The whole result as JSON; every setting is checked before the first image is made."""
    from ..evaluation.shapeworld.benchmark import differences, run

    entrants, pipelines = _entrants(settings)
    rows: list[Row] = []
    for contender, scenes in entrants:
        with (
            _progress(scenes.count, contender.guidance) as on_done,
            memory_errors(f"with --batch {settings.batch}", "lower --batch or --size, or use --dtype fp16"),
        ):
            rows.append(run(contender, scenes, settings.folder, batch=settings.batch, images=settings.images, on_done=on_done))
    if settings.images:
        _write_sheet(rows, settings.folder)
    return {
        "format": FORMAT,
        "rows": [row.to_json() for row in rows],
        "differences": differences(rows),
        "diagnostics": _diagnostics(entrants, pipelines) if settings.diagnostics else {},
    }


def _entrants(settings: Settings) -> tuple[list[tuple[Contender, Scenes]], dict[str, Pipeline]]:
    """Every guidance with its scenes, and the pipelines by the names of their models."""
    from ..evaluation.shapeworld.benchmark import Scenes, contender
    from ..framework.pipeline import DEFAULT_MODEL
    from ..framework.plugins import discover

    plugins = discover()
    loaded = Pipelines(settings.device, settings.dtype, plugins)
    rows = rows_of(settings)
    configs = configs_of(rows)
    models = {name: config.get("model") or DEFAULT_MODEL for name, config in configs.items()}
    for model in models.values():
        check_model(model, plugins)
    entrants: list[tuple[Contender, Scenes]] = []
    pipelines: dict[str, Pipeline] = {}
    for name, config in configs.items():
        pipeline = loaded[models[name]]
        size = rows[name].size or pipeline.model.default_size
        pipeline.model.latent_shape(size)
        entrant = contender(pipeline, name, config, steps=settings.steps, cfg=settings.cfg, sets=rows[name].sets)
        entrants.append((entrant, Scenes(settings.objects, size, settings.count, settings.seed)))
        pipelines[entrant.model] = pipeline
    return entrants, pipelines


def _diagnostics(entrants: Sequence[tuple[Contender, Scenes]], pipelines: Mapping[str, Pipeline]) -> dict[str, Any]:
    """By the name of the model."""
    from ..evaluation.shapeworld.diagnostics import diagnose

    found: dict[str, Any] = {}
    for contender, scenes in entrants:
        if contender.model not in found:
            with _progress(scenes.count, f"diagnostics of {contender.model}") as on_done:
                found[contender.model] = diagnose(pipelines[contender.model], scenes, on_done=on_done)
    return found


def _write_sheet(rows: Sequence[Row], folder: Path) -> None:
    from io import BytesIO

    from ..evaluation.shapeworld.sheet import contact_sheet

    data = BytesIO()
    contact_sheet(rows, folder).save(data, format="PNG")
    write_file(folder / "sheet.png", data.getvalue())


@contextmanager
def _progress(total: int, label: str) -> Generator[Callable[[int], None], None, None]:
    """A bar on a terminal, silence elsewhere."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit="image", disable=None) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
