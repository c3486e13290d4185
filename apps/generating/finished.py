"""Which images of a job an earlier command has finished: the same settings, and every picture about them there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...framework.config.described_models import with_described, without_dtype
from ...framework.errors import LsregenError
from ...framework.files import is_file
from ...framework.pipeline.report import described
from ...framework.sampling.image_to_image import beginning
from ..checks import memory_errors
from ..output import UNREADABLE, png_text
from ..showing.records import RunError, read_report, record_of, reports_of
from .job import Files, Job, Made
from .metadata import ABOUT, Metadata, MetadataError, Sample, read_metadata

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline
    from .request import Shot

SHARED = ("prompt", "negative", "layout", "size", "config", "model", "models", "device", "dtype", "versions", "initial")
"""What a report says of all its images at once, where it is the same for all."""


class Finished:
    """Finds finished images of a job; nothing is changed.

    An image is finished if the settings in its file (or, of one without, those in a report that has the hash of its file) are
    those that this job would give it: prompt, layout, seed, size, the whole configuration, the hashes of all weights, device,
    dtype and versions. The batch that it was made in may be another, for it decides about rounding only; unless an image is made
    again, for which it counts too. And every picture about it must be there, made of this very file.
    """

    def __init__(self, job: Job, pipeline: Pipeline, batch: Any = None, earlier: Mapping[str, Any] | None = None) -> None:
        """`batch`: that of the image to be made again. `earlier`: what the report of the folder says, if it is whole."""
        resolved, _ = pipeline.resolve(job.config)
        self.job, self.pipeline, self.batch, self.earlier = job, pipeline, batch, earlier
        self.described = described(pipeline.model, pipeline.plugins, resolved)

    def all(self) -> list[Made]:
        return [made for shot in self.job.kept if (made := self.find(shot)) is not None]

    def find(self, shot: Shot) -> Made | None:
        """The image, if it is finished."""
        files = self.job.files(shot)
        if not is_file(files.image) or self.job.stale(shot):
            return None
        try:
            digest = sha256(files.image.read_bytes()).hexdigest()
            entry = self._entries.get((files.image.name, digest))
            inside = _inside(files.image)
            if (inside is not None) != self.job.with_metadata or not (inside or entry):
                return None
            settings = inside.settings() if inside is not None else _settings(entry or {})
            if not self._same(settings, shot) or (self.batch is not None and (inside is None or inside.batch != self.batch)):
                return None
            there = self._pictures(files, digest, entry)
            if there is None or (entry is None and not _whole(files.image)):
                return None
        except UNREADABLE:
            return None
        seeds = [sample.seed for sample in inside.batch] if inside is not None else (entry or {}).get("batch_seeds", [])
        index = inside.index if inside is not None else (entry or {}).get("index", 0)
        said = entry or {"energies": [], "seconds": None}
        return Made(there, settings, seeds, index, said.get("energies", []), said.get("seconds"), digest, earlier=True)

    def _same(self, settings: Mapping[str, Any], shot: Shot) -> bool:
        expected = self._expected(shot).settings()
        if any(settings.get(key) != expected.get(key) for key in {*settings, *expected} - {"models"}):
            return False
        found = cast("dict[str, dict[str, Any]]", settings.get("models") or {})
        return {name: without_dtype(model) for name, model in found.items()} == self._models

    def _expected(self, shot: Shot) -> Metadata:
        """What an image will say of itself, but for the other models."""
        job, found = self.job, self.described
        settings: dict[str, Any] = {**found, "config": {**found["config"], "seed": shot.seed}}
        settings["config"].pop("model", None)
        initial = {} if job.initial is None else beginning([job.initial.picture], job.initial.strength)
        return Metadata(
            batch=(Sample(shot.prompt, shot.negative, shot.layout, shot.seed),),
            index=0,
            size=shot.size or self.pipeline.model.default_size,
            **settings,
            initial={**initial, "sha256": initial["sha256"][0]} if initial else {},
        )

    @cached_property
    def _models(self) -> dict[str, dict[str, Any]] | None:
        """The other models of its images, described as they are now; None if one cannot be.

        Raises:
            ConfigError: the memory does not suffice.
        """
        with memory_errors("to look at another model", "close other programs, or make all images anew (--again)"):
            try:
                return with_described(self.described["config"], self.pipeline.plugins, {})[1]
            except LsregenError:  # making the image tells why
                return None

    def _pictures(self, files: Files, digest: str, entry: Mapping[str, Any] | None) -> Files | None:
        """The files of an image that is finished; None if a picture about it is not there, or is of another file."""
        said = {entry.get(f"{kind}_path") for kind in ("layout", "attention", "source")} if entry is not None else set[Any]()
        there = [path for path in files.about if is_file(path) and png_text(path, ABOUT) == self.job.about(digest)]
        lacking = [path for path in files.about if path not in there]
        if lacking and (entry is None or any(path.name in said or is_file(path) for path in lacking)):
            return None
        return files.only(there)

    @cached_property
    def _entries(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the reports of the folder say of images, by the name and the hash of their files; the newest wins."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        kept = filter(None, map(_whole_report, reports_of(self.job.folder)[1:]))
        for report in [*([self.earlier] if self.earlier is not None else []), *kept]:
            shared = {key: report[key] for key in SHARED if key in report}
            for image in cast("list[dict[str, Any]]", report["images"]):
                found.setdefault((image["path"], str(image.get("sha256"))), {**shared, **image})
        return found


def _whole_report(path: Path) -> Mapping[str, Any] | None:
    try:
        record_of(path, report := read_report(path))
    except RunError:  # not there, or damaged
        return None
    return report


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an image as a report has them, in the form of `Metadata.settings`."""
    found = {key: entry[key] for key in (*SHARED, "seed") if key in entry}
    return {**found, "config": {**entry.get("config", {}), "seed": entry["seed"]}}


def _inside(path: Path) -> Metadata | None:
    try:
        return read_metadata(path)
    except MetadataError:
        return None


def _whole(path: Path) -> bool:
    """Whether a picture can be unpacked; no report says that it is whole."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
    return True
