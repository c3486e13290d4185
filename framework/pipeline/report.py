"""What a run gives back: images, and a report of how they came about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from ..config.options import plain
from ..errors import counted, shown
from ..events import LogEntry
from ..layout.image_files import encode_picture
from ..layout.regions import Layout
from .notebook import html_image, sheet_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..config.resolve import ResolvedConfig
    from ..plugins.registry import Plugins
    from ..protocols import Model


SHOWN_SEEDS = 4  # in the text of a result

DECIDING = ("lsregen", "torch", "transformers", "safetensors")
"""The packages that decide the numbers of a run."""


def versions(packages: Iterable[str] = DECIDING) -> dict[str, str]:
    """The versions of packages by name; `not installed` of others, as lsregen in a checkout may be."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def described(model: Model, plugins: Plugins, resolved: ResolvedConfig) -> dict[str, Any]:
    """What a report says of a run besides its prompts and its course: configuration, model, device, dtype and versions."""
    parts = [part for term in resolved.terms for part in (term.extractor, term.distance, term.schedule)]
    return {
        "config": resolved.as_dict(),
        "model": model.describe(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "versions": {**versions(), **plugins.versions_of(resolved.sampler, *parts)},
    }


def weights(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """What decides about pictures in a model's description: the hashes of its files, whatever they are called, and their use.

    A description without `components` is another package's: all of it but the name and the dtype, which may be chosen anew.
    """
    parts = model.get("components")
    if not isinstance(parts, Mapping):
        return {key: value for key, value in model.items() if key not in ("name", "dtype")}
    hashes = {name: _hashes(part) for name, part in cast("Mapping[str, object]", parts).items()}
    return {**hashes, "prediction": model.get("prediction"), "grounding": model.get("grounding")}


def _hashes(part: object) -> object:
    """Of a component, in any order; a part that is not described so stays as it is."""
    found = cast("Mapping[str, object]", part).get("sha256") if isinstance(part, Mapping) else None
    if not isinstance(found, Mapping):
        return cast(object, part)
    return sorted(map(str, cast("Mapping[str, object]", found).values()))


def as_json(value: Any) -> Any:
    """Plain values (`options.plain`) as JSON has them: None for what is not finite, and whatever else an option holds as text."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [as_json(item) for item in cast("list[Any]", value)]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if isinstance(value, str | int | None) else shown(value)


@dataclass(frozen=True)
class Report:
    """Everything that is needed to understand a batch of images, and to make it again.

    `energies`: every evaluation of every term, in order. `seconds`: by phase. `guided_passes`: network passes made for guidance.
    `skipped_updates`: of single samples, because a gradient was not finite (see `Schedule.non_finite`). `steps_made`: fewer
    than the configuration's if `on_step` ended the run. `initial`: of the pictures that the run started from, if it did, the
    hashes of their pixels (`sha256`) and the `strength`. `models`: the descriptions of the other models, which rendered for an
    extractor or looked at pictures, by the names that the configuration has for them. `versions`: by package, those of the
    plugins that were used among them.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    layouts: tuple[Layout, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    energies: tuple[LogEntry, ...]
    seconds: Mapping[str, float]
    guided_passes: int
    skipped_updates: int
    steps_made: int
    device: str
    dtype: str
    initial: Mapping[str, Any] = field(default_factory=dict[str, Any])
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])
    versions: Mapping[str, str] = field(default_factory=versions)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types. None stands for a number that is not finite, such as the energy of a sample that was not measured."""
        return {
            "prompts": list(self.prompts),
            "negatives": list(self.negatives),
            "layouts": [layout.to_json() for layout in self.layouts],
            "seeds": list(self.seeds),
            "size": list(self.size),
            "config": as_json(plain(self.config)),
            "model": as_json(plain(self.model)),
            "models": as_json(plain(self.models)),
            "energies": as_json(plain(self.energies)),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "guided_passes": self.guided_passes,
            "skipped_updates": self.skipped_updates,
            "steps_made": self.steps_made,
            "device": self.device,
            "dtype": self.dtype,
            "initial": as_json(plain(self.initial)),
            "versions": dict(self.versions),
        }


@dataclass(frozen=True, repr=False)
class Result:
    """The images of one batch, in the order of the seeds, and their report.

    `attention`: if a trace was asked for, the maps `[b k h w]` of every phrase by step index. `renders`: of every picture that an
    extractor had another model make, the batch. `notices`: the warnings that the run gave. `finished`: whether all of its steps
    were made; else the images are what the last step estimated that they would become.
    """

    images: Sequence[Image]
    report: Report
    attention: Mapping[int, Tensor] = field(default_factory=dict[int, "Tensor"])
    renders: Sequence[Sequence[Image]] = ()
    notices: tuple[str, ...] = ()
    finished: bool = True

    @property
    def image(self) -> Image:
        """The first image."""
        return self.images[0]

    def energies(self) -> list[dict[str, Any]]:
        """The log as plain rows, one for each image and evaluation; `pandas.DataFrame(result.energies())` takes them.

        An energy that was not measured, as the image was done by then, is None.
        """
        return [
            {
                "image": index,
                "seed": seed,
                "step": entry.step,
                "term": entry.term,
                "energy": as_json(entry.energy[index]),
                "updated": entry.updated[index],
                "strength": entry.strength,
            }
            for entry in self.report.energies
            for index, seed in enumerate(self.report.seeds)
        ]

    def energy_ends(self, index: int) -> dict[str, float]:
        """The first and the last energy of every term, of one image: `{"layout, first": 0.9, "layout, last": 0.2}`."""
        found: dict[str, float] = {}
        for entry in self.report.energies:
            if isfinite(energy := entry.energy[index]):
                found.setdefault(f"{entry.term}, first", energy)
                found[f"{entry.term}, last"] = energy
        return found

    def __repr__(self) -> str:
        width, height = self.report.size
        seeds, made = self.report.seeds, self.report.steps_made
        listed = ", ".join(map(str, seeds if len(seeds) <= SHOWN_SEEDS else seeds[:SHOWN_SEEDS])) + ", ..." * (
            len(seeds) > SHOWN_SEEDS
        )
        terms = list(dict.fromkeys(entry.term for entry in self.report.energies))
        parts = [
            f"{counted(len(self.images), 'image')} of {width}x{height}",
            f"seed{'s' * (len(seeds) > 1)} {listed}",
            f"{counted(made, 'step')}{'' if self.finished else ', unfinished'}",
            *([f"guided by {', '.join(terms)}"] if terms else []),
            *([counted(len(self.notices), "notice")] if self.notices else []),
        ]
        return f"Result({', '.join(parts)})"

    def _repr_png_(self) -> bytes:
        return encode_picture(sheet_of([self.images]))

    def _repr_html_(self) -> str:
        figures = [
            html_image(image, self.report.layouts[index], _caption(self.report.seeds[index], self.energy_ends(index)))
            for index, image in enumerate(self.images)
        ]
        notices = "".join(f"<p>{escape(notice)}</p>" for notice in self.notices)
        return f"<div>{''.join(figures)}{notices}</div>"


def _caption(seed: int, energies: Mapping[str, float]) -> str:
    return "; ".join([f"seed {seed}", *(f"{name} {energy:.3g}" for name, energy in energies.items())])
