"""What the commands of `lsregen evaluate` share: places that are looked at first, results as JSON, progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any, cast

import click

from ...evaluation.tables.markdown import FORMAT
from ...framework.errors import ConfigError, counted
from ...framework.files import look, shortened
from ..checks import check_folder
from ..output import OutputError, claim, write_json

EXTRA = {"scipy": "scipy", "faster_coco_eval": "faster-coco-eval"}
"""What the extra `eval` brings, by the name it is imported under."""

PLOTS = (".png", ".svg", ".pdf")
SILENCE = 60
"""Seconds between two lines about progress where there is no terminal."""


def require_extra(packages: Mapping[str, str] | None = None) -> None:
    """Refuse to begin without the packages that measure. `packages`: by the name they are imported under; `EXTRA` by default.

    Raises:
        ConfigError: one of them is not installed.
    """
    if missing := [package for module, package in (EXTRA if packages is None else packages).items() if find_spec(module) is None]:
        raise ConfigError(f"evaluation needs {' and '.join(missing)}; install them with: pip install {' '.join(missing)}")


def check_result(path: Path) -> None:
    """Find out before an hour of work that its result cannot be written."""
    check_file(path, "--json", "such as result.json")
    claim([path], FORMAT, "choose another --json")


def check_file(path: Path, asked: str, such: str) -> None:
    """Find out that no file can be at a path; nothing is made yet. `asked`: the option that names it. `such`: an example.

    Raises:
        OutputError: something other than a file is there, or its folder cannot be written to.
    """
    place = look(path)
    if place.kind == "folder":
        raise OutputError(f"{asked} {str(path)!r}: is a folder; expected a file, {such}")
    if place.kind != "file" and not place.free:
        raise OutputError(f"{asked} {shortened(path)!r}: cannot be written ({place.said}); choose another file, {such}")
    check_folder(path.parent, asked)


def write_result(path: Path, data: Mapping[str, Any]) -> None:
    """Write a result; another one that was there is kept beside it, and that is said.

    Raises:
        ConfigError: it holds a number that is not finite, which JSON does not know.
    """
    if (where := not_finite(data)) is not None:
        raise ConfigError(f"the result cannot be written: {where} is not a finite number; are the weights that measured damaged?")
    if (aside := write_json(path, data, keep=True)) is not None:
        click.echo(f"{path} held another result, which is kept as {aside}", err=True)


def not_finite(data: object, path: str = "") -> str | None:
    """Where in plain values a number stands that is nan or infinite; None if there is none."""
    if isinstance(data, float):
        return None if isfinite(data) else path
    if isinstance(data, Mapping):
        inner = [(f"{path}.{key}" if path else str(key), value) for key, value in cast("Mapping[Any, object]", data).items()]
    elif isinstance(data, list | tuple):
        inner = [(f"{path}[{i}]", value) for i, value in enumerate(cast("Sequence[object]", data))]
    else:
        return None
    return next((found for at, value in inner if (found := not_finite(value, at)) is not None), None)


def check_plot(path: Path, asked: str, kinds: Sequence[str] = PLOTS) -> str:
    """Find out before an hour of work that a plot cannot be drawn there; returns its kind, such as png.

    `asked`: the option that names it.
    """
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"{asked} {str(path)!r}: expected a name that ends in {', '.join(kinds)}")
    check_file(path, asked, f"such as plot{kinds[0]}")
    require_extra({"matplotlib": "matplotlib"})
    return path.suffix.lower().removeprefix(".")


@contextmanager
def progress(total: int, label: str, unit: str = "image") -> Generator[Callable[[int], None], None, None]:
    """A bar on a terminal; elsewhere, such as in a log, a line a minute."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, disable=None) as bar:
        done, said = 0, monotonic()

        def advance(count: int) -> None:
            nonlocal done, said
            bar.update(count)
            done += count
            if bar.disable and monotonic() - said >= SILENCE:
                said = monotonic()
                click.echo(f"{label}: {done} of {counted(total, unit)}", err=True)

        yield advance
