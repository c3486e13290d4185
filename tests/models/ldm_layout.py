"""Networks of diffusers and transformers written in the names of LDM, sgm and OpenCLIP: the way back from what we read.

Written from the layout of those networks, block by block and with their own numbering, and not from our maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.models.small_models import CROSS, PLAIN, unsettle

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

SD = {"down_block_types": (CROSS, CROSS, CROSS, PLAIN), "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3)}
XL = {"down_block_types": (PLAIN, CROSS, CROSS), "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D")}
TEXT_TIME = {"addition_embed_type": "text_time", "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True}
# Full size, as they were published.
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {**SD, "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768},
    "sd2": {
        **SD,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "sdxl": {
        **XL,
        **TEXT_TIME,
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
UNETS["gligen"] = {**UNETS["sd1"], "attention_type": "gated"}
UNETS["gligen-text-image"] = {**UNETS["sd1"], "attention_type": "gated-text-image"}
NARROW: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (8, 8, 16, 16), "attention_head_dim": 2, "cross_attention_dim": 64},
    "sd2": {"block_out_channels": (8, 8, 16, 16), "attention_head_dim": [1, 1, 2, 2], "cross_attention_dim": 64},
    "sdxl": {
        "block_out_channels": (8, 16, 16),
        "attention_head_dim": [1, 2, 2],
        "cross_attention_dim": 128,
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 88,
    },
}
# Text towers of one head of 64 channels: what says nothing of its heads has heads of 64.
NARROW["gligen"] = NARROW["gligen-text-image"] = NARROW["sd1"]
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
# Width, layers, and the width of the pooled embedding where there is one.
TOWERS = {"clip-l": (768, 12, None), "clip-h": (1024, 23, None), "clip-g": (1280, 32, 1280)}

RESNET = (
    ("norm1.", "in_layers.0."), ("conv1.", "in_layers.2."), ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."), ("conv2.", "out_layers.3."), ("conv_shortcut.", "skip_connection."),
)  # fmt: skip
UNET_ENDS = (
    ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."), ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
    ("mid_block.attentions.0.", "middle_block.1."), ("position_net.", "position_net."),
)  # fmt: skip


def unet(family: str, narrow: bool = True, **settings: Any) -> Any:
    """diffusers' UNet of a family: random and narrow, or of full size on the meta device."""
    from diffusers import UNet2DConditionModel

    full = {**UNETS[family], **settings}
    if not narrow:
        with torch.device("meta"):
            return UNet2DConditionModel(**full)
    small = {"transformer_layers_per_block": 1, **NARROW[family], "norm_num_groups": 4}
    return unsettled(UNet2DConditionModel(**{**full, **small, **settings}))


def autoencoder(narrow: bool = True, **settings: Any) -> Any:
    from diffusers import AutoencoderKL

    if not narrow:
        with torch.device("meta"):
            return AutoencoderKL(**AUTOENCODER)
    return unsettled(AutoencoderKL(**{**AUTOENCODER, "block_out_channels": (4, 8, 8, 8), "norm_num_groups": 4, **settings}))


def tower(width: int, layers: int, pooled: int | None = None, vocabulary: int = 49408, device: str = "cpu") -> Any:
    """transformers' text tower: that of OpenAI, or with a projection if `pooled`, as those of OpenCLIP are."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width, num_attention_heads=max(1, width // 64),
        vocab_size=vocabulary, projection_dim=pooled or width, hidden_act="gelu" if pooled else "quick_gelu",
        bos_token_id=vocabulary - 2, eos_token_id=2,
    )  # fmt: skip
    with torch.device(device):
        network = CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)
    return network if device == "meta" else unsettled(network)


def unsettled(network: Any) -> Any:
    """A network no two of whose weights are equal: two norms that scale by 1 could be swapped unseen."""
    unsettle(network)
    return network.eval().requires_grad_(False)


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def clip_keys(state: Mapping[str, Tensor]) -> State:
    """A text tower's weights with the prefix that versions of transformers write or leave out."""
    return {key if key.startswith("text_") else f"text_model.{key}": tensor for key, tensor in state.items()}


def ldm_unet(state: Mapping[str, Tensor], layers: int = 2) -> State:
    """The weights of a UNet with `layers` resnets a level in the names of LDM, which numbers its blocks through all levels."""

    def name(key: str) -> str:
        for ours, theirs in UNET_ENDS:
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        if found := re.match(r"mid_block\.resnets\.(\d)\.(.*)", key):
            return f"middle_block.{2 * int(found[1])}.{_inner(found[2], RESNET)}"
        found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", key)
        assert found is not None, key
        way, level, kind, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        first = 1 + level * (layers + 1) if way == "down" else level * (layers + 1)
        blocks = "input_blocks" if way == "down" else "output_blocks"
        if kind == "downsamplers":
            return f"{blocks}.{first + layers}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            attended = any(other.startswith(f"up_blocks.{level}.attentions.") for other in state)
            return f"{blocks}.{first + layers}.{2 if attended else 1}.{rest}"
        return f"{blocks}.{first + j}.{0 if kind == 'resnets' else 1}.{_inner(rest, RESNET) if kind == 'resnets' else rest}"

    return {name(key): tensor for key, tensor in state.items()}


