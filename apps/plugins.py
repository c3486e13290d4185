"""`lsregen plugins`: what is installed, from which package, with its options; and what failed to load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .streams import stdout_kept

if TYPE_CHECKING:
    from ..framework.config.options import Option
    from ..framework.plugins.registry import Plugins, Registered


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(as_json: bool) -> None:
    """List extractors, distances, samplers, models, detectors and engines, with their options."""
    from ..framework.plugins.registry import discover

    with stdout_kept() as echo:
        plugins = discover()
        echo(json.dumps(as_dict(plugins), indent=2) if as_json else "\n".join(listing(plugins)))


def as_dict(plugins: Plugins) -> dict[str, Any]:
    """Everything about all plugins, as plain JSON types."""
    return {
        "plugins": [
            {
                "kind": plugin.kind,
                "name": plugin.name,
                "package": plugin.package,
                "version": plugin.version,
                "help": help_of(plugin),
                **({"embedded": sorted(plugin.cls.embedded)} if plugin.kind == "model" else {}),
                "options": [asdict(option) for option in options_of(plugin)],
            }
            for plugin in plugins.all()
        ],
        "terms": [asdict(option) for option in schedule_options()],
        "broken": [asdict(broken) for broken in plugins.broken],
    }


def listing(plugins: Plugins) -> Iterator[str]:
    """The same for people, line by line."""
    kinds: Mapping[str, Mapping[str, Registered]] = {
        "extractors": plugins.extractors,
        "distances": plugins.distances,
        "samplers": plugins.samplers,
        "models": plugins.models,
        "detectors": plugins.detectors,
        "engines": plugins.engines,
    }
    for kind, table in kinds.items():
        yield f"{kind}{':' if table else ': none'}"
        for _, plugin in sorted(table.items()):
            yield from _lines(plugin)
        yield ""
    yield "every term of a guidance:"
    yield from _option_lines(schedule_options())
    yield ""
    for broken in plugins.broken:
        yield f"not loaded: {broken}"


def schedule_options() -> tuple[Option, ...]:
    """The options of every term, whatever its extractor and distance."""
    from ..framework.config.options import describe_options
    from ..framework.guidance.schedule import Schedule

    return describe_options(Schedule)


def _lines(plugin: Registered) -> Iterator[str]:
    summary = help_of(plugin)
    yield f"  {plugin.name} ({plugin.package} {plugin.version}){': ' if summary else ''}{summary}"
    if plugin.kind == "model" and plugin.cls.embedded:
        yield f"      ships with: {', '.join(sorted(plugin.cls.embedded))}"
    yield from _option_lines(options_of(plugin))


def _option_lines(options: Sequence[Option]) -> Iterator[str]:
    column = max((len(_setting(option)) for option in options), default=0)
    for option in options:
        yield f"      {_setting(option):<{min(column, 40)}}  {option.help} [{option.type}]".rstrip()


def _setting(option: Option) -> str:
    return f"{option.key}={json.dumps(option.default)}"


def help_of(plugin: Registered) -> str:
    """The first sentence of a plugin's docstring, on one line."""
    cls = plugin.cls if isinstance(plugin.cls, type) else type(plugin.cls)
    paragraph = (cls.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split())


def options_of(plugin: Registered) -> tuple[Option, ...]:
    """The options that a configuration can set; a model has none."""
    from ..framework.config.options import describe_options

    return describe_options(plugin.cls) if plugin.kind != "model" else ()
