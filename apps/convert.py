"""`lsregen convert`: a model's file, a pickle too, or a folder of pickles, written as a folder of safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from ..framework.errors import ConfigError
from ..framework.files import look, shortened
from .checks import check_folder, memory_errors
from .field_options import load_options
from .option_types import PATH


@click.command()
@click.argument("source", metavar="IN", type=PATH)
@click.argument("out", metavar="OUT", type=PATH)
@load_options("family", "prediction_type")
def command(source: Path, out: Path, family: str | None, prediction_type: str | None) -> None:
    """Write the model in the file IN (.safetensors, .ckpt, .pt, .bin) as the folder OUT, in the layout of diffusers with
    safetensors; or that in the folder IN of diffusers, whose weights are pickles (.bin).

    A pickle is read by a restricted reader, and nothing in it is run. Numbers stay as they are.

    \b
    lsregen convert diffusion_pytorch_model.bin gligen
    lsregen generate --model gligen ...
    """
    from ..framework.plugins.registry import discover

    if (place := look(source)).kind not in ("file", "folder"):
        raise ConfigError(
            f"{shortened(source)}: {place.said}; expected a file of weights, such as model.ckpt, or a folder of diffusers"
        )
    check_folder(out.parent)
    with memory_errors("to convert it", "close other programs"):
        todo = discover().convert_model(source, out, family=family, prediction_type=prediction_type)
    click.echo(str(out))
    for one in todo:
        click.echo(f"Still to be done: {one}", err=True)
