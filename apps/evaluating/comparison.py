"""What the commands of `lsregen evaluate` that make images share: rows resolved, models loaded once, results as JSON."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import click

from ...evaluation.tables.markdown import FORMAT
from ...framework.errors import ConfigError, counted
from ...framework.files import look, shortened
from ..checks import check_folder, check_model, memory_errors
from ..cli import INTERRUPTED
from ..option_types import BATCH, COUNT, NAME, PATH, SEED, STEPS, Finite
from ..output import SOFTWARE, OutputError, claim, write_file, write_json

if TYPE_CHECKING:
    from PIL import Image

    from ...evaluation.shapeworld.benchmark import Contender, Row
    from ...evaluation.shapeworld.rows import RowSpec
    from ...evaluation.shapeworld.scenes import Scenes
    from ...framework.pipeline.pipeline import Pipeline
    from ...framework.plugins.registry import Plugins

EXTRA = {"scipy": "scipy", "faster_coco_eval": "faster-coco-eval"}
"""What the extra `eval` brings, by the name it is imported under."""

PLOTS = (".png", ".svg", ".pdf")
SILENCE = 60
"""Seconds between two lines about progress where there is no terminal."""


@dataclass(frozen=True)
class Settings:
    """How rows are compared: on which scenes, where and how the images are made, and what is kept of them."""

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


OPTIONS = (
    click.option("--objects", type=click.IntRange(1, 3), default=2, show_default=True, help="Objects in every scene."),
    click.option("--count", type=COUNT, default=300, show_default=True, help="Scenes, one image each."),
    click.option("--seed", type=SEED, default=0, show_default=True, help="Of the first scene and of its image."),
    click.option("--steps", type=STEPS, help="Sampling steps; 50 unless the guidance says otherwise."),
    click.option("--cfg", type=Finite(0), help="Strength of classifier-free guidance; the model's own by default."),
    click.option("--batch", type=BATCH, default=8, show_default=True, help="Images made at once."),
    click.option("--device", type=NAME, default="auto", show_default=True, help="auto, cpu, cuda or mps."),
    click.option("--dtype", type=NAME, default="auto", show_default=True, help="auto, fp32, fp16 or bf16."),
    click.option("--images", is_flag=True, help="Keep the images, and a contact sheet of the first scenes."),
    click.option(
        "--out",
        "folder",
        type=PATH,
        default=Path("outputs/shapeworld"),
        show_default=True,
        help="Folder of finished items, which are skipped the next time.",
    ),
    click.option("--json", "result", type=PATH, required=True, metavar="FILE", help="The result file."),
)


def comparison_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `Settings` holds, and `--json` as `result`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def require_extra(packages: Mapping[str, str] | None = None) -> None:
    """Refuse to begin without the packages that measure. `packages`: by the name they are imported under; `EXTRA` by default.

    Raises:
        ConfigError: one of them is not installed.
    """
    if missing := [package for module, package in (EXTRA if packages is None else packages).items() if find_spec(module) is None]:
        raise ConfigError(f"evaluation needs {' and '.join(missing)}; install them with: pip install {' '.join(missing)}")


def check_result(path: Path) -> None:
    """Find out before an hour of work that its result cannot be written."""
    check_file(path, "--json", "such as result.json")
    claim([path], FORMAT, "choose another --json")


def check_file(path: Path, asked: str, such: str) -> None:
    """Find out that no file can be at a path; nothing is made yet. `asked`: the option that names it. `such`: an example.

    Raises:
        OutputError: something other than a file is there, or its folder cannot be written to.
    """
    place = look(path)
    if place.kind == "folder":
        raise OutputError(f"{asked} {str(path)!r}: is a folder; expected a file, {such}")
    if place.kind != "file" and not place.free:
        raise OutputError(f"{asked} {shortened(path)!r}: cannot be written ({place.said}); choose another file, {such}")
    check_folder(path.parent, asked)


def write_result(path: Path, data: Mapping[str, Any]) -> None:
    """Write a result; another one that was there is kept beside it, and that is said.

    Raises:
        ConfigError: it holds a number that is not finite, which JSON does not know.
    """
    if (where := not_finite(data)) is not None:
        raise ConfigError(f"the result cannot be written: {where} is not a finite number; are the weights that measured damaged?")
    if (aside := write_json(path, data, keep=True)) is not None:
        click.echo(f"{path} held another result, which is kept as {aside}", err=True)


def not_finite(data: object, path: str = "") -> str | None:
    """Where in plain values a number stands that is nan or infinite; None if there is none."""
    if isinstance(data, float):
        return None if isfinite(data) else path
    if isinstance(data, Mapping):
        inner = [(f"{path}.{key}" if path else str(key), value) for key, value in cast("Mapping[Any, object]", data).items()]
    elif isinstance(data, list | tuple):
        inner = [(f"{path}[{i}]", value) for i, value in enumerate(cast("Sequence[object]", data))]
    else:
        return None
    return next((found for at, value in inner if (found := not_finite(value, at)) is not None), None)


def check_plot(path: Path, asked: str, kinds: Sequence[str] = PLOTS) -> str:
    """Find out before an hour of work that a plot cannot be drawn there; returns its kind, such as png.

    `asked`: the option that names it.
    """
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"{asked} {str(path)!r}: expected a name that ends in {', '.join(kinds)}")
    check_file(path, asked, f"such as plot{kinds[0]}")
    require_extra({"matplotlib": "matplotlib"})
    return path.suffix.lower().removeprefix(".")


def check(settings: Settings, rows: Mapping[str, RowSpec]) -> None:
    """What can be known before torch and any model are loaded.

    Raises:
        LsregenError: a value that cannot be used.
    """
    check_folder(settings.folder)
    for model in {row.model for row in rows.values()} - {None}:
        check_model(str(model))
    configs_of(rows)


def configs_of(rows: Mapping[str, RowSpec]) -> Mapping[str, Mapping[str, Any]]:
    """The configuration of every row by its name, with all that was set; what it says of the model is a name or nothing."""
    from ...framework.config.merging import apply_sets, merge
    from ...framework.config.options import convert
    from ...framework.config.resolve import load_guidance

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
        from ...framework.pipeline.pipeline import Pipeline

        if name not in self._loaded:
            with memory_errors("for the model", "use --dtype fp16, or a smaller --model"):
                self._loaded[name] = Pipeline.load(name, device=self.device, dtype=self.dtype, plugins=self.plugins)
        return self._loaded[name]


@dataclass(frozen=True)
class Comparison:
    """Finished rows, in the order in which they were asked for; the pipelines by the names of their models."""

    rows: Sequence[Row]
    pipelines: Mapping[str, Pipeline]

    def to_json(self) -> dict[str, Any]:
        """The result file."""
        from ...evaluation.shapeworld.benchmark import differences

        return {"format": FORMAT, "rows": [row.to_json() for row in self.rows], "differences": differences(self.rows)}


def compare(settings: Settings, rows: Mapping[str, RowSpec]) -> Comparison:
    """Make and score what is missing; every setting is checked before the first image is made.

    Raises:
        Exit: interrupted; what is finished is kept.
    """
    from ...evaluation.shapeworld.benchmark import run

    entrants, pipelines = _entrants(settings, rows)
    done: list[Row] = []
    try:
        for contender, scenes in entrants:
            with (
                progress(scenes.count, contender.guidance) as on_done,
                memory_errors(f"with --batch {settings.batch}", "lower --batch or --size, or use --dtype fp16"),
            ):
                done.append(
                    run(contender, scenes, settings.folder, batch=settings.batch, images=settings.images, on_done=on_done)
                )
    except KeyboardInterrupt:
        click.echo(f"Interrupted; finished items are kept in {settings.folder}: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    if settings.images:
        from ...evaluation.shapeworld.sheet import contact_sheet

        write_sheet(settings.folder / "sheet.png", contact_sheet(done, settings.folder))
    return Comparison(done, pipelines)


def _entrants(settings: Settings, rows: Mapping[str, RowSpec]) -> tuple[list[tuple[Contender, Scenes]], dict[str, Pipeline]]:
    """Every guidance with its scenes, and the pipelines by the names of their models."""
    from ...evaluation.shapeworld.benchmark import contender
    from ...evaluation.shapeworld.scenes import Scenes
    from ...framework.pipeline.pipeline import DEFAULT_MODEL
    from ...framework.pipeline.preflight import check_seen
    from ...framework.plugins.registry import discover

    plugins = discover()
    loaded = Pipelines(settings.device, settings.dtype, plugins)
    configs = configs_of(rows)
    models = {name: config.get("model") or DEFAULT_MODEL for name, config in configs.items()}
    for model in models.values():
        check_model(model, plugins)
    entrants: list[tuple[Contender, Scenes]] = []
    pipelines: dict[str, Pipeline] = {}
    known: dict[str, dict[str, Any]] = {}
    for name, config in configs.items():
        pipeline = loaded[models[name]]
        size, enlarged = rows[name].size or pipeline.model.default_size, rows[name].enlarged
        pipeline.model.latent_shape(size)
        if not config.get("guidance"):
            check_seen(pipeline.model, str(rows[name].guidance))
        if enlarged is not None and (enlarged[0] < size[0] or enlarged[1] < size[1]):
            raise ConfigError(
                f"rows.{name}.enlarged: {enlarged[0]}x{enlarged[1]} is smaller than the images that are made, {size[0]}x{size[1]}"
            )
        made = None if enlarged is None else size
        entrant = contender(
            pipeline, name, config, steps=settings.steps, cfg=settings.cfg, sets=rows[name].sets, made=made, known=known
        )
        entrants.append((entrant, Scenes(settings.objects, enlarged or size, settings.count, settings.seed, rows[name].place)))
        pipelines[entrant.model] = pipeline
    return entrants, pipelines


def diagnostics(comparison: Comparison) -> dict[str, Any]:
    """By the name of the model, on the scenes of its first row."""
    from ...evaluation.shapeworld.diagnostics import diagnose

    found: dict[str, Any] = {}
    for row in comparison.rows:
        if (model := row.contender.model) not in found:
            with progress(row.scenes.count, f"diagnostics of {model}") as on_done:
                found[model] = diagnose(comparison.pipelines[model], row.scenes, on_done=on_done)
    return found


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """A sheet of pictures as PNG, marked as lsregen's own."""
    from io import BytesIO

    from PIL.PngImagePlugin import PngInfo

    data, info = BytesIO(), PngInfo()
    info.add_text("Software", SOFTWARE)
    sheet.save(data, "PNG", pnginfo=info)
    write_file(path, data.getvalue())


@contextmanager
def progress(total: int, label: str, unit: str = "image") -> Generator[Callable[[int], None], None, None]:
    """A bar on a terminal; elsewhere, such as in a log, a line a minute."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, disable=None) as bar:
        done, said = 0, monotonic()

        def advance(count: int) -> None:
            nonlocal done, said
            bar.update(count)
            done += count
            if bar.disable and monotonic() - said >= SILENCE:
                said = monotonic()
                click.echo(f"{label}: {done} of {counted(total, unit)}", err=True)

        yield advance
