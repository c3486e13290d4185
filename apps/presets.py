"""`lsregen presets`: the published methods that come with lsregen, as data."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the guidance presets, or show the one called NAME as YAML, to change and use with --guidance FILE.yaml."""
    from ..framework.config.presets import load_preset, presets
    from ..framework.config.yaml_text import load_yaml

    if name is not None:
        config = load_preset(name)  # for its error, too: it names the nearest preset
        text = presets()[name].read_text(encoding="utf-8")
        click.echo(json.dumps(config, indent=2) if as_json else text, nl=as_json)
        return
    found = {each: load_yaml(path) for each, path in presets().items()}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for each, config in found.items():
        click.echo(each)
        for key in ("description", "source"):
            click.echo(f"    {config.get(key) or f'no {key}'}")