def ldm_autoencoder(state: Mapping[str, Tensor], levels: int = 4) -> State:
    """The weights of an autoencoder in the names of LDM: attention of 1x1 convolutions, the decoder numbered backwards."""
    attention = (("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out."))

    def name(key: str) -> str:
        key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
        if "mid_block.attentions.0." in key:
            side, rest = key.split(".mid_block.attentions.0.")
            return f"{side}.mid.attn_1.{_inner(rest, attention)}"
        key = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", key)
        key = re.sub(r"up_blocks\.(\d)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", key)
        return re.sub(r"(down|up)samplers\.0", r"\1sample", key.replace("resnets", "block"))

    def tensor(key: str, given: Tensor) -> Tensor:
        return given[:, :, None, None] if ".attentions.0." in key and given.ndim == 2 else given

    return {name(key): tensor(key, given) for key, given in state.items()}


def old_autoencoder(state: Mapping[str, Tensor]) -> State:
    """The weights of an autoencoder as diffusers named them before 0.17."""
    names = (("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn."))
    middle = ".mid_block.attentions.0."
    return {
        f"{key.split(middle)[0]}{middle}{_inner(key.split(middle)[1], names)}" if middle in key else key: given
        for key, given in state.items()
    }


def open_clip(state: Mapping[str, Tensor]) -> State:
    """The weights of a text tower in the names of OpenCLIP: queries, keys and values packed, the projection transposed."""
    inside = (
        ("layer_norm1.", "ln_1."), ("layer_norm2.", "ln_2."), ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."),
        ("self_attn.out_proj.", "attn.out_proj."),
    )  # fmt: skip
    ends = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    out: State = {}
    for key, given in (state := clip_keys(state)).items():
        if key == "text_projection.weight":
            out["text_projection"] = given.T.contiguous()
        elif key in ends:
            out[ends[key]] = given
        elif found := re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            packed = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(packed)
        elif "k_proj" not in key and "v_proj" not in key:
            layer, rest = key.removeprefix("text_model.encoder.layers.").split(".", 1)
            out[f"transformer.resblocks.{layer}.{_inner(rest, inside)}"] = given
    return out


def _inner(rest: str, names: tuple[tuple[str, str], ...]) -> str:
    return next((theirs + rest.removeprefix(ours) for ours, theirs in names if rest.startswith(ours)), rest)


def networks(
    family: str, narrow: bool = True, vae: dict[str, Any] | None = None, vocabulary: int = 32, **settings: Any
) -> dict[str, Any]:
    """The networks of a whole model by component: of full size on the meta device, or narrow and random."""
    words: dict[str, Any] = {"vocabulary": vocabulary} if narrow else {"device": "meta"}
    found = {"unet": unet(family, narrow, **settings), "vae": autoencoder(narrow, **(vae or {}))}
    if family == "sd2":
        return {**found, "text_encoder": tower(64, 3, 64, **words) if narrow else tower(1024, 24, 1024, **words)}
    found["text_encoder"] = tower(64, 2, **words) if narrow else tower(*TOWERS["clip-l"], **words)
    if family == "sdxl":
        found["text_encoder_2"] = tower(64, 3, 64, **words) if narrow else tower(*TOWERS["clip-g"], **words)
    return found


def in_one_file(family: str, parts: Mapping[str, Any]) -> State:
    """The weights of a whole model as its file has them."""
    file = prefixed("model.diffusion_model.", ldm_unet(parts["unet"].state_dict()))
    file |= prefixed("first_stage_model.", ldm_autoencoder(parts["vae"].state_dict()))
    first = parts["text_encoder"].state_dict()
    if family == "sd2":
        return file | prefixed("cond_stage_model.model.", open_clip(first))
    if family != "sdxl":
        return file | prefixed("cond_stage_model.transformer.", clip_keys(first))
    second = prefixed("conditioner.embedders.1.model.", open_clip(parts["text_encoder_2"].state_dict()))
    return file | prefixed("conditioner.embedders.0.transformer.", clip_keys(first)) | second


def single_file(family: str, narrow: bool = True, **settings: Any) -> State:
    """A whole model in one file. `settings`: those of `networks`."""
    return in_one_file(family, networks(family, narrow, **settings))
