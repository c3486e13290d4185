"""`lsregen evaluate attention`: does a model's attention know where things are, and which of its layers do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...evaluation.tables.markdown import FORMAT
from ...framework.errors import ConfigError
from ..checks import check_folder, check_model
from ..option_types import NAME, PATH
from ..output import claim, write_file
from .comparison import check_file, check_result, progress, require_extra, write_result
from .shapeworld import Pipelines, Settings, check_records, compare, scene_options

if TYPE_CHECKING:
    from PIL import Image

    from ...evaluation.shapeworld.rows import RowSpec
    from ...framework.pipeline.pipeline import Pipeline

BEST = (1, 3)
"""How many of the best layers are tried, beside all of them."""
SIDE, GAP, LINE = 128, 6, 18
SHOWN = 4  # scenes in the picture


@click.command()
@click.option(
    "--model", "models", multiple=True, required=True, type=NAME, metavar="NAME|DIR", help="May be repeated: side by side."
)
@click.option(
    "--guidance",
    type=NAME,
    metavar="NAME|FILE",
    help="Then try it, on the last model, on the best layer, the best three and all of them, with as many other scenes.",
)
@click.option("--picture", type=PATH, metavar="FILE.png", help="Of the maps; beside the result, if not given.")
@scene_options
def attention(models: tuple[str, ...], guidance: str | None, picture: Path | None, result: Path, **given: Any) -> None:
    """Measure, layer by layer, how often the attention of a word peaks in the box of its object.

    On true images, at 70 % of the noise. The picture shows the maps averaged over layers and heads (LSReGen, Fig. 3).

    \b
    lsregen evaluate attention --model shapeworld-base --model shapeworld-gligen --count 100 --json attention.json
    """
    settings, drawn = Settings(**given), picture or result.with_suffix(".png")
    require_extra()
    from ...evaluation.shapeworld.pointing import layer_pointing
    from ...evaluation.shapeworld.scenes import Scenes
    from ...evaluation.tables.markdown import markdown
    from ...framework.plugins.registry import discover
    from ..generating.metadata import encode_png

    check_result(result)
    check_file(drawn, "--picture", "such as maps.png")
    check_folder(settings.folder)
    claim([drawn], cure="choose another --picture")
    if settings.records is not None:
        check_records(settings.records)
    plugins = discover()
    for model in models:
        check_model(model, plugins)
    if guidance is not None:
        _rows(guidance, models[-1], {})  # whether it can be used, before anything is measured
    pipelines = Pipelines(settings.device, settings.dtype, plugins)
    found: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        pipeline = pipelines[model]
        scenes = Scenes(settings.objects, pipeline.model.default_size, settings.count, settings.seed)
        with progress(scenes.count, f"attention of {model}") as on_done:
            found[model] = layer_pointing(pipeline, scenes, batch=settings.batch, on_done=on_done)
        click.echo(markdown([{"rows": [], "layers": {model: found[model]}}]))
    write_file(drawn, encode_png(maps_picture({model: pipelines[model] for model in models}, settings)))
    click.echo(f"The maps: {drawn}")
    data: dict[str, Any] = {"format": FORMAT, "rows": [], "differences": [], "layers": found}
    if guidance is not None:
        # Layers are not tried on the scenes that they were chosen by.
        others = replace(settings, seed=settings.seed + settings.count)
        comparison = compare(others, _rows(guidance, models[-1], _choices(found[models[-1]])))
        data |= comparison.to_json()
        click.echo(markdown([data], parts=("rows", "differences")), nl=False)
    write_result(result, data)


def _choices(pointing: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By the name of a row, the layers that it uses."""
    from ...evaluation.shapeworld.pointing import best_layers

    best = {f"best {count}" if count > 1 else "best layer": best_layers(pointing, count) for count in BEST}
    return {**best, "all layers": ["all"]}


def _rows(guidance: str, model: str, choices: Mapping[str, Sequence[str]]) -> dict[str, RowSpec]:
    """A row without guidance, and one for each choice of layers, for all terms that look at layers.

    Raises:
        ConfigError: no term does.
    """
    from ...evaluation.shapeworld.rows import RowSpec
    from ...framework.config.resolve import load_guidance

    terms: Mapping[str, Any] = load_guidance(guidance).get("guidance", {})
    looking = [name for name, term in terms.items() if "layers" in (term.get("extractor") or {})]
    if not looking:
        raise ConfigError(f"--guidance {guidance!r}: no term of it names the layers of its extractor, so none can be chosen")
    rows = {"none": RowSpec(model=model)}
    for name, layers in choices.items():
        chosen = f"[{', '.join(layers)}]"
        rows[name] = RowSpec(guidance, model, sets=tuple(f"guidance.{term}.extractor.layers={chosen}" for term in looking))
    return rows


def maps_picture(pipelines: Mapping[str, Pipeline], settings: Settings) -> Image.Image:
    """A row for each of the first scenes: its true image, and for every model the map of each object's shape word, with its box.

    Every map is drawn from dark at 0 to bright at its largest value.
    """
    from PIL import Image, ImageDraw

    from ...evaluation.shapeworld.pointing import average_maps
    from ...evaluation.shapeworld.scenes import Scenes
    from ...framework.layout.regions import Box
    from ...framework.sampling.image_to_image import to_pil
    from ..generating.drawing import COLOURS, INK, PAPER, font, heat, outline, pixels_of

    seeds = range(settings.seed, settings.seed + min(SHOWN, settings.count))
    columns = 1 + len(pipelines) * settings.objects
    sheet = Image.new("RGB", (columns * (SIDE + GAP), len(seeds) * (SIDE + LINE + GAP) + LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, seed in enumerate(seeds):
        top = LINE + row * (SIDE + LINE + GAP)
        for number, (name, pipeline) in enumerate(pipelines.items()):
            scene = Scenes(settings.objects, pipeline.model.default_size, settings.count, settings.seed).scene(seed)
            image, maps = average_maps(pipeline, scene)
            if number == 0:
                sheet.paste(to_pil(image[None])[0].resize((SIDE, SIDE), Image.Resampling.BICUBIC), (0, top))
            for i, (values, box) in enumerate(maps):
                left = (1 + number * settings.objects + i) * (SIDE + GAP)
                sheet.paste(heat(values.cpu().numpy(), float(values.max()), (SIDE, SIDE)), (left, top))
                outline(draw, pixels_of(Box(*box), (SIDE, SIDE), (left, top)), COLOURS[i], 2)
                draw.text((left, top + SIDE), scene.phrases[i].split()[-1], fill=INK, font=font(12))
                if row == 0 and i == 0:
                    draw.text((left, 1), name, fill=INK, font=font(12))
    return sheet
