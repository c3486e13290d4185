"""The rows of a comparison on scenes: methods, some with scenes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ...framework.config.options import option
from ...framework.errors import ConfigError
from ..runs.planning import MethodSpec, read_specs

ALL = "all"
"""The name of the rows that ship: every method here, on the models that ship."""


@dataclass(frozen=True)
class RowSpec(MethodSpec):
    """One row."""

    place: float | None = option(None, "where the first object stands, across the upper half; from 0 to 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place is not None and not 0 <= self.place <= 1:
            raise ConfigError(f"place: {self.place:g}; expected a number in [0, 1]")


def read_rows(name: str) -> dict[str, RowSpec]:
    """The rows of a YAML file, by their names; `all` for those that ship. A row may `vary` settings; see `read_specs`.

    Raises:
        ConfigError: no such file, or what it holds are no rows; says everything that is wrong.
    """
    path = Path(str(files(__name__.rpartition(".")[0]))) / "rows.yaml" if name == ALL else Path(name)
    if name != ALL and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--rows {name!r}: expected {ALL}, or a file that ends in .yaml")
    return read_specs(path, "rows", RowSpec)
