"""`lsregen tokens`: how a model splits a prompt."""

from __future__ import annotations

import click

from .option_types import NAME
from .streams import stdout_kept


@click.command()
@click.argument("prompt")
@click.option(
    "--model", type=NAME, metavar="NAME|DIR", help="A model that ships with lsregen, or a folder. [default: shapeworld-base]"
)
def command(prompt: str, model: str | None) -> None:
    """Show how a model splits PROMPT into tokens, with the characters that each of them stands for."""
    from .checks import check_model, check_text, memory_errors

    check_text("PROMPT", prompt, needed=True)
    if model is not None:
        check_model(model)
    from ..framework.pipeline.pipeline import DEFAULT_MODEL, Pipeline
    from ..framework.plugins.registry import discover

    with stdout_kept() as echo:
        plugins, model = discover(), model or DEFAULT_MODEL
        check_model(model, plugins)
        with memory_errors("for the model", "use a smaller --model"):
            pipeline = Pipeline.load(model, device="cpu", plugins=plugins)
        echo(pipeline.model.tokens(prompt).render())
