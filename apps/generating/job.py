"""What one call of `lsregen generate` is to make, and what it has made of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output import is_own
from .request import Shot

if TYPE_CHECKING:
    from ...framework.config.resolve import ResolvedConfig
    from .initial import Initial


@dataclass(frozen=True)
class Files:
    """The files of one image; None for a picture that is not there: no boxes, no phrases or trace, no render."""

    image: Path
    layout: Path | None
    attention: Path | None
    source: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.image, self.layout, self.attention, self.source) if path is not None)

    @property
    def about(self) -> tuple[Path, ...]:
        """The pictures about the image."""
        return self.all[1:]

    def only(self, there: Collection[Path | None]) -> Files:
        """The same without the pictures about the image that are not there."""
        kept = (path if path in there else None for path in (self.layout, self.attention, self.source))
        return Files(self.image, *kept)


@dataclass(frozen=True)
class Job:
    """What to make, and where to put it; every value checked as far as that goes without a model.

    `config`: resolved, once for all images; its `model` is that of the guidance. `guidance_name`: how the user calls that.
    `model`: None for the default one. `batch`: how many images are made at once.
    """

    shots: tuple[Shot, ...]
    config: ResolvedConfig
    guidance_name: str
    model: str | None
    batch: int
    folder: Path
    trace: int
    with_metadata: bool
    initial: Initial | None = None

    @property
    def renders(self) -> bool:
        """Whether another model makes an image first."""
        from ...framework.config.resolve import sources_of

        return any(sources_of(term.extractor) for term in self.config.terms)

    @property
    def kept(self) -> tuple[Shot, ...]:
        """The images that are written."""
        return tuple(shot for shot in self.shots if shot.kept)

    @property
    def batches(self) -> list[tuple[Shot, ...]]:
        """What is made at once, in order: images of one size."""
        runs = [tuple(run) for _, run in groupby(self.shots, key=lambda shot: shot.size)]
        return [run[i : i + self.batch] for run in runs for i in range(0, len(run), self.batch)]

    @property
    def remade(self) -> bool:
        """Whether it makes an image again, for which its neighbours in the batch are made too."""
        return len(self.kept) < len(self.shots)

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that may be written."""
        return (self.report, *(path for shot in self.kept for path in self.files(shot).all))

    def stale(self, shot: Shot) -> tuple[Path, ...]:
        """Pictures about an image of that name that this job does not make: an earlier one's would be taken for its own."""
        every = tuple(self.folder / f"{shot.stem}{ending}.png" for ending in ("-layout", "-attention", "-source"))
        return tuple(path for path in every if path not in self.files(shot).all and os.path.lexists(path) and is_own(path))

    def about(self, digest: str) -> str:
        """What a picture about an image says of it: the hash of the image's file, and how many steps of attention were drawn."""
        return f"{digest} {self.trace}"

    def files(self, shot: Shot) -> Files:
        traced = self.trace > 0 and bool(shot.layout.phrases)
        return Files(
            self.folder / f"{shot.stem}.png",
            self.folder / f"{shot.stem}-layout.png" if shot.layout.boxed else None,
            self.folder / f"{shot.stem}-attention.png" if traced else None,
            self.folder / f"{shot.stem}-source.png" if self.renders else None,
        )


@dataclass(frozen=True)
class Made:
    """A finished image: its files, what it was made from, and its share of the report.

    `settings`: as `Metadata.settings`. `batch_seeds`, `index`: of the batch that it was made in. `seconds`: a batch's are shared
    equally; None if nobody noted them. `sha256`: of its file. `earlier`: whether an earlier command made it.
    """

    files: Files
    settings: Mapping[str, Any]
    batch_seeds: Sequence[int]
    index: int
    energies: Sequence[Mapping[str, Any]]
    seconds: float | None
    sha256: str
    earlier: bool = False

    def to_json(self) -> dict[str, Any]:
        layout, attention, source = self.files.layout, self.files.attention, self.files.source
        return {
            "seed": self.settings["seed"],
            "path": self.files.image.name,
            "sha256": self.sha256,
            "layout_path": layout.name if layout else None,
            "attention_path": attention.name if attention else None,
            **({"source_path": source.name} if source else {}),
            "batch_seeds": list(self.batch_seeds),
            "index": self.index,
            "seconds": None if self.seconds is None else round(self.seconds, 4),
            "energies": list(self.energies),
        }


@dataclass(frozen=True)
class Failure:
    """An image that could not be made, and why."""

    shot: Shot
    path: Path
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.shot.seed, "path": self.path.name, "prompt": self.shot.prompt, "error": self.error}
