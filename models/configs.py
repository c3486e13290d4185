"""Between the `config.json` of diffusers and the configs of our networks, both ways.

What a network of ours does not do is refused by key and value: weights would load, and compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from ..framework.errors import CheckpointError
from ..framework.types import NoiseSchedule
from .autoencoder import AutoencoderConfig
from .unet import UNetConfig

log = logging.getLogger(__name__)

Values: TypeAlias = Mapping[str, Any]

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
DOWN_BLOCKS = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}  # type -> whether it has attention
UP_BLOCKS = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}

# Values that leave our networks as they are. The first one is diffusers' default, which also stands for an absent key.
UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu", "swish"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
UNET_READ = (
    "in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types", "attention_head_dim",
    "transformer_layers_per_block", "cross_attention_dim", "layers_per_block", "norm_num_groups", "norm_eps",
    "use_linear_projection", "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
    "sample_size",
)  # fmt: skip
# Without effect here: nothing is dropped out at inference, and tapped attention is computed in fp32 anyway.
UNET_IGNORED = ("dropout", "upcast_attention", "addition_embed_type_num_heads")

AUTOENCODER_FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "shift_factor": (None, 0),
}
AUTOENCODER_READ = tuple(field.name for field in fields(AutoencoderConfig))
AUTOENCODER_IGNORED = ("sample_size", "down_block_types", "up_block_types")  # the latter two are checked apart

SCHEDULER_FIXED: Mapping[str, tuple[Any, ...]] = {"trained_betas": (None,), "thresholding": (False,)}


def unet_config(values: Values, where: str) -> UNetConfig:
    """The UNet that a `config.json` describes.

    Raises:
        CheckpointError: a setting that the network does not support, or sizes that do not fit together.
    """
    _refuse(values, UNET_FIXED, where)
    _warn_of_unknown({k: v for k, v in values.items() if k not in UNET_IGNORED}, (*UNET_FIXED, *UNET_READ), where)
    widths = _ints(values, "block_out_channels", (320, 640, 1280, 1280), where)
    levels = len(widths)
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return UNetConfig(
        in_channels=values.get("in_channels", 4),
        out_channels=values.get("out_channels", 4),
        widths=widths,
        attention_down=_blocks(values.get("down_block_types", down), DOWN_BLOCKS, "down_block_types", where),
        attention_up=_blocks(values.get("up_block_types", up), UP_BLOCKS, "up_block_types", where)[::-1],  # listed coarse to fine
        heads=_per_level(values, "attention_head_dim", 8, levels, where),  # a historic misnomer: the number of heads
        depths=_per_level(values, "transformer_layers_per_block", 1, levels, where),
        context_channels=_same(values, "cross_attention_dim", 1280, where),
        layers_per_block=_same(values, "layers_per_block", 2, where),
        groups=values.get("norm_num_groups", 32),
        eps=values.get("norm_eps", 1e-5),
        linear_projection=bool(values.get("use_linear_projection", False)),
        **_added(values, where),
    )


def unet_values(config: UNetConfig, sample_size: int) -> dict[str, Any]:
    """The `config.json` of a UNet as diffusers writes it. `sample_size`: latent cells per side of its training images."""
    down, up = ({has: name for name, has in names.items()} for names in (DOWN_BLOCKS, UP_BLOCKS))
    return {
        **{key: allowed[0] for key, allowed in UNET_FIXED.items()},
        "sample_size": sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.widths),
        "down_block_types": [down[has] for has in config.attention_down],
        "up_block_types": [up[has] for has in reversed(config.attention_up)],
        "attention_head_dim": list(config.heads),
        "transformer_layers_per_block": list(config.depths),
        "cross_attention_dim": config.context_channels,
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.groups,
        "norm_eps": config.eps,
        "use_linear_projection": config.linear_projection,
        "addition_embed_type": None if config.added_channels is None else "text_time",
        "addition_time_embed_dim": config.size_channels,
        "projection_class_embeddings_input_dim": config.added_channels,
    }


def sample_size(values: Values) -> tuple[int, int]:
    """Height and width, in latent cells, of the images that a UNet was trained on."""
    size = values.get("sample_size") or 64
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def autoencoder_config(values: Values, where: str) -> AutoencoderConfig:
    """The autoencoder that a `config.json` describes.

    Raises:
        CheckpointError: a setting that the network does not support.
    """
    _refuse(values, AUTOENCODER_FIXED, where)
    _warn_of_unknown(values, (*AUTOENCODER_FIXED, *AUTOENCODER_READ, *AUTOENCODER_IGNORED), where)
    levels = len(values.get("block_out_channels", (64,)))
    for key, known in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        given = values.get(key, (known,))
        if list(given) != [known] * levels:
            raise CheckpointError(f"{where}: {key} is {list(given)}; supported is {known} at each of the {levels} levels")
    given = {key: values[key] for key in AUTOENCODER_READ if values.get(key) is not None}
    given["block_out_channels"] = _ints(values, "block_out_channels", (64,), where)
    return AutoencoderConfig(**given)


def autoencoder_values(config: AutoencoderConfig) -> dict[str, Any]:
    """The `config.json` of an autoencoder as diffusers writes it."""
    levels = len(config.block_out_channels)
    return {
        **{key: allowed[0] for key, allowed in AUTOENCODER_FIXED.items()},
        **{key: getattr(config, key) for key in AUTOENCODER_READ},
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def noise_schedule(values: Values, where: str) -> NoiseSchedule:
    """The noise that a `scheduler_config.json` says the model was trained with, whichever sampler class wrote it.

    Raises:
        CheckpointError: a schedule that the samplers cannot follow.
    """
    name = str(values.get("_class_name", ""))
    if name.startswith(("FlowMatch", "EDM")):
        raise CheckpointError(f"{where}: _class_name is {name!r}; supported are models trained on a schedule of betas")
    _refuse(values, SCHEDULER_FIXED, where)
    # Absent keys mean what they mean to the class that wrote the file: only these two clip by default.
    clips = values.get("clip_sample", name in ("DDIMScheduler", "DDPMScheduler"))
    schedule = NoiseSchedule(
        train_steps=values.get("num_train_timesteps", 1000),
        beta_start=values.get("beta_start", 0.0001),
        beta_end=values.get("beta_end", 0.02),
        beta_schedule=values.get("beta_schedule", "linear"),
        spacing=values.get("timestep_spacing", "leading"),
        steps_offset=values.get("steps_offset", 0),
        final_alpha_one=values.get("set_alpha_to_one", name != "PNDMScheduler"),
        zero_terminal_snr=values.get("rescale_betas_zero_snr", False),
        clip_sample=float(values.get("clip_sample_range", 1.0)) if clips else 0.0,
    )
    if schedule.zero_terminal_snr and prediction_kind(values, where) == "eps":
        raise CheckpointError(
            f"{where}: rescale_betas_zero_snr is true with prediction_type 'epsilon'; where no signal is left, the noise says "
            "nothing of the image, so it needs 'v_prediction'"
        )
    return schedule


def prediction_kind(values: Values, where: str) -> str:
    """What the network predicts, by its `scheduler_config.json`: `eps` or `v`."""
    given = values.get("prediction_type", "epsilon")
    if given not in PREDICTIONS:
        raise CheckpointError(f"{where}: prediction_type is {given!r}; supported are {', '.join(PREDICTIONS)}")
    return PREDICTIONS[given]


def scheduler_values(schedule: NoiseSchedule, prediction: str) -> dict[str, Any]:
    """A `scheduler_config.json` of diffusers' DDIM. `prediction`: `eps` or `v`."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.train_steps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": schedule.beta_schedule,
        "timestep_spacing": schedule.spacing,
        "steps_offset": schedule.steps_offset,
        "set_alpha_to_one": schedule.final_alpha_one,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "clip_sample": schedule.clip_sample > 0,
        "clip_sample_range": schedule.clip_sample or 1.0,
        "prediction_type": {kind: name for name, kind in PREDICTIONS.items()}[prediction],
        "trained_betas": None,
        "thresholding": False,
    }


