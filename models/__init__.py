"""Models: what predicts the noise. Importing this module does not import torch; loading a model does."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..framework.config.arguments import checked
from ..framework.config.load_options import LoadOptions
from ..framework.errors import CheckpointError
from ..framework.files import is_folder, reason
from ..framework.plugins.hookspecs import hookimpl
from .weights.names import INDEX, PICKLES, SAFE

if TYPE_CHECKING:
    from ..framework.plugins.hookspecs import ModelLoader, RegisterPreset
    from ..framework.plugins.inspection import Inspection
    from ..framework.plugins.presets import Fits
    from ..framework.protocols import Model

OF_ANY_WEIGHTS = ("grounding", "memory", "tiling", "tile", "offload")
"""The options of `LoadOptions` that say how a model computes, wherever its weights come from."""
EMBEDDED = Path(__file__).parent / "shapeworld"


class DiffusersFolder:
    """Loads models in the folder layout of diffusers: one folder per component, and `model_index.json` naming them.

    `embedded`: the models that are installed with lsregen, by name.
    """

    takes = ("variant", "vae", "prediction_type", *OF_ANY_WEIGHTS)

    def __init__(self, home: Path = EMBEDDED) -> None:
        self.embedded: Mapping[str, Path] = {index.parent.name: index.parent for index in sorted(home.glob(f"*/{INDEX}"))}

    def recognises(self, path: Path) -> bool:
        """Whether `path` is such a folder; nothing is read."""
        try:
            return stat.S_ISREG(os.stat(path / INDEX).st_mode)
        except PermissionError:  # a folder that may not be entered: `load` says so, while no other loader could say more
            return True
        except (OSError, ValueError):
            return False

    def fetch(self, name: str, options: LoadOptions) -> Path | None:
        """The folder of a model of the Hugging Face hub, downloaded if it must be; see `hub.fetch_folder`."""
        from .weights.hub import fetch_folder

        return fetch_folder(name, options.revision, options.variant)

    @checked
    def load(self, path: Path, options: LoadOptions) -> Model:
        """The model in a folder, frozen.

        Raises:
            ConfigError: no such device.
            CheckpointError: the folder cannot be used; the message says which file or setting is at fault.
        """
        from .runtime.assemble import build_model
        from .weights.diffusers_folder import read_folder
        from .weights.part_sources import with_autoencoder, with_prediction

        with _readable(path):
            parts = read_folder(path, options.variant)
            parts = parts if options.vae is None else with_autoencoder(parts, _expanded(options.vae))
            parts = parts if options.prediction_type is None else with_prediction(parts, options.prediction_type)
            return build_model(parts, options)

    def inspect(self, path: Path) -> Inspection:
        """What a folder is; see `inspect.inspect_folder`."""
        from .weights.inspect import inspect_folder

        with _readable(path):
            return inspect_folder(path)

    @checked
    def convert(self, path: Path, out: Path, *, family: str | None = None, prediction_type: str | None = None) -> tuple[str, ...]:
        """Write a folder of pickles again with safetensors; see `convert.convert_folder`. `family` is for single files alone."""
        from .weights.convert import convert_folder

        if family is not None:
            raise CheckpointError(f"{path}: family is {family!r}, but a folder of diffusers says itself what it is; leave it out")
        with _readable(path):
            convert_folder(path, out, prediction_type=prediction_type)
        return ()

    def explain(self, path: Path) -> str | None:
        """Why a path that is no such folder might have been taken for one; see `explain.explain`."""
        from .weights.explain import explain

        with _readable(path):
            return explain(path)


class CheckpointFile:
    """Loads a whole model from one safetensors file in the names of LDM or sgm. Pickles are recognised, and refused."""

    takes = ("vae", "family", "prediction_type", *OF_ANY_WEIGHTS)
    embedded: Mapping[str, Path] = MappingProxyType({})

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a file of weights, by its ending or by how it begins."""
        from .weights.headers import holds_weights

        return (path.suffix.lower() in (SAFE, *PICKLES) and not is_folder(path)) or holds_weights(path)

    @checked
    def load(self, path: Path, options: LoadOptions) -> Model:
        """The model in a file, frozen; its tokenizers come from beside it or from the hub's cache (`tokenizers.py`).

        Raises:
            ConfigError: no such device.
            CheckpointError: the file cannot be used, or is a pickle.
        """
        from .runtime.assemble import build_model
        from .weights.part_sources import read_file

        with _readable(path):
            autoencoder = None if options.vae is None else _expanded(options.vae)
            parts = read_file(path, vae=autoencoder, family=options.family, prediction_type=options.prediction_type)
            return build_model(parts, options)

    def inspect(self, path: Path) -> Inspection:
        """What a file is; see `inspect.inspect_file`."""
        from .weights.inspect import inspect_file

        with _readable(path):
            return inspect_file(path)

    @checked
    def convert(self, path: Path, out: Path, *, family: str | None = None, prediction_type: str | None = None) -> tuple[str, ...]:
        """Write it as a folder of diffusers; see `convert.convert_file`."""
        from .weights.convert import convert_file

        with _readable(path):
            return convert_file(path, out, family=family, prediction_type=prediction_type)


def _expanded(vae: Path) -> Path:
    try:
        return vae.expanduser()
    except RuntimeError:
        raise CheckpointError(f"vae {str(vae)!r}: there is no such user's home; write the whole path") from None


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Say in words what the disk says."""
    try:
        yield
    except OSError as error:  # permissions, a disk that fails
        raise CheckpointError(f"model {path}: {error.filename or 'a file of it'} cannot be read ({reason(error)})") from None


PRESETS = EMBEDDED / "presets"
FITTING: Mapping[str, tuple[Fits, str]] = {
    "layout-guidance@shapeworld": ("boxes", "shapeworld-base"),
    "attend-and-excite@shapeworld": ("phrases", "shapeworld-base"),
    "gligen": ("boxes", "shapeworld-gligen"),
    "lsregen": ("boxes", "shapeworld-large"),
}
"""Which layouts, of which of the models that ship, they are taken for where no guidance is named."""


@hookimpl
def register_presets(register: RegisterPreset) -> None:
    """The presets that name the models that ship, or are tuned for them."""
    for path in sorted(PRESETS.glob("*.yaml")):
        fits, model = FITTING.get(path.stem, (None, None))
        register(path.stem, path, fits=fits, models=() if model is None else (model,))


@hookimpl
def register_models(register: Callable[[str, ModelLoader], None]) -> None:
    """Offer this folder's loaders to plugin discovery."""
    register("diffusers_folder", DiffusersFolder())
    register("checkpoint_file", CheckpointFile())
