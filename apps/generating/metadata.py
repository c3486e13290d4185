"""What a picture tells about itself: its settings as JSON under `lsregen`, and as text under `parameters` for other tools."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias, TypeVar, cast

from PIL import Image

from ...framework.config.constraints import Range
from ...framework.config.field_types import keys_of
from ...framework.config.options import build, to_values
from ...framework.config.values import MOST_SIDE
from ...framework.errors import LsregenError
from ...framework.layout.image_files import encode_picture
from ...framework.layout.regions import Layout
from ...framework.layout_files.item import SEEDS
from ..output import SOFTWARE, UNREADABLE, png_text

if TYPE_CHECKING:
    from ...framework.pipeline.report import Report

KEY, PARAMETERS, ABOUT = "lsregen", "parameters", "lsregen-about"
VERSION = 1  # of the JSON under `KEY`; a reader refuses a newer one
LONGEST = 1 << 22  # characters of JSON that are read from a picture
MOST_SAMPLES = 1024  # of a batch
Side: TypeAlias = Annotated[int, Range(1, MOST_SIDE)]
T = TypeVar("T")


class MetadataError(LsregenError):
    """A picture without settings of lsregen, or with settings that cannot be trusted."""


@dataclass(frozen=True)
class Sample:
    """What one picture of a batch was made from."""

    prompt: str
    negative: str
    layout: Layout
    seed: int


@dataclass(frozen=True)
class Metadata:
    """Everything that is needed to make one picture again.

    `batch`, `index`: all samples of the batch it was made in, and its place there; other batches give the same picture up to
    rounding. `initial`: the `sha256` of the picture that it was made from and the `strength`; empty if it was made from noise.
    `models`: the others, which rendered for it or looked at it, by name; pictures of earlier versions do not say.
    """

    batch: tuple[Sample, ...]
    index: int
    size: tuple[int, int]
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    device: str
    dtype: str
    versions: Mapping[str, str]
    initial: Mapping[str, Any] = field(default_factory=dict[str, Any])
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def own(self) -> Sample:
        return self.batch[self.index]

    @property
    def seed(self) -> int:
        return self.own.seed

    @property
    def layout(self) -> Layout:
        return self.own.layout

    @classmethod
    def of(cls, report: Report, index: int) -> Metadata:
        """What a batch's report says of one of its images."""
        # The seed that was used, not the preset's; and no model there: a flag may have named another, perhaps with its path.
        config = {**{key: value for key, value in report.config.items() if key != "model"}, "seed": report.seeds[index]}
        samples = zip(report.prompts, report.negatives, report.layouts, report.seeds, strict=True)
        return cls(
            batch=tuple(Sample(*sample) for sample in samples),
            index=index,
            size=report.size,
            config=config,
            model=report.model,
            device=report.device,
            dtype=report.dtype,
            versions=report.versions,
            initial={**report.initial, "sha256": report.initial["sha256"][index]} if report.initial else {},
            models=report.models,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; of the other samples in the batch, what differs from this one's."""
        own = _as_json(self.own)
        others = [_as_json(sample) for sample in self.batch]
        batch = [{key: value for key, value in other.items() if key == "seed" or value != own[key]} for other in others]
        mappings = {"config": dict(self.config), "model": dict(self.model), "versions": dict(self.versions)}
        mappings |= {"initial": dict(self.initial), "models": dict(self.models)}
        return {"version": VERSION, **own, **vars(self), "batch": batch, **mappings}

    def settings(self) -> dict[str, Any]:
        """What decides about the picture, up to rounding, as JSON has it: all but the batch that it was made in."""
        found: dict[str, Any] = json.loads(json.dumps(self.to_json()))
        return {key: value for key, value in found.items() if key not in ("version", "batch", "index")}

    @classmethod
    def from_json(cls, data: object) -> Metadata:
        """The inverse of `to_json`, for data from anywhere; keys that are not known are ignored.

        Raises:
            MetadataError, ConfigError: a key is missing, of a wrong type or out of range; names all of them.
            LayoutError: the layout cannot be used.
        """
        found = _built(_Written, data)
        if len(found.batch) > MOST_SAMPLES:
            raise MetadataError(f"batch: {len(found.batch)} samples; at most {MOST_SAMPLES} are read")
        own = {f.name: getattr(found, f.name) for f in fields(_Sample)}
        batch = tuple(_built(_Sample, {**own, "seed": None, **entry}).sample for entry in found.batch)
        if not found.index < len(batch) or batch[found.index] != _Sample(**own).sample:
            raise MetadataError("the picture's own settings are not those at 'index' in 'batch'")
        return cls(
            batch=batch,
            index=found.index,
            size=found.size,
            config=found.config,
            model=found.model,
            device=found.device,
            dtype=found.dtype,
            versions={key: str(value) for key, value in found.versions.items()},
            initial=to_values(_built(_Initial, found.initial)) if found.initial else {},
            models=found.models,
        )

    def parameters(self) -> str:
        """The settings as the text that other tools show: the prompt, the negative prompt, and a line of pairs."""
        name, version = self.model.get("name", "unknown"), self.versions.get("lsregen", "unknown")
        pairs = {
            "Steps": self.config.get("steps"),
            "Sampler": _sampler_name(self.config.get("sampler")),
            "CFG scale": _number(self.config.get("cfg")),
            "Seed": self.seed,
            "Denoising strength": self.initial.get("strength"),
            "Size": f"{self.size[0]}x{self.size[1]}",
            "Model": name,
            "Version": f"lsregen {version}",
        }
        own = self.own
        lines = [own.prompt, f"Negative prompt: {own.negative}"] if own.negative else [own.prompt]
        shown = [f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value is not None]
        return "\n".join([*lines, ", ".join(shown)])


def _as_json(sample: Sample) -> dict[str, Any]:
    return {**vars(sample), "layout": sample.layout.to_json()}


@dataclass(frozen=True)
class _Sample:
    """A sample as JSON has it."""

    prompt: str
    negative: str
    layout: Mapping[str, Any]
    seed: Annotated[int, Range(0, SEEDS - 1)]

    @property
    def sample(self) -> Sample:
        return Sample(self.prompt, self.negative, Layout.from_json(self.layout), self.seed)


@dataclass(frozen=True)
class _Written(_Sample):
    """All that is under `KEY`; pictures of earlier versions do not say what they began with, nor the other models."""

    version: Annotated[int, Range(1)]
    batch: Sequence[Mapping[str, Any]]
    index: Annotated[int, Range(0)]
    size: tuple[Side, Side]
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    device: str
    dtype: str
    versions: Mapping[str, Any]
    initial: Mapping[str, Any] = field(default_factory=dict[str, Any])
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class _Initial:
    sha256: str
    strength: Annotated[float, Range(above=0, high=1)]


def _built(cls: type[T], data: object) -> T:
    """A form from JSON of anybody's; keys that it does not have are ignored."""
    if not isinstance(data, dict):
        raise MetadataError(f"expected a mapping, got {type(data).__name__}")
    values = cast("dict[str, Any]", data)
    if isinstance(version := values.get("version"), int) and version > VERSION:
        raise MetadataError("written by a newer lsregen; install that to read it")
    return build(cls, {key: values[key] for key in keys_of(cls) if key in values}, "")


def encode_png(image: Image.Image, metadata: Metadata | None = None, about: str | None = None) -> bytes:
    """A picture as a PNG file, with its settings inside. `about`: which image it tells of, for a picture about another one."""
    texts = {"Software": SOFTWARE}  # by which lsregen knows its own files when it would overwrite one
    if about is not None:
        texts[ABOUT] = about
    if metadata is not None:
        texts |= {PARAMETERS: metadata.parameters(), KEY: json.dumps(metadata.to_json())}
    return encode_picture(image, texts)


def read_metadata(path: Path) -> Metadata:
    """The settings inside a picture. It may come from anyone: it is read as data, up to a size, and checked.

    Raises:
        MetadataError: no picture, no settings, or settings that are no such thing.
    """
    try:
        text = png_text(path, KEY)
    except FileNotFoundError:
        raise MetadataError(f"{path}: no such file; expected a picture that lsregen made") from None
    except UNREADABLE as error:
        raise MetadataError(f"{path}: not a PNG picture that can be read ({error})") from None
    if text is None:
        raise MetadataError(f"{path}: no settings of lsregen inside; were they removed, or was it saved by another program?")
    if len(text) > LONGEST:
        raise MetadataError(f"{path}: {len(text):,} characters of settings; at most {LONGEST:,} are read")
    try:
        return Metadata.from_json(json.loads(text, parse_constant=_refuse))
    except (LsregenError, ValueError, OverflowError, RecursionError) as error:
        raise MetadataError(f"{path}: its settings cannot be used: {error}") from None


def made_with(metadata: Metadata, picture: Path) -> str:
    """The packages that a picture was made with and that are not here, as a line to end a message with."""
    from ...framework.pipeline.report import versions
    from ...framework.plugins.registry import discover

    here = {*versions(), *(plugin.package for plugin in discover().all())}
    lacking = [f"{package[:80]!r} {version[:40]!r}" for package, version in metadata.versions.items() if package not in here]
    said = f"\n--from-image {picture}: made with plugins of {', '.join(lacking[:8])}, not loaded here; install them"
    return said if lacking else ""


def check_autoencoder(made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether a picture's model, as `describe` says, had the autoencoder that it has now: another one gives another picture.

    Raises:
        MetadataError: only the autoencoder is another.
    """
    then, here = (_hashes(model) for model in (made, now))
    given, found = then.pop("vae", {}), here.pop("vae", {})
    same = [{part: set(files.values()) for part, files in each.items()} for each in (then, here)]  # files may be renamed
    if same[0] == same[1] and given and found and set(given.values()) != set(found.values()):
        file, digest = next(iter(given.items()))
        raise MetadataError(
            f"the picture was made with another autoencoder than that of {now.get('name')} ({file}, sha256 {str(digest)[:12]}...)"
            "; say where it is: --vae PATH"
        )


def _hashes(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The hashes of the files of each component, as far as a description has them."""
    return {name: _inner(part, "sha256") for name, part in _inner(model, "components").items()}


def _inner(values: Any, key: str) -> dict[str, Any]:
    """The mapping at a key; an empty one where there is none."""
    found: object = cast("Mapping[str, Any]", values).get(key) if isinstance(values, Mapping) else None
    return dict(cast("Mapping[str, Any]", found)) if isinstance(found, Mapping) else {}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _sampler_name(sampler: object) -> str | None:
    name = cast("Mapping[str, Any]", sampler).get("name") if isinstance(sampler, Mapping) else sampler
    return str(name).upper() if name is not None else None


def _number(value: object) -> str | None:
    return f"{value:g}" if isinstance(value, int | float) and math.isfinite(value) else None


def _quoted(text: str) -> str:
    """As the other tools expect it: quoted where the text would be mistaken for the end of its pair."""
    return json.dumps(text) if any(sign in text for sign in ",:\n") else text
