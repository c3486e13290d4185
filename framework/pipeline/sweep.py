"""One request made with several settings: a table of what came of them, and a sheet of the images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

from PIL import Image

from ..config.merging import apply_sets
from ..config.options import convert, plain
from ..config.resolve import validate
from ..config.values import as_list
from ..errors import ConfigError, counted, shown
from ..layout.image_files import encode_picture
from ..plugins.registry import Plugins
from ..sampling.image_to_image import entry_step
from .notebook import html_table, sheet_of
from .report import Result
from .request import Request


@dataclass(frozen=True, repr=False)
class Sweep:
    """`settings`: the values that were varied, by name, of each run; `results`: what came of each, in the same order."""

    settings: tuple[Mapping[str, Any], ...]
    results: tuple[Result, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One table: a row for each image, with the settings, the seed, and the first and the last energy of every term."""
        return [
            {**settings, "image": index, "seed": seed, **result.energy_ends(index)}
            for settings, result in zip(self.settings, self.results, strict=True)
            for index, seed in enumerate(result.report.seeds)
        ]

    @property
    def sheet(self) -> Image.Image:
        """One image of all images: a line for each run, under its settings."""
        titles = [", ".join(f"{key} = {value}" for key, value in settings.items()) for settings in self.settings]
        return sheet_of([result.images for result in self.results], titles)

    def __repr__(self) -> str:
        return f"Sweep({counted(len(self.results), 'run')} over {', '.join(self.settings[0])})"

    def _repr_png_(self) -> bytes:
        return encode_picture(self.sheet)

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def settings_of(given: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of some settings, the last one varying fastest.

    Raises:
        ConfigError: it is no such mapping, or a setting has no values.
    """
    values: dict[str, list[Any]] = {}
    for key, several in convert(given, Mapping[str, Any], "settings").items():
        found = as_list(several, str, Mapping)
        if not isinstance(found, list | tuple) or not found:
            raise ConfigError(f"settings: {key}: {shown(several)}: expected its values as a list, such as [10, 30, 100]")
        if key == "seed":
            raise ConfigError("settings: seed: the seeds are the request's; make it with seed=[0, 1, 2] instead")
        values[key] = list(cast("list[Any]", found))
    if not values:
        raise ConfigError("settings: no setting to vary; expected such as {'guidance.layout.gamma': [10, 30, 100]}")
    return [dict(zip(values, each, strict=True)) for each in product(*values.values())]


def varied(request: Request, settings: Mapping[str, Any], plugins: Plugins) -> Request:
    """A request with other settings, each by its name in a configuration.

    Raises:
        ConfigError: no such setting, or a value that it cannot have; or guidance of classes that no package registers.
    """
    sets = [f"{key}={json.dumps(plain(value))}" for key, value in settings.items()]
    config = replace(validate(apply_sets(request.config.as_dict(), sets), plugins), model=None)
    if request.initial:
        entry_step(request.strength, config.steps)
    return replace(request, config=config)
