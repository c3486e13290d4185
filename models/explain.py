"""What a path is that is no model, for whoever takes it for one."""

from __future__ import annotations

from pathlib import Path

from ..framework.errors import CheckpointError
from . import INDEX, PICKLES, SAFE
from .headers import read_json

AUTOENCODER = "AutoencoderKL"
SHOWN = 3  # names of files


def explain(path: Path) -> str | None:
    """What a folder is that has no index, and what to do about it, in words; None if nothing can be said."""
    if not path.is_dir():
        return None
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "the folder is empty"
    if kind := _component(path):
        above = f"; the whole model is {path.parent}" if (path.parent / INDEX).is_file() else ""
        use = "; give it to a model with --vae" if kind == AUTOENCODER else ""
        return f"this is one component ({kind}), not a whole model{above or use}"
    if {"unet", "vae"} <= set(names):
        return f"it has the components of a model, but no {INDEX}; download that too"
    if files := [name for name in names if Path(name).suffix.lower() in (SAFE, *PICKLES)]:
        return f"it holds {', '.join(files[:SHOWN])}; give the path of the file itself"
    return f"it holds {', '.join(names[:SHOWN])}"


def _component(path: Path) -> str | None:
    """The class of the network whose folder this is, by its `config.json`."""
    if not (path / "config.json").is_file():
        return None
    try:
        values = read_json(path / "config.json")
    except CheckpointError:
        return None
    return str(values.get("_class_name") or next(iter(values.get("architectures") or ()), "its config.json does not name it"))
