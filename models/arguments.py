"""The arguments of a loader, checked: Python lets through whatever it is given, and would fail far from where it was."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from ..framework.errors import ConfigError
from ..framework.options import convert


@dataclass(frozen=True)
class LoadArguments:
    """How a model is to be loaded; what each says is told at `DiffusersFolder.load` and `CheckpointFile.load`.

    Raises:
        ConfigError: one is of another type, or a text is empty; names all of them.
    """

    device: str
    dtype: str
    vae: str | Path | None = None
    family: str | None = None
    prediction_type: str | None = None
    grounding: float | None = None
    memory: str = "fast"
    tiling: str = "auto"
    tile: int | None = None
    offload: bool = False
    variant: str | None = None

    def __post_init__(self) -> None:
        hints, faults = get_type_hints(type(self)), list[str]()
        for field in fields(self):
            given = getattr(self, field.name)
            try:
                convert(given, hints[field.name], field.name)
                if isinstance(given, str) and not given.strip():
                    faults.append(f"{field.name}: {given!r} is empty; give a name, or leave it out")
            except ConfigError as error:
                faults.append(str(error))
        if faults:
            raise ConfigError("\n".join(faults))
