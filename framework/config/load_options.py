"""How a model is loaded: the one place where these options are written, for Python, loaders, the command line and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from .constraints import Range, Share, Text
from .options import build, check_options, convert, option

DType: TypeAlias = Literal["auto", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16"]
Memory: TypeAlias = Literal["fast", "balanced", "low"]
When: TypeAlias = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class LoadOptions:
    """What `Pipeline.load` and the command line say of a model besides its name; a loader gets it whole.

    `device`, `dtype` and `revision` are for every model; a loader names the others that it takes (`ModelLoader.takes`).

    Raises:
        ConfigError: a value of another type, or out of its range.
    """

    device: Text = option("auto", "where it runs: cpu, cuda, cuda:1, mps; auto is the best there is")
    dtype: DType = option("auto", "what it computes in; auto is fp16 on cuda, else fp32")
    revision: Text | None = option(None, "of a model of the hub: a branch, a tag or a commit; else main")
    variant: Text | None = option(None, "of a folder's weights, such as fp16; else the plain ones, or any")
    vae: Path | None = option(None, "another autoencoder: a safetensors file, or a folder of diffusers")
    family: Text | None = option(None, "of a single file, if it is not what it looks like: sd1, sd2, sdxl")
    prediction_type: Text | None = option(None, "if the model's files do not say it right: epsilon, v_prediction")
    grounding: Share | None = option(
        None, "of a GLIGEN model: the share of the steps, from the first, in which it sees the boxes; else its own, mostly 0.3"
    )
    memory: Memory = option(
        "fast",
        "how much a guided pass keeps in memory: fast keeps nearly all of its intermediate results, low keeps few; less memory "
        "takes more time (low: a third), and the image is the same",
    )
    tiling: When = option(
        "auto",
        "whether the autoencoder takes images piece by piece, for less memory and the same image: those of more than 1536x1536 "
        "pixels, all, none",
    )
    tile: Annotated[int, Range(16)] | None = option(None, "how much at once: the side of a square in pixels; else 768")
    offload: bool = option(False, "keep the networks in the CPU's memory, and bring each to the device only while it is needed")

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LoadOptions:
        """The options that are given by name; those that are None are left out.

        Raises:
            ConfigError: every unknown option and wrong value at once, one line each.
        """
        named: Mapping[str, Any] = convert(given, Mapping[str, Any], "options")
        return build(cls, {name: value for name, value in named.items() if value is not None}, "", "a model")

    def changed(self) -> tuple[str, ...]:
        """The names of the options that are not at their defaults."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != f.default)
