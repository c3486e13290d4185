"""`lsregen inspect`: what a model's files are, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .option_types import NAME
from .streams import stdout_kept

if TYPE_CHECKING:
    from ..framework.plugins.inspection import Component, Inspection


@click.command()
@click.argument("model", type=NAME, metavar="PATH|NAME")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(model: str, as_json: bool) -> None:
    """Tell what the model at PATH is, a folder of diffusers or a file of weights: nothing is loaded, and nothing in it is run.

    \b
    lsregen inspect shapeworld-base
    lsregen inspect v1-5-pruned-emaonly.safetensors
    """
    from ..framework.plugins.registry import discover

    with stdout_kept() as echo:
        found = discover().inspect_model(model)
        echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(listing(found)))


def listing(found: Inspection) -> Iterator[str]:
    """The same for people, line by line."""
    yield str(found.path)
    yield f"  form        {found.form}"
    yield f"  family      {found.family}: {found.title}{_why(found, 'family')}"
    if found.prediction is not None:
        yield f"  prediction  {found.prediction}{_why(found, 'prediction')}"
    if found.components:
        yield "  components"
        width = max(len(component.name) for component in found.components)
        yield from (f"    {component.name:<{width}}  {_component(component)}" for component in found.components)
    yield from (f"  note        {note}" for note in found.notes)
    yield from (f"  missing     {one}" for one in found.missing)
    if found.refusal is not None:
        yield f"  not loaded  {found.refusal}"
    if found.loads:
        yield f"  loads with  lsregen generate --model {found.path}"


def _why(found: Inspection, fact: str) -> str:
    return f" (by {found.learnt[fact]})" if fact in found.learnt else ""


def _component(component: Component) -> str:
    return f"{component.parameters:>13,} parameters  {', '.join(component.dtypes)}  in the names of {component.naming}"
