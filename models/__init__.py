"""Models: what predicts the noise. Importing this module does not import torch; loading a model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..framework.errors import CheckpointError
from ..framework.hookspecs import hookimpl

if TYPE_CHECKING:
    from ..framework.hookspecs import ModelLoader
    from ..framework.types import Model

INDEX = "model_index.json"
EMBEDDED = Path(__file__).parent / "shapeworld"


class DiffusersFolder:
    """Loads models in the folder layout of diffusers: one folder per component, and `model_index.json` naming them.

    `embedded`: the models that are installed with lsregen, by name.
    """

    def __init__(self, home: Path = EMBEDDED) -> None:
        self.embedded: Mapping[str, Path] = {index.parent.name: index.parent for index in sorted(home.glob(f"*/{INDEX}"))}

    def recognises(self, path: Path) -> bool:
        """Whether `path` is such a folder; nothing is read."""
        try:
            return (path / INDEX).is_file()
        except OSError:  # a folder that may not be entered: `load` says so, while no other loader could say more
            return True

    def load(self, path: Path, *, device: str, dtype: str) -> Model:
        """The model in a folder, frozen. `device`, `dtype`: names, as `devices.resolve` takes them.

        Raises:
            ConfigError: no such device or dtype.
            CheckpointError: the folder cannot be used; the message says which file or setting is at fault.
        """
        from .devices import resolve
        from .diffusers_folder import load_folder

        try:
            return load_folder(path, *resolve(device, dtype))
        except OSError as error:  # permissions, a disk that fails
            why = error.strerror or type(error).__name__
            raise CheckpointError(f"model {path}: {error.filename or 'a file of it'} cannot be read ({why})") from None


@hookimpl
def register_models(register: Callable[[str, ModelLoader], None]) -> None:
    """Offer this folder's loaders to plugin discovery."""
    register("diffusers_folder", DiffusersFolder())
