"""What a table compares: rows by name, each a guidance with the model and the size of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from ...framework.config.options import build, option
from ...framework.config.yaml_text import load_yaml
from ...framework.errors import ConfigError

ALL = "all"
"""The name of the rows that ship: every method here, on the models that ship."""


@dataclass(frozen=True)
class RowSpec:
    """One row."""

    guidance: str = option("none", "a preset, a YAML file or none")
    model: str | None = option(None, "the model of the images; that of the guidance, or the default one")
    size: tuple[int, int] | None = option(None, "width and height in pixels; the model's own by default")
    enlarged: tuple[int, int] | None = option(
        None, "width and height that finished images are enlarged to, before they are judged"
    )
    place: float | None = option(None, "where the first object stands, across the upper half; from 0 to 1")
    sets: tuple[str, ...] = option((), "further settings, such as guidance.layout.gamma=40")

    def __post_init__(self) -> None:
        for name, value in (("guidance", self.guidance), ("model", self.model)):
            if value is not None and not value.strip():
                raise ConfigError(f"{name}: {value!r} is empty; give a name, or leave it out")


def read_rows(name: str) -> dict[str, RowSpec]:
    """The rows of a YAML file, by their names; `all` for those that ship.

    Raises:
        ConfigError: no such file, or what it holds are no rows; says everything that is wrong.
    """
    path = Path(str(files(__name__.rpartition(".")[0]))) / "rows.yaml" if name == ALL else Path(name)
    if name != ALL and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--rows {name!r}: expected {ALL}, or a file that ends in .yaml")
    given = load_yaml(path).get("rows")
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f"{path}: expected a mapping 'rows' from the names of rows to guidance, model, size, enlarged, place and sets"
        )
    rows, problems = dict[str, RowSpec](), list[str]()
    for key, values in cast("Mapping[Any, Any]", given).items():
        try:
            rows[str(key)] = build_row(values, f"rows.{key}")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return rows


def build_row(given: Any, path: str) -> RowSpec:
    """A row from what a file holds at `path`.

    Raises:
        ConfigError: it is no row; says everything that is wrong.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path}: {given!r} is not a mapping with guidance, model, size, enlarged, place and sets")
    return build(RowSpec, cast("Mapping[str, Any]", given), path, "a row")
