"""The presets: published methods as YAML, by their names."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, nearest, shown
from .arguments import checked
from .merging import Config
from .yaml_text import load_yaml

HOME = Path(__file__).parents[1] / "presets"
DEFAULT_MODEL = "shapeworld-base"


def presets() -> dict[str, Path]:
    """The published methods that ship with the package, by name."""
    return {path.stem: path for path in sorted(HOME.glob("*.yaml"))}


@checked
def load_preset(name: str) -> Config:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of this name.
    """
    known = presets()
    if name not in known:
        raise ConfigError(
            f"guidance {shown(name)}: no such preset{nearest(name, known)}; presets: {', '.join(known)}; or none, or a file "
            "ending in .yaml"
        )
    return load_yaml(known[name])
