"""A run as one HTML page that stands alone: what its template shows, computed; the template only sets it."""

from __future__ import annotations

import shlex
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, cast

from PIL import Image

from ...framework.errors import LsregenError
from ...framework.files import is_file
from ...framework.layout.image_files import encode_picture, packed
from ...framework.layout.regions import Layout, Region
from ..generating.drawing import colours_of
from ..generating.metadata import read_metadata
from ..output import is_own
from .charts import Chart, energy_chart, number, strength_chart, targets_of
from .records import Evaluation, Picture, Record

GENERATOR = "lsregen show"
"""What a page calls its maker, by which lsregen knows its own pages."""
MOST_IMAGES = 100  # of one page
SMALL = 256  # a picture whose shorter side is below it is enlarged, pixel by pixel, ...
ENLARGED = 320  # ... to at least this
THUMBNAIL = (144, 144)


@dataclass(frozen=True)
class Shown:
    """A file as it stands on the page: the picture inside it as a data URI, or in words why there is none."""

    name: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    missing: str = ""


@dataclass(frozen=True)
class TermShown:
    """What one term did to one image."""

    name: str
    plugins: str
    evaluations: tuple[Evaluation, ...]
    targets: Sequence[tuple[float, float, float]]
    stop_below: float | None
    blends: bool

    @cached_property
    def energies(self) -> list[float]:
        return [each.energy for each in self.evaluations if each.energy is not None]

    @property
    def ends(self) -> tuple[float, float] | None:
        """The first energy and the last."""
        return (self.energies[0], self.energies[-1]) if self.energies else None

    @property
    def change(self) -> str:
        if self.ends is None or self.ends[0] <= 0:
            return ""
        first, last = self.ends
        return f"{(last - first) / first:+.0%}".replace("-", "−")

    @property
    def verdict(self) -> str:
        """`fell`, `rose` or `same`, for an image that has energies."""
        if self.ends is None or self.ends[0] == self.ends[1]:
            return "same"
        return "fell" if self.ends[1] < self.ends[0] else "rose"

    @property
    def reached(self) -> str:
        """Whether the energy came down to the level that ends the pull, and when."""
        if self.stop_below is None or not self.energies:
            return ""
        step = next((e.step for e in self.evaluations if e.energy is not None and e.energy <= self.stop_below), None)
        return f"target {self.stop_below:g} {'not reached' if step is None else f'reached in step {step + 1}'}"

    @property
    def sentence(self) -> str:
        """How often the term was evaluated, and whether that updated the image."""
        if not self.evaluations:
            return "Never evaluated: its window holds no step of this run."
        steps, total = sorted({each.step + 1 for each in self.evaluations}), len(self.evaluations)
        where = f"in step {steps[0]}" if len(steps) == 1 else f"in {len(steps)} steps, {steps[0]} to {steps[-1]}"
        updates = sum(each.updated for each in self.evaluations)
        how = {0: "none of them updated the image", total: "every one updated the image"}
        text = f"{total} evaluation{'s' * (total > 1)} {where}; {how.get(updates, f'{updates} of them updated the image')}."
        if absent := total - len(self.energies):
            text += f" {absent} without a value: the image was done, and left out."
        return text

    @cached_property
    def charts(self) -> tuple[Chart, ...]:
        if not self.energies:
            return ()
        strengths = strength_chart(self.name, self.evaluations, self.blends)
        return energy_chart(self.name, self.evaluations, self.targets), strengths


@dataclass(frozen=True)
class ImageShown:
    """One image of the run, with all its pictures and curves."""

    record: Picture
    picture: Shown
    layout: Shown
    attention: Shown
    source: Shown | None
    thumbnail: Shown
    terms: tuple[TermShown, ...]
    phrases: Sequence[tuple[str, str, Sequence[str]]]
    steps: int


