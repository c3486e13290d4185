"""What the page of samples shows: items, and what every method made of them; the template only sets it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from math import ceil
from typing import Any

from PIL import Image

from ...evaluation.instruments.entrants import Entry, Together, methods_of
from ...evaluation.runs.run_folder import RunFolder
from ...framework.errors import ConfigError, nearest
from ...framework.layout.image_files import encode_picture, packed
from ...framework.layout.regions import Layout
from ..generating.drawing import colours_of

LARGEST = 448  # the longer side of a picture on the page: larger ones are reduced
SMALL = 256  # a picture whose shorter side is below it is enlarged, pixel by pixel


@dataclass(frozen=True)
class Made:
    """What a method made of an item: a picture as a data URI, or in words why there is none."""

    method: int
    name: str
    uri: str = ""
    pixelated: bool = False
    missing: str = ""


@dataclass(frozen=True)
class Outline:
    """A box in percent of the picture, with its phrase and its colour."""

    phrase: str
    colour: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Sample:
    """An item with one seed. Its boxes are parts of a picture of any shape, and each picture keeps its own."""

    item: str
    seed: int
    prompt: str
    phrases: tuple[tuple[str, str], ...]
    boxes: tuple[Outline, ...]
    made: tuple[Made, ...]


def samples_page(
    runs: Sequence[RunFolder], count: int, items: Sequence[str] | None = None, methods: Sequence[str] | None = None
) -> dict[str, Any]:
    """The values of the page's template.

    Args:
        count: how many items are shown, the first ones.
        items: instead, the names of those that are.
        methods: which of them, in this order; all by default.

    Raises:
        ConfigError: no item or method is of such a name, or nothing is finished; the runs cannot stand beside each other, or a
            picture is not the one that was made.
    """
    known = list(methods_of(runs))
    listed = list(dict.fromkeys(run.plan.named(number)[1] for run in runs for number in range(len(run.plan.jobs))))
    for what, asked, there in (("item", items, listed), ("method", methods, known)):
        if unknown := [name for name in asked or () if name not in there]:
            raise ConfigError(f"{what} {unknown[0]!r}: not in these runs{nearest(unknown[0], there)}")
    chosen = set(items) if items is not None else set(listed[:count])
    columns = tuple(methods or known)
    finished = {id(run): run.finished() for run in runs}
    if not any(finished.values()):
        raise ConfigError(f"{runs[0].path}: nothing is finished; make it with `lsregen evaluate run`")
    samples = [_sample(made, columns, finished) for made in _beside(runs, chosen)]
    return {
        "samples": samples,
        "methods": columns,
        "runs": [run.path.name for run in runs],
        "omitted": len(listed) - len(chosen),
        "items": len(chosen),
    }


def _beside(runs: Sequence[RunFolder], items: Container[str]) -> list[dict[str, Entry]]:
    """The pictures of some items by method, those of one item and seed together, made or not. Raises as `Together.add`."""
    found: dict[tuple[str, int], dict[str, Entry]] = {}
    together = Together()
    for run in runs:
        for job in (run.plan.jobs[i] for i in range(len(run.plan.jobs)) if run.plan.named(i)[1] in items):
            found.setdefault((job.item, job.seed), {})[job.method] = together.add(Entry(run, job))
    return list(found.values())


def _sample(made: Mapping[str, Entry], columns: Sequence[str], finished: Mapping[int, Container[int]]) -> Sample:
    job = next(iter(made.values())).job
    pictures = tuple(_made(i, name, made.get(name), finished) for i, name in enumerate(columns))
    return Sample(job.item, job.seed, job.prompt, phrases_of(job.layout), outlines(job.layout), pictures)


def phrases_of(layout: Layout) -> tuple[tuple[str, str], ...]:
    """Every phrase with its colour, in CSS."""
    colours = colours_of(layout)
    return tuple((phrase, f"rgb{colours[phrase.casefold()]}") for phrase in layout.phrases)


def outlines(layout: Layout) -> tuple[Outline, ...]:
    """The boxes of a layout; a mask has none."""
    colours = colours_of(layout)
    return tuple(
        Outline(
            region.phrase,
            f"rgb{colours[region.phrase.casefold()]}",
            100 * region.box.left,
            100 * region.box.top,
            100 * (region.box.right - region.box.left),
            100 * (region.box.bottom - region.box.top),
        )
        for region in layout.regions
        if region.box is not None
    )


def _made(number: int, name: str, of: Entry | None, finished: Mapping[int, Container[int]]) -> Made:
    if of is None:
        return Made(number, name, missing="Not in the plan.")
    if of.job.number not in finished[id(of.run)]:
        return Made(number, name, missing="Not made yet.")
    record = of.run.record(of.job.number)
    if record.error is not None:
        return Made(number, name, missing=f"{record.error.type}: {record.error.message}")
    picture = replace(of, image=record.image or "").picture()
    return Made(number, name, data_uri(picture), pixelated=min(picture.size) < SMALL)


def data_uri(picture: Image.Image, largest: int = LARGEST) -> str:
    """A picture inside a page: a small one as it is, a large one reduced to `largest` pixels, and as JPEG."""
    if max(picture.size) <= largest:
        return packed(encode_picture(picture))
    buffer, factor = BytesIO(), largest / max(picture.size)
    size = tuple(ceil(side * factor) for side in picture.size)
    picture.resize((size[0], size[1]), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
