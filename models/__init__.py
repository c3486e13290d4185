"""Models: what predicts the noise. Importing this module does not import torch; loading a model does."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..framework.config.arguments import checked
from ..framework.errors import CheckpointError, ConfigError
from ..framework.files import is_folder, reason
from ..framework.plugins.hookspecs import hookimpl
from .weights.names import INDEX, PICKLES, SAFE

if TYPE_CHECKING:
    from ..framework.plugins.hookspecs import ModelLoader, RegisterPreset
    from ..framework.plugins.inspection import Inspection
    from ..framework.plugins.presets import Fits
    from ..framework.protocols import Model

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
            return stat.S_ISREG(os.stat(path / INDEX).st_mode)
        except PermissionError:  # a folder that may not be entered: `load` says so, while no other loader could say more
            return True
        except (OSError, ValueError):
            return False

    def fetch(self, name: str, *, revision: str | None = None, variant: str | None = None) -> Path | None:
        """The folder of a model of the Hugging Face hub, downloaded if it must be; see `hub.fetch_folder`."""
        from .weights.hub import fetch_folder

        return fetch_folder(name, revision, variant)

    @checked
    def load(
        self,
        path: Path,
        *,
        device: str,
        dtype: str,
        vae: str | Path | None = None,
        prediction_type: str | None = None,
        grounding: float | None = None,
        memory: str = "fast",
        tiling: str = "auto",
        tile: int | None = None,
        offload: bool = False,
        variant: str | None = None,
    ) -> Model:
        """The model in a folder, frozen.

        Args:
            device, dtype: names, as `devices.resolve` takes them.
            vae: an autoencoder to take instead of the folder's own; see `part_sources.with_autoencoder`.
            prediction_type: `epsilon` or `v_prediction`, if its scheduler says something else.
            grounding: of a GLIGEN model, the share of the steps, from the first, in which it sees the boxes; else its own.
            memory: what guided passes keep, `fast`, `balanced` or `low`; see `checkpointing.MEMORY`.
            tiling, tile: when the autoencoder works piece by piece, `auto`, `on` or `off`; see `tiling.make_tiling`.
            offload: whether the networks wait in the CPU's memory, and come to the device when they are needed.
            variant: of the weights, such as `fp16`; None for the plain ones, else whichever there are.

        Raises:
            ConfigError: no such device or dtype, or an argument of another type.
            CheckpointError: the folder cannot be used; the message says which file or setting is at fault.
        """
        if variant is not None and not variant.strip():
            raise ConfigError(f"variant: {variant!r} is empty; give a name, or leave it out")
        from .runtime.assemble import Dials, build_model
        from .runtime.devices import resolve
        from .weights.diffusers_folder import read_folder
        from .weights.part_sources import with_autoencoder, with_prediction

        place, precision = resolve(device, dtype)
        with _readable(path):
            parts = read_folder(path, variant)
            parts = parts if vae is None else with_autoencoder(parts, _expanded(vae))
            parts = parts if prediction_type is None else with_prediction(parts, prediction_type)
            parts = parts if grounding is None else replace(parts, grounding=grounding)
            return build_model(parts, place, precision, Dials(memory, tiling, tile, offload))

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

    embedded: Mapping[str, Path] = MappingProxyType({})

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a file of weights, by its ending or by how it begins."""
        from .weights.headers import holds_weights

        return (path.suffix.lower() in (SAFE, *PICKLES) and not is_folder(path)) or holds_weights(path)

    @checked
    def load(
        self,
        path: Path,
        *,
        device: str,
        dtype: str,
        vae: str | Path | None = None,
        family: str | None = None,
        prediction_type: str | None = None,
        grounding: float | None = None,
        memory: str = "fast",
        tiling: str = "auto",
        tile: int | None = None,
        offload: bool = False,
    ) -> Model:
        """The model in a file, frozen; its tokenizers come from beside it or from the hub's cache (`tokenizers.py`).

        Args:
            device, dtype: names, as `devices.resolve` takes them.
            vae: an autoencoder to take instead of the file's own; see `part_sources.with_autoencoder`.
            family, prediction_type: override what was recognised; see `single_file.open_single_file`.
            grounding, memory, tiling, tile, offload: as `DiffusersFolder.load`.

        Raises:
            ConfigError: no such device or dtype, or an argument of another type.
            CheckpointError: the file cannot be used, or is a pickle.
        """
        from .runtime.assemble import Dials, build_model
        from .runtime.devices import resolve
        from .weights.part_sources import read_file

        place, precision = resolve(device, dtype)
        with _readable(path):
            autoencoder = None if vae is None else _expanded(vae)
            parts = read_file(path, vae=autoencoder, family=family, prediction_type=prediction_type)
            return build_model(replace(parts, grounding=grounding), place, precision, Dials(memory, tiling, tile, offload))

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


def _expanded(vae: str | Path) -> Path:
    try:
        return Path(vae).expanduser()
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
