"""What a path is that is no model, for whoever takes it for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from ...framework.errors import CheckpointError
from ...framework.files import is_file, is_folder, is_there, look
from .headers import absent, foreign, read_json
from .names import INDEX, PICKLES, SAFE

AUTOENCODER = "AutoencoderKL"
SHOWN = 3  # names of files


def explain(path: Path) -> str | None:
    """What a path is that is no model, and what to do about it, in words; None if nothing can be said."""
    place = look(path)
    if place.kind == "file":
        return foreign(path) if path.stat().st_size else None
    if place.kind != "folder":
        return place.said
    if os.path.islink(path / INDEX) or is_there(path / INDEX):
        return f"its {INDEX}: {absent(path / INDEX)}"
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "the folder is empty"
    if {"blobs", "snapshots"} <= set(names):
        return _cached(path)
    if kind := _component(path):
        above = f"; the whole model is {path.parent}" if is_file(path.parent / INDEX) else ""
        use = "; give it to a model with --vae" if kind == AUTOENCODER else ""
        return f"this is one component ({kind}), not a whole model{above or use}"
    if {"unet", "vae"} <= set(names):
        return f"it has the components of a model, but no {INDEX}; download that too"
    if files := [name for name in names if Path(name).suffix.lower() in (SAFE, *PICKLES)]:
        return f"it holds {', '.join(files[:SHOWN])}; give the path of the file itself"
    return f"it holds {', '.join(names[:SHOWN])}"


def _cached(path: Path) -> str:
    """What is said of the folder of a repository in the hub's cache, which holds a folder for every commit."""
    kind, *names = path.name.split("--")
    name = f" by its name, {'/'.join(names)}, or" if kind == "models" and len(names) == 2 else ""
    snapshots = path / "snapshots"
    commits = sorted(one.name for one in snapshots.iterdir()) if is_folder(snapshots) else []
    place = snapshots / (commits[0] if commits else "COMMIT")
    return f"it is a repository in the hub's cache; give the model{name} by the folder {place}"


def _component(path: Path) -> str | None:
    """The class of the network whose folder this is, by its `config.json`."""
    if not is_file(path / "config.json"):
        return None
    try:
        values = read_json(path / "config.json")
    except CheckpointError:
        return None
    listed: object = values.get("architectures")
    first = next(iter(cast("list[object]", listed)), None) if isinstance(listed, list) else None
    return str(values.get("_class_name") or first or "its config.json does not name it")
