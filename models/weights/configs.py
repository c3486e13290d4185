"""Between the `config.json` of diffusers and the configs of our networks, both ways.

What a network of ours does not do is refused by key and value: weights would load, and compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...framework.errors import CheckpointError
from ...framework.types import NoiseSchedule
from ..networks.autoencoder import AutoencoderConfig
from ..networks.gligen import Grounded
from ..networks.unet import UNetConfig
from .settings import LAYERS, SIDE, STEPS, Settings, Values

log = logging.getLogger(__name__)

BLOCKS = 1024  # transformer blocks in the upper half of a UNet; the largest published one has 36
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
DOWN_BLOCKS = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}  # type -> whether it has attention
GROUNDED: Mapping[str, Grounded | None] = {"default": None, "gated": "text", "gated-text-image": "text-image"}
UP_BLOCKS = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}

# Values that leave our networks as they are. The first one is diffusers' default, which also stands for an absent key.
UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu", "swish"),
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
    "sample_size", "attention_type",
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
    """The UNet that a `config.json` describes. `where`: the file, for the messages.

    Raises:
        CheckpointError: a setting that the network does not support, of a wrong type, or sizes that do not fit together.
    """
    _refuse(values, UNET_FIXED, where)
    _warn_of_unknown({k: v for k, v in values.items() if k not in UNET_IGNORED}, (*UNET_FIXED, *UNET_READ), where)
    given = Settings(values, where)
    widths = given.wholes("block_out_channels", (320, 640, 1280, 1280))
    levels, cross, plain = len(widths), "CrossAttnDownBlock2D", "DownBlock2D"
    down = given.texts("down_block_types", (cross, cross, cross, plain), tuple(DOWN_BLOCKS), levels)
    up_default = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
    up = given.texts("up_block_types", up_default, tuple(UP_BLOCKS), levels)
    sizes: dict[str, Any] = {
        "in_channels": given.whole("in_channels", 4),
        "out_channels": given.whole("out_channels", 4),
        "widths": widths,
        "attention_down": tuple(DOWN_BLOCKS[name] for name in down),
        "attention_up": tuple(UP_BLOCKS[name] for name in reversed(up)),  # listed coarse to fine
        "heads": given.per_level("attention_head_dim", 8, levels),  # a historic misnomer: the number of heads
        "depths": given.per_level("transformer_layers_per_block", 1, levels, low=0, high=LAYERS),
        "context_channels": given.same("cross_attention_dim", 1280),
        "layers_per_block": given.same("layers_per_block", 2, high=LAYERS),
        "groups": given.whole("norm_num_groups", 32),
        "eps": given.number("norm_eps", 1e-5),
        "linear_projection": given.flag("use_linear_projection", False),
        "grounded": GROUNDED[given.text("attention_type", "default", tuple(GROUNDED))],
        **_added(given),
    }
    if (blocks := (sizes["layers_per_block"] + 1) * sum(sizes["depths"])) > BLOCKS:
        layers, depths = sizes["layers_per_block"], list(sizes["depths"])
        raise CheckpointError(
            f"{where}: transformer_layers_per_block {depths} with layers_per_block {layers} make {blocks} transformer blocks on "
            f"the way up; expected at most {BLOCKS}"
        )
    try:
        return UNetConfig(**sizes)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None


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
        "attention_type": next(name for name, grounded in GROUNDED.items() if grounded == config.grounded),
        "addition_embed_type": None if config.added_channels is None else "text_time",
        "addition_time_embed_dim": config.size_channels,
        "projection_class_embeddings_input_dim": config.added_channels,
    }


def sample_size(values: Values, where: str) -> tuple[int, int]:
    """Height and width, in latent cells, of the images that a UNet was trained on.

    Raises:
        CheckpointError: it is neither a positive whole number nor two of them.
    """
    given = Settings(values, where)
    if isinstance(values.get("sample_size"), list | tuple):
        height, width = given.wholes("sample_size", (), count=2, high=SIDE)
        return height, width
    side = given.whole("sample_size", 64, high=SIDE)
    return side, side


def autoencoder_config(values: Values, where: str) -> AutoencoderConfig:
    """The autoencoder that a `config.json` describes. `where`: the file, for the messages.

    Raises:
        CheckpointError: a setting that the network does not support, of a wrong type, or sizes that do not fit together.
    """
    _refuse(values, AUTOENCODER_FIXED, where)
    _warn_of_unknown(values, (*AUTOENCODER_FIXED, *AUTOENCODER_READ, *AUTOENCODER_IGNORED), where)
    given, default = Settings(values, where), AutoencoderConfig()
    widths = given.wholes("block_out_channels", default.block_out_channels)
    for key, known in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        given.texts(key, (known,), (known,), len(widths))
    groups = given.whole("norm_num_groups", default.norm_num_groups)
    if any(width % groups for width in widths):
        raise CheckpointError(f"{where}: norm_num_groups is {groups}; expected a divisor of block_out_channels {list(widths)}")
    return AutoencoderConfig(
        block_out_channels=widths,
        latent_channels=given.whole("latent_channels", default.latent_channels),
        in_channels=given.whole("in_channels", default.in_channels),
        out_channels=given.whole("out_channels", default.out_channels),
        layers_per_block=given.whole("layers_per_block", default.layers_per_block, high=LAYERS),
        norm_num_groups=groups,
        scaling_factor=given.number("scaling_factor", default.scaling_factor),
        mid_block_add_attention=given.flag("mid_block_add_attention", default.mid_block_add_attention),
        use_quant_conv=given.flag("use_quant_conv", default.use_quant_conv),
        use_post_quant_conv=given.flag("use_post_quant_conv", default.use_post_quant_conv),
        force_upcast=given.flag("force_upcast", default.force_upcast),
    )


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
    given = Settings(values, where)
    # Absent keys mean what they mean to the class that wrote the file: only these two clip by default.
    clips = given.flag("clip_sample", name in ("DDIMScheduler", "DDPMScheduler"))
    train_steps = given.whole("num_train_timesteps", 1000, low=2, high=STEPS)
    schedule = NoiseSchedule(
        train_steps=train_steps,
        beta_start=given.number("beta_start", 0.0001),
        beta_end=given.number("beta_end", 0.02),
        beta_schedule=given.text("beta_schedule", "linear"),
        # Not what the class that wrote the file would do (linspace, for Euler, LMS and DPM-Solver): the spacing belongs to the
        # sampler. Ours are DDIM and DDPM, and diffusers' own, given the file of another class, take their default too.
        spacing=given.text("timestep_spacing", "leading"),
        steps_offset=given.whole("steps_offset", 0, low=0, high=train_steps - 1),
        final_alpha_one=given.flag("set_alpha_to_one", name != "PNDMScheduler"),
        zero_terminal_snr=given.flag("rescale_betas_zero_snr", False),
        clip_sample=given.number("clip_sample_range", 1.0) if clips else 0.0,
    )
    if not schedule.beta_start < schedule.beta_end < 1:
        betas = f"beta_start is {schedule.beta_start} and beta_end {schedule.beta_end}"
        raise CheckpointError(f"{where}: {betas}; expected them to rise between 0 and 1, such as 0.00085 and 0.012")
    if schedule.zero_terminal_snr and prediction_kind(values, where) == "eps":
        raise CheckpointError(
            f"{where}: rescale_betas_zero_snr is true with prediction_type 'epsilon'; where no signal is left, the noise says "
            "nothing of the image, so it needs 'v_prediction'; if the model predicts v, pass prediction_type=v_prediction "
            "(--prediction-type v_prediction)"
        )
    return schedule


def prediction_kind(values: Values, where: str) -> str:
    """What the network predicts, by its `scheduler_config.json`: `eps` or `v`."""
    return PREDICTIONS[Settings(values, where).text("prediction_type", "epsilon", tuple(PREDICTIONS))]


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


def _added(given: Settings) -> dict[str, Any]:
    """SDXL's second conditioning."""
    if "addition_embed_type" not in given:
        return {}
    given.text("addition_embed_type", "text_time", ("text_time",))
    return {
        "added_channels": given.whole("projection_class_embeddings_input_dim", None),
        "size_channels": given.whole("addition_time_embed_dim", None),
    }
