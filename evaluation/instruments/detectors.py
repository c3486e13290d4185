"""lsregen's own detectors: the exact one of the shape world, and any that transformers loads from a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...framework.config.options import check_options, option
from ...framework.errors import ConfigError, nearest
from ...framework.hashes import file_hash, folder_hashes
from ...framework.plugins.detection import Detected, LoadedDetector
from .network_folders import load_folder

if TYPE_CHECKING:
    from PIL.Image import Image

OPEN = ("owlvit", "owlv2")
"""Types of models that look for any words; every other one has classes of its own."""
QUERY = "a photo of a {}"
EXPECTED = "expected a detector of transformers: config.json, preprocessor_config.json, model.safetensors"


@dataclass(frozen=True)
class ShapeWorldDetector:
    """The exact detector of the shape world: no network, and classes such as `red circle`."""

    def load(self, device: str) -> LoadedDetector:
        """Nothing is read, and the work is always the CPU's."""
        return _ShapeWorld()


def _sources() -> dict[str, str]:
    """The hashes of the exact detector's source, which is what other detectors' weights are."""
    home = Path(__file__).parents[1] / "shapeworld"
    return {name: file_hash(home / name) for name in ("detect.py", "geometry.py", "scene.py")}


@dataclass(frozen=True)
class _ShapeWorld:
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sha256: Mapping[str, str] = field(default_factory=_sources)

    @property
    def classes(self) -> tuple[str, ...] | None:
        from ..shapeworld import COLOURS, SHAPES

        return tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

    @property
    def threshold(self) -> float:
        from ..shapeworld.score import LEAST_SCORE

        return LEAST_SCORE

    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Sequence[Sequence[Detected]]:
        import numpy as np

        from ..shapeworld import detect

        return [
            [
                Detected(found.label, cast("Any", tuple(map(float, found.box))), float(found.score))
                for found in detect(np.asarray(picture.convert("RGB")))
            ]
            for picture in pictures
        ]


@dataclass(frozen=True)
class TransformersDetector:
    """An object detector of transformers, from a local folder: DETR, RT-DETR, YOLOS and their like; OWL-ViT for any words."""

    model: str = field(metadata={"help": "the folder: config.json, preprocessor_config.json, model.safetensors"})
    least_score: float = option(0.001, "objects with a lower score are not reported; in [0, 1)")
    threshold: float = option(0.3, "score from which an object counts as there; in [0, 1]")
    query: str = option(QUERY, "of a detector for any words: what it is asked; {} stands for the words")

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 <= self.least_score < 1:
            raise ConfigError(f"least_score: {self.least_score}; expected a number in [0, 1)")
        if not self.least_score <= self.threshold <= 1:
            raise ConfigError(f"threshold: {self.threshold}; expected a number from least_score ({self.least_score}) to 1")
        try:
            asked = self.query.format("words")
        except (LookupError, ValueError, AttributeError):
            asked = ""
        if "{}" not in self.query or "words" not in asked:
            raise ConfigError(
                f"query: {self.query!r}; expected {{}} in it once, where the words shall stand, and no other braces"
            )

    def load(self, device: str) -> LoadedDetector:
        """The network in float32, and its own preparation of pictures.

        Raises:
            ConfigError: no such folder, or a device that this machine does not have.
            CheckpointError: its files are none of an object detector.
        """
        folder = Path(self.model).expanduser()
        network, processor = load_folder("--detector", folder, device, _loaders, EXPECTED)
        if str(network.config.model_type) in OPEN:
            return _Open(self, network, processor, folder_hashes(folder))
        return _Closed(self, network, processor, folder_hashes(folder))


def _loaders(kind: str) -> tuple[str, str]:
    """What loads a detector of this type, and its preparation of inputs."""
    if kind in OPEN:
        return "AutoModelForZeroShotObjectDetection", "AutoProcessor"
    return "AutoModelForObjectDetection", "AutoImageProcessor"


@dataclass(frozen=True, eq=False)
class _Of:
    """What both kinds share."""

    options: TransformersDetector
    network: Any
    processor: Any
    sha256: Mapping[str, str]

    @property
    def threshold(self) -> float:
        return self.options.threshold

    def prepared(self, **inputs: Any) -> Any:
        return self.processor(**inputs, return_tensors="pt").to(self.network.device)


