"""The `config.json` of each network of a single file: sizes from shapes, the rest from a yaml beside it or the family's rule.

A neighbour yaml is what LDM and sgm train from; of it are read the number of heads, the kind of prediction, the scale of the
latents and the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ...framework.config.yaml_text import load_yaml
from ...framework.errors import CheckpointError
from .key_maps import Shape
from .recognise import Component

Shapes = Mapping[str, Shape]

SCALES: Mapping[str, float] = MappingProxyType({"sdxl": 0.13025})  # of latents, where it is not that of the first family
SCALE = 0.18215
HEADS = 8  # of Stable Diffusion 1 at every level; the later families fix the width of a head
HEAD_CHANNELS = 64  # also of every text tower of CLIP and OpenCLIP: 768 channels have 12 heads, 1024 have 16, 1280 have 20
SIDES: Mapping[tuple[str, str | None], int] = MappingProxyType({("sdxl", "eps"): 128, ("sdxl", "v"): 128, ("sd2", "v"): 96})
SIDE = 64
SIZE_CHANNELS, SIZES = 256, 6  # of SDXL's size conditioning, and how many numbers it has
SCALINGS = MappingProxyType({"EpsScaling": "eps", "VScaling": "v"})  # sgm's names
PREDICTIONS = MappingProxyType({"eps": "epsilon", "v": "v_prediction"})  # LDM's names, and diffusers'
ATTENTION_TYPES = MappingProxyType({"gligen": "gated", "gligen-text-image": "gated-text-image"})


@dataclass(frozen=True)
class Told:
    """What a yaml says that shapes do not; None where it does not. `text_heads`: of the text towers, in their order."""

    where: str = ""
    prediction: str | None = None
    heads: int | None = None
    head_channels: int | None = None
    scale: float | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    train_steps: int | None = None
    text_heads: tuple[int | None, ...] = ()


UNTOLD = Told()


def read_told(path: Path) -> Told:
    """What an LDM or sgm yaml tells.

    Raises:
        LsregenError: it cannot be read, or has a value that cannot be used.
    """
    where = str(path)
    model = _inner(load_yaml(path), "model", "params")
    network = _inner(model, "unet_config", "params") or _inner(model, "network_config", "params")
    scaling = _inner(model, "denoiser_config", "params", "scaling_config").get("target")
    given = model.get("parameterization")
    prediction = SCALINGS.get(str(scaling).rpartition(".")[2], str(scaling)) if scaling is not None else given
    if prediction not in (None, *PREDICTIONS):
        raise CheckpointError(f"{where}: the model predicts {prediction!r}; supported are {' and '.join(PREDICTIONS)}")
    return Told(
        where,
        cast("str | None", prediction),
        _number(network, "num_heads", where, int),
        _number(network, "num_head_channels", where, int),
        _number(model, "scale_factor", where, float),
        _number(model, "linear_start", where, float),
        _number(model, "linear_end", where, float),
        _number(model, "timesteps", where, int),
        tuple(_number(_inner(tower, "params"), "num_heads", where, int) for tower in _towers(model)),
    )


def _towers(model: Mapping[str, Any]) -> list[Any]:
    """What a yaml says of the text towers: LDM has one; sgm a list, among other embedders."""
    embedders: object = _inner(model, "conditioner_config", "params").get("emb_models")
    if isinstance(embedders, list):
        return cast("list[Any]", embedders)
    return [tower] if (tower := _inner(model, "cond_stage_config")) else []


def unet_values(family: str, prediction: str | None, components: Mapping[str, Component], told: Told) -> dict[str, Any]:
    """The `config.json` of the UNet among the components, as diffusers writes it.

    Raises:
        CheckpointError: its widths do not divide into heads, and no yaml says how many there are.
    """
    shapes = components["unet"].shapes
    levels = range(_count(shapes, "down_blocks"))
    widths = [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels]
    attended = [_has(shapes, f"down_blocks.{i}.attentions.") for i in levels]
    attended_up = [_has(shapes, f"up_blocks.{i}.attentions.") for i in levels]
    depths = [max(1, _count(shapes, f"down_blocks.{i}.attentions.0.transformer_blocks")) for i in levels]
    depths[-1] = max(1, _count(shapes, "mid_block.attentions.0.transformer_blocks"))  # the coarsest level has it in any case
    values: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in attended_up],
        "attention_head_dim": _heads(family, widths, told),
        "transformer_layers_per_block": depths,
        "cross_attention_dim": _ending(shapes, "attn2.to_k.weight")[1],
        "layers_per_block": _count(shapes, "down_blocks.0.resnets"),
        "use_linear_projection": len(_ending(shapes, ".proj_in.weight")) == 2,
        "attention_type": ATTENTION_TYPES.get(family, "default"),
        "sample_size": SIDES.get((family, prediction), SIDE),
    }
    if (added := shapes.get("add_embedding.linear_1.weight")) is not None:
        pooled = components["text_encoder_2"].shapes.get("text_projection.weight") if "text_encoder_2" in components else None
        values["addition_embed_type"] = "text_time"
        values["addition_time_embed_dim"] = SIZE_CHANNELS if pooled is None else (added[1] - pooled[0]) // SIZES
        values["projection_class_embeddings_input_dim"] = added[1]
    return values


def autoencoder_values(family: str, component: Component, told: Told) -> dict[str, Any]:
    """The `config.json` of an autoencoder; alone, it has no `scaling_factor`: that of the model that it is used with holds."""
    shapes = component.shapes
    levels = range(_count(shapes, "encoder.down_blocks"))
    values: dict[str, Any] = {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets"),
        "mid_block_add_attention": _has(shapes, "encoder.mid_block.attentions."),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "force_upcast": True,
    }
    scale = told.scale if told.scale is not None else None if family == "autoencoder" else SCALES.get(family, SCALE)
    return values if scale is None else {**values, "scaling_factor": scale}


def text_values(component: Component, told: Told = UNTOLD, place: int = 0) -> dict[str, Any]:
    """The `config.json` of a text tower. Its activation belongs to who trained it: OpenAI's CLIP (`quick_gelu`), or OpenCLIP.

    `place`: among the towers of its model.

    Raises:
        CheckpointError: its width does not divide into heads, and no yaml says how many there are.
    """
    shapes, projection = component.shapes, component.shapes.get("text_projection.weight")
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    return {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModel" if projection is None else "CLIPTextModelWithProjection"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers"),
        "num_attention_heads": _text_heads(width, told, place),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": "gelu" if component.naming == "open_clip" else "quick_gelu",
        "projection_dim": width if projection is None else projection[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": 2,  # as the published files say, which means: where the largest id is
        "pad_token_id": 1,
    }


def scheduler_values(prediction: str, zero_terminal_snr: bool, told: Told) -> dict[str, Any]:
    """The `scheduler_config.json` of a model; all families were trained on the same noise."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": told.train_steps or 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": told.beta_start or 0.00085,
        "beta_end": told.beta_end or 0.012,
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
        "prediction_type": PREDICTIONS[prediction],
        "rescale_betas_zero_snr": zero_terminal_snr,
        "timestep_spacing": "trailing" if zero_terminal_snr else "leading",
    }


