"""The options of `lsregen generate` that say which model is loaded, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..option_types import NAME, PATH, Finite

OPTIONS = (
    click.option(
        "--model",
        type=NAME,
        metavar="NAME|PATH|OWNER/NAME",
        help="A model that ships with lsregen, a folder of diffusers, a safetensors file, or a model of the Hugging Face hub. "
        "[default: shapeworld-base]",
    ),
    click.option(
        "--revision", type=NAME, metavar="NAME", help="Of a model of the hub: a branch, a tag or a commit. [default: main]"
    ),
    click.option("--variant", metavar="NAME", help="Of a folder's weights: fp16, ... [default: the plain ones, else any]"),
    click.option("--vae", type=PATH, metavar="PATH", help="Another autoencoder: a safetensors file, or a folder of diffusers."),
    click.option(
        "--family", type=NAME, metavar="NAME", help="Of a single file, if it is not what it looks like: sd1, sd2, sdxl."
    ),
    click.option(
        "--prediction-type", type=NAME, metavar="NAME", help="If the model's files do not say it right: epsilon, v_prediction."
    ),
    click.option(
        "--grounding",
        type=Finite(0, 1),
        metavar="SHARE",
        help="Of a GLIGEN model: in which share of the steps, from the first, it sees the boxes. [default: its own, mostly 0.3]",
    ),
    click.option(
        "--memory",
        type=NAME,
        metavar="fast|balanced|low",
        help="How much a guided pass keeps in memory: fast keeps nearly all of its intermediate results, low keeps few. Less "
        "memory takes more time; the picture is the same. [default: fast]",
    ),
    click.option(
        "--tiling",
        type=NAME,
        metavar="auto|on|off",
        help="Whether the autoencoder takes pictures piece by piece, for less memory and the same picture: those of more than "
        "1536x1536 pixels, all, none. [default: auto]",
    ),
    click.option("--tile", type=int, metavar="N", help="So much at once: the side of a square in pixels. [default: 768]"),
    click.option(
        "--offload",
        is_flag=True,
        default=None,
        help="Keep the networks in the CPU's memory, and bring each to the device only while it is needed.",
    ),
)
LOADED = ("revision", "variant", "vae", "family", "prediction_type", "grounding", "memory", "tiling", "tile", "offload")
"""Those that are arguments of `Pipeline.load`; None where nothing was said."""


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