class _Closed(_Of):
    """A detector with classes of its own."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        labels = cast("Mapping[int, str]", self.network.config.id2label)
        return tuple(dict.fromkeys(str(label) for label in labels.values()))

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"least_score": self.options.least_score}

    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Sequence[Sequence[Detected]]:
        import torch

        found: list[Sequence[Detected]] = [()] * len(pictures)
        labels: Mapping[int, str] = self.network.config.id2label
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, picture in enumerate(pictures):
            by_size.setdefault(picture.size, []).append(place)
        for places in by_size.values():  # of one size, so that none is padded on behalf of another
            inputs = self.prepared(images=[pictures[place].convert("RGB") for place in places])
            with torch.no_grad():
                outputs = self.network(**inputs)
            rows = self.processor.post_process_object_detection(
                outputs, threshold=self.options.least_score, target_sizes=[(1, 1)] * len(places)
            )
            for place, row in zip(places, rows, strict=True):
                found[place] = _detected([str(labels[int(label)]) for label in row["labels"]], row, (1, 1))
        return found


class _Open(_Of):
    """A detector that looks for any words; every picture is asked for its own."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"least_score": self.options.least_score, "query": self.options.query}

    def __call__(self, pictures: Sequence[Image], wanted: Sequence[Sequence[str]]) -> Sequence[Sequence[Detected]]:
        import torch

        found: list[Sequence[Detected]] = []
        for picture, words in zip(pictures, wanted, strict=True):
            if not words:
                found.append(())
                continue
            asked = [self.options.query.format(word) for word in words]
            inputs = self.prepared(text=[asked], images=[picture.convert("RGB")])
            with torch.no_grad():
                outputs = self.network(**inputs)
            (row,) = self.processor.post_process_grounded_object_detection(
                outputs, threshold=self.options.least_score, target_sizes=[(picture.height, picture.width)]
            )
            found.append(_detected([words[int(label)] for label in row["labels"]], row, picture.size))
        return found


def _detected(labels: Sequence[str], row: Mapping[str, Any], size: tuple[int, int]) -> list[Detected]:
    """What transformers found in one picture, its boxes in units of which `size` is the whole; boxes without an area are none."""
    width, height = size
    rows = zip(labels, row["boxes"].double().tolist(), row["scores"].double().tolist(), strict=True)
    return [
        Detected(label, (left / width, top / height, right / width, bottom / height), min(1.0, score))
        for label, (left, top, right, bottom), score in rows
        if right > left and bottom > top
    ]


def labels_for(loaded: LoadedDetector, needed: Sequence[str], renamed: Mapping[str, str], name: str) -> dict[str, str]:
    """What the detector calls every class that is needed; its case does not matter.

    Args:
        renamed: labels by class, where a detector calls a class otherwise.
        name: the detector's, for the message.

    Raises:
        ConfigError: it does not know one of them; a class is renamed that is not needed, or to a label that it does not know.
    """
    asked = {need.casefold() for need in needed}
    for key, label in renamed.items():
        if key.casefold() not in asked:
            raise ConfigError(
                f"--class '{key}={label}': class {key!r} is renamed, and nothing asks for it{nearest(key, needed)}; asked for: "
                f"{shown(needed)}"
            )
    given = {key.casefold(): label for key, label in renamed.items()}
    wanted = {need: given.get(need.casefold(), need) for need in needed}
    if loaded.classes is None:
        return wanted
    known = {label.casefold(): label for label in loaded.classes}
    for key, label in renamed.items():
        if label.casefold() not in known:
            near = nearest(label.casefold(), known)
            raise ConfigError(
                f"--class '{key}={label}': the detector {name} has no label {label!r}{near}; it knows {shown(loaded.classes)}"
            )
    if lacking := [need for need, label in wanted.items() if label.casefold() not in known]:
        named = shown([need + nearest(need.casefold(), known) for need in lacking])
        raise ConfigError(
            f"detector {name}: lacks {len(lacking)} of the {len(needed)} classes that the plan asks for: {named}; take a "
            f"detector that knows them, or say what it calls them (--class '{lacking[0]}=LABEL'); it knows "
            f"{shown(loaded.classes)}"
        )
    return {need: known[label.casefold()] for need, label in wanted.items()}


def shown(names: Sequence[str], most: int = 12) -> str:
    """Some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
