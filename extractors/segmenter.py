"""Models that say of every place of a picture what it shows: loaded by transformers, differentiable in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, cast
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..framework.config.constraints import Range
from ..framework.config.options import convert
from ..framework.config.values import MOST_SIDE
from ..framework.errors import CheckpointError, ConfigError, LsregenError, PhraseError, nearest, shown
from ..framework.files import is_file, read_json
from ..framework.hf_folders import MOST_SETTINGS, network_of, without_bars
from ..framework.types import Image

EMBEDDED: Mapping[str, Path] = MappingProxyType({"shapeworld-segmenter": Path(__file__).parent / "shapeworld-segmenter"})
"""Models that ship with the package, by name; anything else is a folder."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: what a folder without preprocessor_config.json means
STRIDE = 32  # sides of what it is given are multiples of this


@dataclass(frozen=True)
class Segmenter:
    """A model and how it wants its pictures: normalised by `mean` and `std`, the shorter side `short` pixels (0: as it is)."""

    name: str
    network: Any
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    short: int

    def __call__(self, images: Image) -> Tensor:
        """Logits `[b classes h w]` of pictures `[b 3 H W]` in [0, 1], fp32, on the model's own grid."""
        images = images.float()
        h, w = images.shape[-2:]
        scale = self.short / min(h, w) if self.short else 1.0
        size = tuple(max(1, round(side * scale / STRIDE)) * STRIDE for side in (h, w))
        if size != (h, w):
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return self.network(pixel_values=(images - mean) / std, return_dict=True).logits

    def class_of(self, phrase: str, given: Mapping[str, str]) -> int:
        """The class of a phrase: its given label, or the longest label that is the phrase or the end of it, whatever the case.

        Raises:
            PhraseError: no label fits; lists those there are.
        """
        name = phrase.partition("#")[0].strip()
        known = {label.casefold(): i for i, label in enumerate(self.labels)}
        named = {key.casefold(): label for key, label in given.items()}.get(name.casefold())
        words = (named or name).casefold().split()
        ends = [" ".join(words)] if named is not None else [" ".join(words[i:]) for i in range(len(words))]
        for end in ends:
            if end in known:
                return known[end]
        asked = f"label {named!r} for phrase {name!r}" if named is not None else f"phrase {name!r}"
        raise PhraseError(
            f"{asked}: the model {self.name} knows no such class{nearest(ends[-1], known)}; name one in the extractor's labels, "
            f"as in labels: {{{name}: {self.labels[0]}}}; its labels: {', '.join(self.labels)}"
        )


def folder_of(name: str) -> Path:
    """The folder of a model, given by its path or by the name of one that ships with the package.

    Raises:
        ConfigError: there is none, or it holds another kind of network.
    """
    folder, why = EMBEDDED.get(name) or Path(name), ""
    if not is_file(folder / "config.json"):
        why = "no folder with a config.json"
    elif (network := network_of(folder)) and not network.endswith("ForSemanticSegmentation"):
        why = f"it holds a {network}"
    if why:
        raise ConfigError(
            f"model {name!r}: {why}; expected a transformers model for semantic segmentation, such as a folder of SegFormer; "
            f"models that ship: {', '.join(EMBEDDED)}"
        )
    return folder


_loaded: WeakValueDictionary[tuple[Path, torch.device], Segmenter] = WeakValueDictionary()  # while a run uses them


def load_segmenter(name: str, device: torch.device) -> Segmenter:
    """A transformers model for semantic segmentation, by its folder or by the name of one that ships with the package; fp32.

    The terms of a run share it, and it leaves the device with the last of them.

    Raises:
        ConfigError: no such folder.
        CheckpointError: its files are none of such a model.
    """
    folder = folder_of(name)
    key = (folder.absolute(), device)
    if (found := _loaded.get(key)) is None:
        found = _loaded[key] = _read(name, folder, device)
    return found


def _read(name: str, folder: Path, device: torch.device) -> Segmenter:
    from transformers import AutoModelForSemanticSegmentation

    try:
        settings = _settings(folder / "preprocessor_config.json")
        with without_bars():
            network = cast("Any", AutoModelForSemanticSegmentation).from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        classes: Mapping[int, str] = network.config.id2label
        labels = tuple(str(classes[i]) for i in range(len(classes)))
    except LsregenError:
        raise
    except Exception as error:  # transformers checks its settings in its own ways, by version
        first = str(error).partition("\n")[0]
        raise CheckpointError(
            f"segmentation model {name}: cannot be loaded ({type(error).__name__}: {first}); expected a config.json of a model "
            "for semantic segmentation, and its weights as model.safetensors"
        ) from None
    network.eval().requires_grad_(False).to(device, torch.float32)
    return Segmenter(name, network, labels, *settings)


def _settings(path: Path) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean, deviation and length of the shorter side, out of a preprocessor's file.

    Raises:
        CheckpointError: it is no JSON object, or one of these is of another type or out of range.
    """
    expected = "the settings of a preprocessor, an object"
    given = read_json(path, expected, CheckpointError, MOST_SETTINGS) if is_file(path) else {"do_resize": False}
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: a {type(given).__name__}; expected {expected}")
    given = {key: value for key, value in cast("dict[str, Any]", given).items() if value is not None}
    try:
        three = tuple[float, float, float]
        mean = convert(given.get("image_mean", MEAN), three, "image_mean")
        std = convert(given.get("image_std", STD), three, "image_std")
        if min(std) <= 0:
            raise ConfigError(f"image_std: {shown(std)}: expected three numbers above 0")
        short = _shorter_side(given.get("size", 0)) if given.get("do_resize", True) else 0
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return (mean, std, short) if given.get("do_normalize", True) else ((0.0,) * 3, (1.0,) * 3, short)


def _shorter_side(size: object) -> int:
    """To what the shorter side of an image is scaled, in the ways that transformers writes it; 0 for not at all.

    Raises:
        ConfigError: it is no whole number of pixels.
    """
    if not isinstance(size, dict):
        return convert(size, Annotated[int, Range(0, MOST_SIDE)], "size")
    sides = {name: side for name, side in cast("dict[str, object]", size).items() if side is not None}
    edges = [sides["shortest_edge"]] if "shortest_edge" in sides else list(sides.values())
    return min((convert(edge, Annotated[int, Range(1, MOST_SIDE)], "size") for edge in edges), default=0)