def _refuse(values: Values, fixed: Mapping[str, tuple[Any, ...]], where: str) -> None:
    """Refuse every setting that asks for something else than what our networks do; all of them in one error."""
    bad = [
        f"{key} is {values[key]!r} (supported: {' or '.join(map(repr, allowed))})"
        for key, allowed in fixed.items()
        if key in values and values[key] not in allowed
    ]
    if bad:
        raise CheckpointError(f"{where}: {'; '.join(bad)}")


def _warn_of_unknown(values: Values, known: Sequence[str], where: str) -> None:
    # As in diffusers: a key that nobody knows cannot have shaped the network.
    unknown = [key for key, value in values.items() if key not in known and not key.startswith("_") and value is not None]
    if unknown:
        log.warning("%s: ignored settings that are not known: %s", where, ", ".join(sorted(unknown)))


def _blocks(given: Sequence[str], known: Mapping[str, bool], key: str, where: str) -> tuple[bool, ...]:
    for name in given:
        if name not in known:
            raise CheckpointError(f"{where}: {key} has {name!r}; supported are {', '.join(known)}")
    return tuple(known[name] for name in given)


def _ints(values: Values, key: str, default: tuple[int, ...], where: str) -> tuple[int, ...]:
    given = values.get(key, default)
    items: list[object] = list(given) if isinstance(given, (list, tuple)) else []  # pyright: ignore[reportUnknownArgumentType]
    numbers = tuple(item for item in items if isinstance(item, int))
    if not numbers or len(numbers) != len(items):
        raise CheckpointError(f"{where}: {key} is {given!r}; supported is a list of numbers, one per level")
    return numbers


def _per_level(values: Values, key: str, default: int, levels: int, where: str) -> tuple[int, ...]:
    """A setting that may be one number for all levels."""
    given = values.get(key, default)
    return (given,) * levels if isinstance(given, int) else _ints(values, key, (), where)


def _same(values: Values, key: str, default: int, where: str) -> int:
    """A setting that may be a list, but only of equal numbers."""
    given = values.get(key, default)
    numbers = (given,) if isinstance(given, int) else _ints(values, key, (), where)
    if len(set(numbers)) != 1:
        raise CheckpointError(f"{where}: {key} is {list(numbers)}; supported is one number for all levels")
    return numbers[0]


def _added(values: Values, where: str) -> dict[str, Any]:
    """SDXL's second conditioning."""
    kind = values.get("addition_embed_type")
    if kind is None:
        return {}
    if kind != "text_time":
        raise CheckpointError(f"{where}: addition_embed_type is {kind!r} (supported: None or 'text_time')")
    return {
        "added_channels": values.get("projection_class_embeddings_input_dim"),
        "size_channels": values.get("addition_time_embed_dim"),
    }
