"""The hooks by which a package adds to lsregen: one for each kind of plugin, all of one form.

A package names a module under `[project.entry-points.lsregen]`; the module implements any of these with `@hookimpl`. lsregen's
own plugins come in by the same hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from ..config.load_options import LoadOptions
    from ..protocols import Model
    from ..types import Step
    from .inspection import Inspection
    from .presets import Fits

hookspec = pluggy.HookspecMarker("lsregen")
hookimpl = pluggy.HookimplMarker("lsregen")


class ModelLoader(Protocol):
    """What a model plugin registers: it knows a folder layout, and the models that ship with its package by name."""

    @property
    def embedded(self) -> Mapping[str, Path]:
        """Names of models that can be loaded without a path, and their folders."""
        ...

    @property
    def takes(self) -> Collection[str]:
        """The names of the options in `LoadOptions` that it takes, besides `device`, `dtype` and `revision`."""
        ...

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like something this loader loads; cheap, and without side effects."""
        ...

    def load(self, path: Path, options: LoadOptions) -> Model:
        """Load the weights. What it does not take is at its default; `device` and `dtype` may be `auto`."""
        ...


class FetchingLoader(ModelLoader, Protocol):
    """A loader that also knows models by the names of a hub, and brings them to this machine."""

    def fetch(self, name: str, options: LoadOptions) -> Path | None:
        """Where the model of this name is by now; None for what is no name of the hub's. Asked only for what is no local path."""
        ...


class InspectingLoader(ModelLoader, Protocol):
    """A loader that can tell what a path is without loading it."""

    def inspect(self, path: Path) -> Inspection: ...


class ConvertingLoader(ModelLoader, Protocol):
    """A loader that can write a model again in the layout of diffusers, and says what is still to be done then."""

    def convert(self, path: Path, out: Path, **options: Any) -> tuple[str, ...]: ...


class ExplainingLoader(ModelLoader, Protocol):
    """A loader that can say of a path that nobody recognises what it is and what to do, in words, if it can."""

    def explain(self, path: Path) -> str | None: ...


@hookspec
def register_extractors(register: Callable[[str, type], None]) -> None:
    """Call `register(name, cls)` for each feature extractor: a frozen dataclass that satisfies `FeatureExtractor`."""


@hookspec
def register_distances(register: Callable[[str, type], None]) -> None:
    """Call `register(name, cls)` for each distance: a frozen dataclass that satisfies `Distance`."""


@hookspec
def register_samplers(register: Callable[[str, type], None]) -> None:
    """Call `register(name, cls)` for each sampler: a frozen dataclass that satisfies `Sampler`."""


@hookspec
def register_models(register: Callable[[str, ModelLoader], None]) -> None:
    """Call `register(name, loader)` for each kind of model folder: an object that satisfies `ModelLoader`."""


@hookspec
def register_decays(register: Callable[[str, Callable[[Step], float]], None]) -> None:
    """Call `register(name, function)` for each decay: a step to the factor of `gamma`, from 0 to 1."""


@hookspec
def register_normalisations(register: Callable[[str, Callable[[Tensor], Tensor]], None]) -> None:
    """Call `register(name, function)` for each normalisation: from gradients `[b n]` to what they are divided by, `[b]`."""


@hookspec
def register_rasters(register: Callable[[str, Callable[[float, float, int], list[float]]], None]) -> None:
    """Call `register(name, rule)` for each raster: a side from `low` to `high` in [0, 1] and a number of cells to their shares.

    A share is how much of a cell is covered, in [0, 1]; the mask of a box is the product of its two sides.
    """


class RegisterPreset(Protocol):
    """What `register_presets` is given."""

    def __call__(self, name: str, path: str | Path, *, fits: Fits | None = None, models: Sequence[str] = ()) -> None: ...


@hookspec
def register_presets(register: RegisterPreset) -> None:
    """Call `register(name, path)` for each preset: the YAML file of a configuration.

    With `fits="boxes"` or `"phrases"` it is taken for such layouts where no guidance is named: for the models that `models`
    names, or for all that no other preset names.
    """


@hookspec
def register_detectors(register: Callable[[str, type], None]) -> None:
    """Call `register(name, cls)` for each object detector: a frozen dataclass that satisfies `Detector`."""


@hookspec
def register_engines(register: Callable[[str, type], None]) -> None:
    """Call `register(name, cls)` for each engine of `lsregen evaluate run`: a frozen dataclass that satisfies `Engine`."""
