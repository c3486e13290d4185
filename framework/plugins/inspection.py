"""What a model's files are, before any of it is loaded: the answer of a loader's `inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Component:
    """A network of a model: its name in a folder of diffusers, how its weights are named, and what they hold.

    `dtypes`: by the names of safetensors, as `F16`. `files`: where its weights are.
    """

    name: str
    naming: str
    parameters: int
    dtypes: tuple[str, ...]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What the files at a path are.

    Args:
        form: how the model is written, in words.
        family: its short name, as `sdxl`; `title`: what people call it.
        prediction: `epsilon` or `v_prediction`; None where there is no UNet, or nothing tells.
        learnt: for `family` and `prediction`, what they were told by.
        missing: what must be added before it can be loaded, in words.
        refusal: why it cannot be loaded at all, if so.
        notes: what else somebody may want to know.
    """

    path: Path
    form: str
    family: str
    title: str
    components: tuple[Component, ...] = ()
    prediction: str | None = None
    learnt: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    missing: tuple[str, ...] = ()
    refusal: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def loads(self) -> bool:
        """Whether nothing is known that would keep it from being loaded as a model."""
        return self.refusal is None and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        components = [{**asdict(one), "files": [str(file) for file in one.files]} for one in self.components]
        values = {**vars(self), "path": str(self.path), "components": components, "learnt": dict(self.learnt)}
        return {**values, "loads": self.loads}
