"""A report.json read back: what a run wrote about itself, checked, as values with names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...framework.config.field_types import keys_of
from ...framework.config.options import build
from ...framework.config.values import MOST_STEPS
from ...framework.errors import ConfigError, LsregenError
from ...framework.files import is_there, look, read_json, shortened
from ...framework.layout.regions import Layout
from ..output import FORMAT

LARGEST = 1e30  # a measured value beyond it is damage
MOST_FAULTS = 5  # that one message lists


class RunError(LsregenError):
    """A run that cannot be shown: no report, or one that was not written by lsregen or is damaged."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one term for one image; `step` counts from 0. No energy: the image was done, and left out of the pass."""

    step: int
    term: str
    updated: bool
    strength: float
    energy: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.step < MOST_STEPS:
            raise ConfigError(f"step: {self.step} is not in [0, {MOST_STEPS})")
        for name, value in (("strength", self.strength), ("energy", self.energy or 0.0)):
            if abs(value) > LARGEST:
                raise ConfigError(f"{name}: {value:g} is out of range")


@dataclass(frozen=True)
class Picture:
    """One image of a run: its files, by name in the folder of the report, and what it was made from."""

    seed: int
    path: str
    energies: tuple[Evaluation, ...]
    layout_path: str | None = None
    attention_path: str | None = None
    source_path: str | None = None
    batch_seeds: tuple[int, ...] = ()
    seconds: float | None = None
    prompt: str = ""
    negative: str = ""
    layout: dict[str, Any] = field(default_factory=dict[str, Any])
    size: tuple[int, int] | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    model: dict[str, Any] = field(default_factory=dict[str, Any])
    models: dict[str, Any] = field(default_factory=dict[str, Any])
    device: str = ""
    dtype: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        _ = self.regions  # a layout that cannot be used is found here, not on the page

    @property
    def regions(self) -> Layout:
        return Layout.from_json(self.layout) if self.layout else Layout()

    @property
    def files(self) -> tuple[str | None, ...]:
        return self.path, self.layout_path, self.attention_path, self.source_path

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration with this image's own seed: the report gives the first image's."""
        return {**self.config, "seed": self.seed} if self.config else {}

    def terms(self) -> dict[str, tuple[Evaluation, ...]]:
        """The evaluations of every term, in order; empty for one that is configured and was never evaluated."""
        guidance = self.config.get("guidance")
        names = list(map(str, cast("dict[Any, Any]", guidance))) if isinstance(guidance, dict) else []
        found: dict[str, list[Evaluation]] = {name: [] for name in names}
        for each in self.energies:
            found.setdefault(each.term, []).append(each)
        return {name: tuple(evaluations) for name, evaluations in found.items()}


@dataclass(frozen=True)
class Record:
    """A run of `lsregen generate`. `requested`: how many images were asked for; `seconds`: by phase."""

    images: tuple[Picture, ...]
    guidance: str = ""
    requested: int | None = None
    interrupted: bool = False
    guided_passes: int | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("images: there are none")


def read_record(path: Path) -> Record:
    """A report that `lsregen generate` wrote; keys that are not known are ignored.

    Raises:
        RunError: it cannot be read, is not such a report, or a value in it is missing or wrong.
    """
    return record_of(path, read_report(path))


def read_report(path: Path) -> dict[str, Any]:
    """What a report says as plain JSON types; of its values only the format is checked.

    Raises:
        RunError: it cannot be read, or is not a report of `lsregen generate`.
    """
    found: object = read_json(path, "a report of lsregen generate", RunError)
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if values.get("format") != FORMAT:
        raise RunError(f"{path}: not a report of lsregen generate: expected a mapping with the format {FORMAT!r}")
    return values


def record_of(path: Path, values: Mapping[str, Any]) -> Record:
    """What `read_report` read there, checked.

    Raises:
        RunError: a value in it is missing or wrong.
    """
    try:
        return build(Record, _whole(values), "")
    except LsregenError as error:
        raise RunError(f"{path}: a damaged report; make the run again\n{_shortened(str(error))}") from None


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the images have in common is said once in a report, and here with each of them."""
    images: object = values.get("images")
    if not isinstance(images, list):
        return _known(Record, values)
    listed = cast("list[object]", images)
    shared = {key: value for key, value in _known(Picture, values).items() if key not in ("seed", "seconds")}
    return {**_known(Record, values), "images": [_image(shared, each) for each in listed]}


def _image(shared: Mapping[str, Any], given: object) -> object:
    if not isinstance(given, dict):
        return given
    own = _known(Picture, cast("dict[str, Any]", given))
    energies: object = own.get("energies")
    if isinstance(energies, list):
        entries = cast("list[object]", energies)
        own["energies"] = [_known(Evaluation, cast("Any", e)) if isinstance(e, dict) else e for e in entries]
    return {**shared, **own}


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in keys_of(cls) if key in values}


def _shortened(faults: str) -> str:
    lines = [line if len(line) <= 160 else f"{line[:159]}…" for line in faults.splitlines()]
    more = [f"and {len(lines) - MOST_FAULTS} more"] if len(lines) > MOST_FAULTS else []
    return "\n".join(f"  {line}" for line in (*lines[:MOST_FAULTS], *more))


def find_record(run: Path) -> tuple[Path, str | None]:
    """The report of a run, and the name of the only image to show: None if `run` is a folder or a report.

    Raises:
        RunError: there is no report.
    """
    expected = "expected the folder that lsregen generate wrote, its report.json, or one of its pictures"
    if (place := look(run)).kind == "folder":
        if is_there(run / "report.json"):
            return run / "report.json", None
        raise RunError(f"{run}: no report.json in this folder; {expected}")
    if not place.readable:
        raise RunError(f"{shortened(run)}: {'not there' if place.free else place.said}; {expected}")
    if run.suffix.lower() != ".png":
        return run, None
    for report in reports_of(run.parent):
        try:
            images = read_record(report).images
        except RunError:  # an older one, perhaps, that is not the picture's
            continue
        for image in images:
            if run.name in image.files:
                return report, image.path
    raise RunError(f"{run}: no report beside it speaks of this picture; {expected}, still in its folder")


def reports_of(folder: Path) -> list[Path]:
    """The reports of a folder, the newest first: a picture is of the last run that speaks of it."""
    kept = [
        (int(match[1]), path) for path in folder.glob("report-*.json") if (match := re.fullmatch(r"report-(\d{1,9})", path.stem))
    ]
    return [folder / "report.json", *(path for _, path in sorted(kept, reverse=True))]
