"""`--init-image`: the picture that `lsregen generate` starts from instead of from noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from PIL import Image

from ...framework.errors import ConfigError
from ...framework.layout.image_files import Wanted, shown
from ...framework.layout_files.item import STRENGTH, Size
from ...framework.pipeline.sizes import stretched
from ..option_types import PATH, Finite

if TYPE_CHECKING:
    from ...framework.protocols import Model
    from .metadata import Metadata
    from .request import Options

OPTIONS = (
    click.option("--init-image", type=PATH, metavar="FILE", help="Start from this picture instead of from noise, at its size."),
    click.option(
        "--strength",
        type=Finite(),
        metavar="SHARE",
        help=f"With --init-image: how much of the steps is made; 1 leaves little of the picture. [default: {STRENGTH}]",
    ),
)


@dataclass(frozen=True)
class Initial:
    """The picture of a file that a run starts from; `strength`: the share of the steps that is made, from the step `entry` on."""

    path: Path
    picture: Image.Image
    strength: float
    entry: int

    @property
    def arguments(self) -> dict[str, Any]:
        """As a `Pipeline` takes them."""
        return {"init_image": self.picture, "strength": self.strength}

    def check_size(self, size: Size, model: Model) -> None:
        """Whether a model can make an image of `size` (width, height) from the picture.

        Raises:
            ConfigError: it would have to be cropped.
        """
        where, factor = f"--init-image {self.path}", model.factor
        if size == self.picture.size and any(side % factor for side in size):
            cropped = "x".join(str(side // factor * factor) for side in size)
            cure = f"crop it to {cropped}, or " if min(size) >= factor else ""
            raise ConfigError(
                f"{where}: {size[0]}x{size[1]} pixels, and the sides of {model.name}'s images are multiples of {factor}; {cure}"
                "ask for a --size of its proportions"
            )
        if said := stretched(self.picture.size, size):
            raise ConfigError(f"{where}: {said}")


def initial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read_initial(given: Options, made: Metadata | None, steps: int) -> Initial | None:
    """What to start from, if not from noise. `made`: of a picture that is to be made again. `steps`: of a whole run.

    Raises:
        ConfigError: no picture, or not the one that a picture was made from; a strength that makes no step, or without a picture.
    """
    if given.init_image is None:
        if given.strength is not None:
            raise ConfigError(f"--strength {given.strength}: of what? name a picture with --init-image")
        if made is not None and made.initial:
            raise ConfigError(f"--from-image {given.from_image}: was made from another picture; give it too: --init-image FILE")
        return None
    picture, strength = _open(given.init_image), given.strength
    if made is not None:
        strength = _strength_of(given, made, picture)
    from ...framework.sampling.image_to_image import entry_step

    strength = STRENGTH if strength is None else strength
    return Initial(given.init_image, picture, strength, entry_step(strength, steps))


def _strength_of(given: Options, made: Metadata, picture: Image.Image) -> float:
    """The strength that a picture was made with, from the very picture that is given now."""
    from ...framework.sampling.image_to_image import fingerprint

    if not made.initial:
        raise ConfigError(f"--from-image {given.from_image}: was not made from a picture; leave --init-image out")
    if given.strength is not None:
        raise ConfigError("--from-image with --strength: the picture says that itself; leave one of them out")
    if fingerprint(picture) != made.initial["sha256"]:
        raise ConfigError(f"--init-image {given.init_image}: is not the picture that {given.from_image} was made from")
    return float(made.initial["strength"])


def _open(path: Path) -> Image.Image:
    return shown(path, Wanted("--init-image", error=ConfigError))
