"""The presets of installed packages, as configurations by their names."""

from __future__ import annotations

from pathlib import Path

from ..plugins.registry import discover
from .arguments import checked
from .merging import Config
from .yaml_text import load_yaml

DEFAULT_MODEL = "shapeworld-base"


def presets() -> dict[str, Path]:
    """The YAML files of all presets, by name."""
    return {name: preset.path for name, preset in discover().presets.items()}


@checked
def load_preset(name: str) -> Config:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of this name.
    """
    return load_yaml(discover().preset(name).path)