def _heads(family: str, widths: list[int], told: Told) -> int | list[int]:
    """The number of heads, which is what diffusers calls `attention_head_dim`."""
    if told.heads is not None and told.head_channels is None:
        return told.heads
    if told.head_channels is None and family not in ("sd2", "sdxl"):
        return HEADS
    channels = told.head_channels or HEAD_CHANNELS
    if bad := [width for width in widths if width % channels]:
        raise CheckpointError(
            f"{told.where or family}: heads of {channels} channels do not divide a level of {bad[0]}; say their number in a yaml "
            "of the same name beside the file (model.params.unet_config.params.num_heads or num_head_channels)"
        )
    return [width // channels for width in widths]


def _text_heads(width: int, told: Told, place: int) -> int:
    given = told.text_heads[place] if place < len(told.text_heads) else None
    if given is None and width % HEAD_CHANNELS:
        raise CheckpointError(
            f"{told.where or 'text tower'}: heads of {HEAD_CHANNELS} channels do not divide a text tower of {width}; say their "
            "number in a yaml of the same name beside the file (model.params.cond_stage_config.params.num_heads, or in "
            "model.params.conditioner_config.params.emb_models)"
        )
    return given or width // HEAD_CHANNELS


def _inner(values: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; an empty one if there is none."""
    for key in path:
        values = cast("Mapping[str, Any]", values).get(key) if isinstance(values, Mapping) else None
    return cast("Mapping[str, Any]", values) if isinstance(values, Mapping) else {}


def _number(values: Mapping[str, Any], key: str, where: str, kind: type[Any]) -> Any:
    """A number above 0, or None where there is none; LDM writes -1 for a number that is not given."""
    value = values.get(key)
    if value is None or (value == -1 and key in ("num_heads", "num_head_channels")):
        return None
    if isinstance(value, bool) or not isinstance(value, int | kind) or not 0 < value < float("inf"):
        raise CheckpointError(f"{where}: {key} is {value!r}; expected a number above 0")
    return value


def _ending(shapes: Shapes, end: str) -> Shape:
    return next((shape for key, shape in shapes.items() if key.endswith(end)), (0, 0))


def _count(shapes: Shapes, block: str) -> int:
    """How many numbered children a module has."""
    return len({key.removeprefix(f"{block}.").split(".")[0] for key in shapes if key.startswith(f"{block}.")})


def _has(shapes: Shapes, start: str) -> bool:
    return any(key.startswith(start) for key in shapes)