def render(record: Record, report: Path, only: str | None = None) -> str:
    """The page of a run.

    Args:
        report: where the record was read; its pictures are looked for beside it.
        only: the name of the one image to show; None for all, of which `MOST_IMAGES` are.
    """
    images = [image for image in record.images if only in (None, image.path)]
    shown = [_image(image, report.parent) for image in images[:MOST_IMAGES]]
    return filled(
        "run.html",
        run=record,
        report=report,
        images=shown,
        omitted=len(images) - len(shown),
        one_of=len(record.images) if only else None,
        settings=_settings(images),
        seconds=_shares(record.seconds),
    )


TEMPLATES = Path(__file__).parents[1] / "templates"


def filled(template: str, folder: Path = TEMPLATES, /, **values: Any) -> str:
    """A page of a template with these values. What it shows is escaped, and a value that it lacks is an error.

    Args:
        folder: of the template; what it extends or includes may be lsregen's own.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, TEMPLATES])
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return env.get_template(template).render(generator=GENERATOR, **values)


def _image(image: Picture, folder: Path) -> ImageShown:
    steps = number(image.config.get("steps"))
    count = max([0, int(steps or 0), *(each.step + 1 for each in image.energies)])
    if replaced(image, folder):
        gone = Shown(missing=f"{image.path} was replaced by a later run; what stands there now is not this image.")
        picture = layout = attention = gone
        source = gone if image.source_path else None
    else:
        picture = load(folder, image.path, "")
        layout = load(folder, image.layout_path, "No boxes or masks were given.")
        attention = load(folder, image.attention_path, "No attention was traced: no phrase was named, or --trace was 0.")
        source = load(folder, image.source_path, "") if image.source_path else None
    terms = tuple(_term(name, each, image, count) for name, each in image.terms().items())
    return ImageShown(image, picture, layout, attention, source, _thumbnail(layout, picture), terms, _phrases(image), count)


def load(folder: Path, name: str | None, none: str) -> Shown:
    """A picture of lsregen's beside the report. `none`: why there is no name.

    A report may come from anyone, so nothing outside its folder is read, and nothing that lsregen did not make.
    """
    if name is None:
        return Shown(missing=none)
    if not _is_beside(name):
        return Shown(missing=f"{name!r} is no file beside the report.")
    path = folder / name
    if not is_file(path):
        return Shown(missing=f"{name} is not there any more: it was moved, renamed or deleted.")
    if not is_own(path):
        return Shown(missing=f"{name} is not a picture that lsregen made.")
    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Shown(missing=f"{name} is damaged.")
    small = min(width, height) < SMALL
    factor = ceil(ENLARGED / min(width, height)) if small else 1
    return Shown(name, packed(data), width * factor, height * factor, pixelated=small)


def _is_beside(name: str) -> bool:
    """Whether this is the name of a file in the folder of the report, and no path that leads out of it."""
    return Path(name).name == name and not set(name) & {"\\", "\0"}


def _thumbnail(*pictures: Shown) -> Shown:
    """The first of the pictures that is there, small."""
    found = next((each for each in pictures if each.uri), None)
    if found is None:
        return Shown(missing="no picture")
    with Image.open(BytesIO(b64decode(found.uri.partition(",")[2]))) as picture:
        small = picture.convert("RGB")
        small.thumbnail(THUMBNAIL)
    return Shown(found.name, packed(encode_picture(small)), *small.size)


def replaced(image: Picture, folder: Path) -> bool:
    """Whether the picture there says of itself that it is another one than the report speaks of."""
    if not _is_beside(image.path):
        return False
    try:
        found = read_metadata(folder / image.path)
    except LsregenError:  # not there, or without settings: nothing speaks against it
        return False
    own = found.own
    now = (found.seed, own.prompt, own.negative, found.layout, found.config, found.model, found.models, found.versions)
    then = (image.seed, image.prompt, image.negative, image.regions, image.settings, image.model, image.models, image.versions)
    return now != then


def _term(name: str, evaluations: Sequence[Evaluation], image: Picture, steps: int) -> TermShown:
    schedule = _mapping(_mapping(image.config.get("guidance")).get(name))
    named = [_name_of(schedule.get(kind)) for kind in ("extractor", "distance")]
    site = schedule.get("site")
    plugins = " → ".join(filter(None, named)) + (f", applied {site}" if isinstance(site, str) and site != "before" else "")
    stop_below, blends = number(schedule.get("stop_below")), schedule.get("blend") is not None
    return TermShown(name, plugins, tuple(evaluations), targets_of(schedule, steps), stop_below, blends)


def _phrases(image: Picture) -> list[tuple[str, str, Sequence[str]]]:
    """Every phrase, its colour in the pictures, and where it should stand."""
    layout = image.regions
    colours = {key: f"rgb{colour}" for key, colour in colours_of(layout).items()}
    return [
        (phrase, colours[phrase.casefold()], [_place(region) for region in Layout(layout.of(phrase)).boxed])
        for phrase in layout.phrases
    ]


def _place(region: Region) -> str:
    return ", ".join(f"{side:g}" for side in region.box.xyxy) if region.box is not None else "a mask"


@dataclass(frozen=True)
class Settings:
    """What a group of images was made with. `again`: the command that makes such images from the YAML."""

    seeds: tuple[int, ...]
    yaml: str
    again: str
    first: Picture
    weights: Sequence[tuple[str, str, str, str]]
    model: str
    masked: bool


def _settings(images: Sequence[Picture]) -> list[Settings]:
    """One entry for all images that were made with the same settings, prompts and layouts aside."""
    groups: list[list[Picture]] = []
    for image in images:
        same = next((group for group in groups if _made_by(group[0]) == _made_by(image)), None)
        if same is None:
            groups.append([image])
        else:
            same.append(image)
    return [_described(group) for group in groups]


def _made_by(image: Picture) -> tuple[object, ...]:
    return image.config, image.model, image.models, image.device, image.dtype, image.versions


def _described(group: Sequence[Picture]) -> Settings:
    import yaml

    first = group[0]
    dumped = cast("Any", yaml).safe_dump(first.config, sort_keys=False, allow_unicode=True) if first.config else ""
    return Settings(
        tuple(image.seed for image in group),
        dumped,
        command_for(first) if dumped else "",
        first,
        [
            *_weights(first.model),
            *(row for name, each in first.models.items() for row in _weights(_mapping(each), f" of {name}")),
        ],
        str(first.model.get("name", "")),
        masked=any(region.mask is not None for region in first.regions.regions),
    )


def command_for(image: Picture, config: str = "run.yaml") -> str:
    """The command that makes an image of this prompt and layout from a file of settings; masks are left out."""
    layout, model = image.regions, image.model.get("name")
    places: list[str] = []
    for region in layout.regions:
        if region.box is not None:
            places += ["--box", f"{region.phrase}={','.join(map(str, region.box.xyxy))}"]
        elif region.mask is None:
            places += ["--phrase", region.phrase]
    options = ["--prompt", image.prompt, *places, *(["--negative", image.negative] if image.negative else [])]
    named = ["--model", str(model)] if model is not None else []
    return shlex.join(["lsregen", "generate", *options, *named, "--guidance", config, "--seed", str(image.seed)])


def _weights(model: Mapping[str, Any], of: str = "") -> list[tuple[str, str, str, str]]:
    """Component, with `of` behind it; parameters, file and its hash."""
    rows: list[tuple[str, str, str, str]] = []
    for component, described in _mapping(model.get("components")).items():
        about = _mapping(described)
        parameters = about.get("parameters")
        count = f"{parameters:,}" if isinstance(parameters, int) else ""
        rows += [(f"{component}{of}", count, file, str(sha256)) for file, sha256 in _mapping(about.get("sha256")).items()]
    return rows


def _shares(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Phase, seconds, and its share of the longest one in percent; the total comes last and has no share."""
    phases = {phase: value for phase, value in seconds.items() if phase != "total"}
    longest = max(phases.values(), default=0.0)
    rows = [(phase, value, max(0.0, 100 * value / longest) if longest > 0 else 0.0) for phase, value in phases.items()]
    return [*rows, *(("total", seconds["total"], 0.0) for _ in range("total" in seconds))]


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in cast("dict[Any, Any]", value).items()} if isinstance(value, dict) else {}


def _name_of(plugin: object) -> str:
    return plugin if isinstance(plugin, str) else str(_mapping(plugin).get("name", ""))
