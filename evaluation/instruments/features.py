"""Networks whose features tell sets of pictures apart, for the Frechet distance: chosen by a name or a path."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ...framework.errors import CheckpointError, ConfigError
from ...framework.files import look, shortened
from ...framework.hashes import file_hash, folder_hashes
from ...framework.hf_folders import network_of
from ..runs.measuring_device import device_of
from .network_folders import load_folder

if TYPE_CHECKING:
    from PIL.Image import Image

SHAPEWORLD = "shapeworld"
EXPECTED = (
    f"expected {SHAPEWORLD!r} (its classifier), a TorchScript file of Inception (such as inception-2015-12-05.pt of StyleGAN's "
    "authors), or a folder of an image encoder of transformers (such as DINOv2 or CLIP)"
)


class FeatureNetwork(Protocol):
    """Pictures to features `[n d]` in float32, each picture's its own. `resize`: what is done to a picture first, in words."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> dict[str, str]: ...

    @property
    def resize(self) -> str: ...

    def __call__(self, pictures: Sequence[Image]) -> NDArray[np.float32]: ...


def load_features(name: str, device: str = "auto") -> FeatureNetwork:
    """The network of a name or a path.

    Raises:
        ConfigError: neither, or a device that this machine does not have.
        CheckpointError: the weights cannot be used.
    """
    path = Path(name).expanduser()
    place = look(path)
    if name == SHAPEWORLD:
        return _Classifier()
    if place.kind == "folder":
        return _encoder(path, device)
    if place.kind == "file":
        return _inception(path, device_of(device))
    raise ConfigError(f"--features {shortened(name)!r}: {place.said}; {EXPECTED}")


def _classifiers_hash() -> dict[str, str]:
    from ..shapeworld.classifier import WEIGHTS, weights_hash

    return {WEIGHTS.name: weights_hash()}


@dataclass(frozen=True)
class _Classifier:
    """The shape world's own classifier, on the CPU."""

    name: str = SHAPEWORLD
    resize: str = "larger pictures to a shorter side of 64 pixels, by a box filter"
    sha256: dict[str, str] = field(default_factory=_classifiers_hash)

    def __call__(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        from ..shapeworld.classifier import image_features

        return image_features(pictures).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Script:
    """A TorchScript module that takes pixels `[b 3 H W]` in uint8 and resizes them itself."""

    path: Path
    module: Any
    takes_flag: bool
    device: torch.device
    sha256: dict[str, str]
    resize: str = "none before the network, which resizes by itself"

    @property
    def name(self) -> str:
        return self.path.name

    def __call__(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        return _one_by_one(pictures, self._features)

    def _features(self, picture: Image) -> Tensor:
        pixels = rearrange(torch.tensor(np.asarray(picture.convert("RGB"))), "h w c -> 1 c h w").contiguous().to(self.device)
        return self.module(pixels, return_features=True) if self.takes_flag else self.module(pixels)


def _inception(path: Path, device: torch.device) -> _Script:
    """Inception as TorchScript; its features are asked for with `return_features=True` if it takes that. Raises as above."""
    jit: Any = torch.jit
    try:
        with warnings.catch_warnings():  # torch means those who write such files, not those who were given one
            warnings.simplefilter("ignore", DeprecationWarning)
            module = jit.load(str(path), map_location=device)
    except Exception as error:  # whatever the reader of an archive says
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"--features {path}: not a TorchScript file ({first[:200]}); {EXPECTED}. Weights without their network cannot be "
            "used, and pickles are not read"
        ) from None
    module.eval()
    takes_flag = "return_features" in {argument.name for argument in module.forward.schema.arguments}
    network = _Script(path, module, takes_flag, device, {path.name: file_hash(path)})
    _try(network, path)
    return network


@dataclass(frozen=True, eq=False)
class _Encoder:
    """An image encoder of transformers, with its own preparation of pictures."""

    path: Path
    network: Any
    processor: Any
    sha256: dict[str, str]
    resize: str

    @property
    def name(self) -> str:
        return self.path.name

    def __call__(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        return _one_by_one(pictures, self._features)

    def _features(self, picture: Image) -> Tensor:
        inputs = self.processor(images=[picture.convert("RGB")], return_tensors="pt").to(self.network.device)
        if hasattr(self.network, "get_image_features"):
            return pooled(self.network.get_image_features(**inputs))
        return pooled(self.network(**inputs))


def pooled(output: Any) -> Tensor:
    """`[n d]` of what an encoder returns: versions of transformers differ."""
    if isinstance(output, Tensor):
        return output
    found: object = getattr(output, "pooler_output", None)
    return found if isinstance(found, Tensor) else cast("Tensor", output.last_hidden_state[:, 0])


def _encoder(folder: Path, device: str) -> _Encoder:
    held = network_of(folder)
    if "ObjectDetection" in held:  # some load as an encoder, and say something of every picture
        raise CheckpointError(
            f"--features {folder}: it holds a {held}, a detector, and no features of whole pictures; {EXPECTED}"
        )
    network, processor = load_folder("--features", folder, device, ("AutoModel", "AutoImageProcessor"), EXPECTED)
    size, resample = getattr(processor, "size", None), getattr(processor, "resample", None)
    encoder = _Encoder(
        folder, network, processor, folder_hashes(folder), f"its preprocessor's, {sides(size)}, resample {resample}"
    )
    _try(encoder, folder)
    return encoder


def sides(size: Any) -> str:
    """A size as preprocessors have it, in words: `shortest_edge 224`."""
    return ", ".join(f"{key} {value}" for key, value in dict(size or {}).items() if value is not None) or "of its own"


def _one_by_one(pictures: Sequence[Image], features: Any) -> NDArray[np.float32]:
    """Each picture by itself, so that its features do not depend on its neighbours."""
    with torch.no_grad():
        rows = [features(picture) for picture in pictures]
    if not all(isinstance(row, Tensor) and row.ndim == 2 and len(row) == 1 for row in rows):
        raise CheckpointError(f"expected features [1 d] of one picture, got {str(rows[0])[:80]}")
    return torch.cat([row.float().cpu() for row in rows]).numpy()


def _try(network: FeatureNetwork, path: Path) -> None:
    """Find out before hours of work whether a network does what is expected of it."""
    from PIL import Image

    try:
        network([Image.new("RGB", (96, 64), (120, 90, 60))])
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"--features {path}: fails on a picture ({type(error).__name__}: {first[:200]}); {EXPECTED}"
        ) from None
