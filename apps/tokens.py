"""`lsregen tokens`: how a model splits a prompt."""

from __future__ import annotations

import click


@click.command()
@click.argument("prompt")
@click.option("--model", metavar="NAME|DIR", help="A model that ships with lsregen, or a folder. [default: shapeworld-base]")
def command(prompt: str, model: str | None) -> None:
    """Show how a model splits PROMPT into tokens, with the characters that each of them stands for."""
    from ..framework.errors import ConfigError
    from ..framework.pipeline import DEFAULT_MODEL, Pipeline

    if not prompt.strip():
        raise ConfigError(f"prompt {prompt!r} is empty; give the words to split, such as 'a red circle'")
    click.echo(Pipeline.load(model or DEFAULT_MODEL, device="cpu").model.tokens(prompt).render())
