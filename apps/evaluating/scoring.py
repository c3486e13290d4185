"""`lsregen evaluate score`: the pictures of runs measured by a detector, by features and by CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...framework.errors import ConfigError, nearest, told_of
from ...framework.files import is_there, look, shortened
from ...framework.plugins.calls import calling
from ..cli import INTERRUPTED
from ..option_types import BATCH, NAME, PATH, Finite, pairs
from ..output import RESULT

if TYPE_CHECKING:
    from ...evaluation.instruments.observations import Instruments

EXTRA = {"scipy": "scipy", "faster_coco_eval": "faster-coco-eval", "torchmetrics": "torchmetrics"}


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option(
    "--detector", type=NAME, metavar="NAME|FOLDER", help="A detector plugin (lsregen plugins), or a folder of transformers."
)
@click.option("--detector-option", "options", multiple=True, metavar="KEY=VALUE", callback=pairs, help="An option of it.")
@click.option("--class", "renamed", multiple=True, metavar="CLASS=LABEL", callback=pairs, help="What it calls a class otherwise.")
@click.option("--threshold", type=Finite(0, 1), help="Score from which an object counts as there; the detector's own.")
@click.option(
    "--features", type=NAME, metavar="NAME|PATH", help="Of the Frechet distance: shapeworld, Inception as TorchScript, a folder."
)
@click.option("--reference", type=PATH, metavar="FOLDER", help="Real pictures that the Frechet distance compares with.")
@click.option("--clip", type=PATH, metavar="FOLDER", help="An encoder of texts and pictures, as transformers saves CLIP.")
@click.option("--partial", is_flag=True, help="Score a run that is not finished.")
@click.option("--batch", type=BATCH, default=16, show_default=True, help="Pictures looked at together.")
@click.option("--device", type=NAME, default="auto", show_default=True, help="auto, cpu, or an accelerator by torch's name.")
@click.option("--json", "out", type=PATH, metavar="FILE", help="The result. [default: scores/result.json in the first run]")
def score(runs: tuple[Path, ...], out: Path | None, partial: bool, batch: int, **given: Any) -> None:
    """Measure the pictures of finished runs, and print the table of the result.

    RUNS are folders of `lsregen evaluate run`. Methods of the same name are pooled: the splits of the paper may be runs of their
    own. What was seen in a picture is kept in scores/ of its run: interrupt and repeat at will. Another result that the file
    held is kept beside it, such as result-1.json.

    \b
    lsregen evaluate score run --detector detr/ --clip clip/ --features inception.pt --reference val2017/
    """
    from .comparison import check_result, require_extra, write_result

    require_extra(EXTRA)
    result = out or runs[0] / "scores" / RESULT
    if (given["features"] is None) != (given["reference"] is None):
        raise ConfigError("--features and --reference belong together: a Frechet distance compares with real pictures")
    if given["detector"] is None and (given["options"] or given["renamed"] or given["threshold"] is not None):
        raise ConfigError("--detector-option, --class and --threshold are of a detector; name one (--detector)")
    if not any(given[name] for name in ("detector", "features", "clip")):
        raise ConfigError("nothing measures: give --detector, --clip, or --features with --reference")
    try:
        data = measure(runs, partial, batch, result, check_result, **given)
    except KeyboardInterrupt:
        click.echo("Interrupted; what was seen is kept in scores/: the same command goes on from there.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    write_result(result, data)
    from .reports import printed

    click.echo(printed([data]), nl=False)
    click.echo(f"{click.format_filename(result)}", err=True)


def measure(
    folders: Sequence[Path], partial: bool, batch: int, result: Path, check_result: Callable[[Path], None], **given: Any
) -> dict[str, Any]:
    """The whole result; everything is opened and loaded before the first picture is looked at."""
    from ...evaluation.instruments import passes
    from ...evaluation.instruments.entrants import entrants_of, opened
    from ...evaluation.instruments.observations import by_crops, labels, look
    from ...evaluation.metrics import scores
    from .comparison import progress

    runs = opened(folders)
    entrants = entrants_of(runs, partial)
    check_result(result)
    tools = instruments(**given)
    known, crops = labels(entrants, tools), by_crops(entrants, tools)
    choices = passes.choices_of(entry.job for entrant in entrants for entry in entrant.entries)
    reference = None
    if tools.features is not None and tools.reference is not None:
        pictures = passes.reference_pictures(tools.reference)
        with progress(len(pictures), "reference", "look") as on_done:
            reference = passes.reference_features(
                tools.reference, tools.features, runs[0].path / passes.FOLDER, batch=batch, on_done=on_done
            )
    every: list[Any] = []
    looks = sum(part is not None for part in (tools.detector, tools.features, tools.clip)) + bool(crops)
    for entrant in entrants:
        with progress(looks * len(entrant.entries), entrant.name, "look") as on_done:
            every.append(look(entrant, tools, known, crops, choices, batch=batch, on_done=on_done))
    return scores.result(runs, every, tools, reference)


def instruments(
    detector: str | None,
    options: dict[str, str],
    renamed: dict[str, str],
    threshold: float | None,
    features: str | None,
    reference: Path | None,
    clip: Path | None,
    device: str,
) -> Instruments:
    """Everything that measures, loaded.

    Raises:
        LsregenError: something is not there, or not what it should be.
    """
    from ...evaluation.instruments.clip import load_clip
    from ...evaluation.instruments.features import load_features
    from ...evaluation.instruments.observations import Instruments
    from ...evaluation.runs.measuring_device import device_of
    from ...framework.config.options import build
    from ...framework.config.yaml_text import parse_value
    from ...framework.plugins.registry import discover

    device_of(device)
    loaded, name, package = None, "", dict[str, str]()
    if detector is not None:
        plugins = discover()
        values: dict[str, Any] = {}
        for key, value in options.items():
            values[key] = parse_value(value, f"--detector-option {key}")
        named = detector if detector in plugins.detectors else "transformers"
        if named != detector:
            if not is_there(Path(detector).expanduser()):
                installed = ", ".join(plugins.detectors)
                raise ConfigError(
                    f"--detector {detector!r}: neither a detector that is installed ({installed}) nor a folder of transformers"
                    f"{nearest(detector, plugins.detectors)}"
                )
            values = {"model": detector, **values}
        with told_of("--detector-option"):
            plugin = build(plugins.detector(named).cls, values, "", f"detector {named!r}")
        with calling("--detector", "detector", plugin, "load"):
            loaded = plugin.load(device)
        name = Path(detector).name if named != detector else named
        package = plugins.versions_of(plugin)
    if reference is not None and (place := look(reference)).kind != "folder":
        raise ConfigError(f"--reference {shortened(reference)!r}: {place.said}; expected a folder of real pictures")
    return Instruments(
        detector=loaded,
        detector_name=name,
        detector_package=package,
        renamed=renamed,
        threshold=threshold,
        features=load_features(features, device) if features is not None else None,
        reference=reference,
        clip=load_clip(clip, device) if clip is not None else None,
    )
