"""Small models of every family, made with diffusers: what ours are compared with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.types import Step
from lsregen.models import DiffusersFolder
from lsregen.models.runtime.latent_diffusion import LatentDiffusion

os.environ["HF_HUB_OFFLINE"] = "1"

LENGTH = 16
WORDS = {"circle": ["circ", "le</w>"], "red": ["red</w>"], "and": ["and</w>"], "a": ["a</w>"], "blue": ["blue</w>"]}
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
STEP = Step(index=3, count=10, t=601, alpha_bar=0.25, alpha_bar_prev=0.4)


def unet_settings(down: list[str], **settings: Any) -> dict[str, Any]:
    up = [name.replace("Down", "Up") for name in reversed(down)]
    return {"down_block_types": down, "up_block_types": up, "norm_num_groups": 8, "sample_size": 8, **settings}


def vae_settings(widths: tuple[int, ...], **settings: Any) -> dict[str, Any]:
    levels = len(widths)
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 8,
        **settings,
    }


TEXT = {"intermediate_size": 64, "num_attention_heads": 4, "max_position_embeddings": LENGTH}
FAMILIES: dict[str, dict[str, Any]] = {
    # Stable Diffusion 1.x: four levels, 1x1 convolutions around the transformers, the same number of heads everywhere.
    "sd1": {
        "unet": unet_settings(
            [CROSS, CROSS, CROSS, PLAIN], block_out_channels=(32, 32, 64, 64), attention_head_dim=4, cross_attention_dim=32
        ),
        "vae": vae_settings((16, 16, 32, 32), layers_per_block=2, scaling_factor=0.3),
        "text": {"hidden_size": 32, "num_hidden_layers": 2, "hidden_act": "quick_gelu", **TEXT},
        "scheduler": {"set_alpha_to_one": False},
    },
    # Stable Diffusion 2.x: linear projections, heads by level, another activation in the text tower, v-prediction.
    "sd2": {
        "unet": unet_settings(
            [CROSS, CROSS, PLAIN],
            block_out_channels=(16, 32, 64),
            attention_head_dim=[2, 4, 8],
            cross_attention_dim=48,
            use_linear_projection=True,
            transformer_layers_per_block=[1, 2, 1],
        ),
        "vae": vae_settings((16, 32), layers_per_block=2),
        "text": {"hidden_size": 48, "num_hidden_layers": 3, "hidden_act": "gelu", **TEXT},
        "scheduler": {"set_alpha_to_one": False, "prediction_type": "v_prediction"},
    },
    # GLIGEN: fusers and a position net in a Stable Diffusion 1.x.
    "gligen": {
        "unet": unet_settings(
            [CROSS, CROSS, PLAIN],
            block_out_channels=(16, 32, 32),
            attention_head_dim=4,
            cross_attention_dim=32,
            attention_type="gated",
        ),
        "vae": vae_settings((16, 16, 32, 32), layers_per_block=2),
        "text": {"hidden_size": 32, "num_hidden_layers": 2, "hidden_act": "quick_gelu", **TEXT},
        "scheduler": {"set_alpha_to_one": False},
    },
    # Stable Diffusion XL: two text encoders, pooled text and sizes, transformers of several depths, none at the finest level.
    "sdxl": {
        "unet": unet_settings(
            [PLAIN, CROSS, CROSS],
            block_out_channels=(16, 32, 64),
            attention_head_dim=[1, 2, 4],
            cross_attention_dim=56,
            use_linear_projection=True,
            transformer_layers_per_block=[1, 2, 3],
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=20 + 6 * 8,
        ),
        "vae": vae_settings((16, 16, 32), layers_per_block=2, scaling_factor=0.13025),
        "text": {"hidden_size": 32, "num_hidden_layers": 2, "hidden_act": "quick_gelu", **TEXT},
        "text_2": {"hidden_size": 24, "num_hidden_layers": 3, "hidden_act": "gelu", "projection_dim": 20, **TEXT},
        "scheduler": {"set_alpha_to_one": False},
    },
    # shapeworld-base: no attention at the finest level nor in the autoencoder, more latent channels.
    "base": {
        "unet": unet_settings(
            [PLAIN, CROSS],
            block_out_channels=(16, 32),
            attention_head_dim=4,
            cross_attention_dim=32,
            layers_per_block=1,
            in_channels=8,
            out_channels=8,
        ),
        "vae": vae_settings((8, 16, 24), latent_channels=8, mid_block_add_attention=False, scaling_factor=0.9),
        "text": {"hidden_size": 32, "num_hidden_layers": 2, "hidden_act": "quick_gelu", **TEXT},
        "scheduler": {"set_alpha_to_one": False},
    },
}


def write_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
    """A CLIP tokenizer that knows letters and a few words, one of them in two pieces; the vocabulary files alone."""
    letters = "!abcdefghijklmnopqrstuvwxyz,"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for pieces in WORDS.values():
        for piece in pieces:
            symbols = [*piece.removesuffix("</w>")]
            if piece.endswith("</w>"):
                symbols[-1] += "</w>"
            while len(symbols) > 1:
                pair = (symbols[0], symbols[1])
                symbols[:2] = ["".join(pair)]
                if pair not in merges:
                    merges.append(pair)
                    tokens.append(symbols[0])
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "pad_token": pad, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@torch.no_grad()
def unsettle(module: torch.nn.Module) -> None:
    """Move weights off their initial values: a norm that scales by 1 and shifts by 0 would hide mistakes."""
    for parameter in module.parameters():
        if parameter.ndim == 0:  # a gate, which is closed at first
            parameter.fill_(0.7 + 0.2 * torch.rand(()))
        parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))


def old_text_keys(folder: Path) -> None:
    """Rewrite a text encoder's weights as older versions of transformers wrote them: a prefix, and a table of positions."""
    path = folder / "model.safetensors"
    tensors = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in load_file(path).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}, path, {"format": "pt"})


@dataclass(frozen=True)
class Oracle:
    """A model folder, and the diffusers pipeline that wrote it."""

    name: str
    folder: Path
    pipe: Any

    def load(self) -> LatentDiffusion:
        model = DiffusersFolder().load(self.folder, LoadOptions(device="cpu", dtype="fp32"))
        assert isinstance(model, LatentDiffusion)
        return model

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """The context that the UNet attends to, and SDXL's pooled text."""
        found = self.pipe.encode_prompt(list(prompts), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        return found[0], found[2] if len(found) == 4 else None

    def added(self, pooled: Tensor | None, z: Tensor) -> dict[str, Any]:
        """Further arguments of the UNet: SDXL's pooled text, and that nothing is cropped."""
        if pooled is None:
            return {}
        height, width = (side * self.pipe.vae_scale_factor for side in z.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(z))
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}

    def unet(self, z: Tensor, step: Step, prompts: Sequence[str]) -> Tensor:
        """What the UNet says of one branch."""
        context, pooled = self.encode(prompts)
        return self.pipe.unet(z, step.t, context, **self.added(pooled, z)).sample


@torch.random.fork_rng(devices=())  # what a test draws does not depend on whether it is the first to ask
def build(name: str, folder: Path) -> Oracle:
    import diffusers
    import transformers

    family = FAMILIES[name]
    torch.manual_seed(7)
    write_tokenizer(folder / "tokenizer-files")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer-files")
    ids = {"vocab_size": len(tokenizer), "bos_token_id": len(tokenizer) - 2, "eos_token_id": len(tokenizer) - 1}
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**family["text"], **ids, pad_token_id=0))
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False}
    parts: dict[str, Any] = {
        "vae": diffusers.AutoencoderKL(**family["vae"]),
        "text_encoder": text,
        "tokenizer": tokenizer,
        "unet": diffusers.UNet2DConditionModel(**family["unet"]),
        "scheduler": diffusers.DDIMScheduler(**noise, **family["scheduler"]),
        "feature_extractor": None,
    }
    if "text_2" in family:
        write_tokenizer(folder / "tokenizer-files-2", pad="!")  # as in the published folders
        second = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**family["text_2"], **ids, pad_token_id=0))
        tokenizer_2 = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer-files-2")
        pipe = diffusers.StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer_2, add_watermarker=False)
    else:
        kind = diffusers.StableDiffusionGLIGENPipeline if name == "gligen" else diffusers.StableDiffusionPipeline
        pipe = kind(**parts, safety_checker=None, requires_safety_checker=False)
    encoders = [pipe.text_encoder, pipe.text_encoder_2] if "text_2" in family else [pipe.text_encoder]
    for module in (pipe.unet, pipe.vae, *encoders):
        unsettle(module)
        module.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / name)
    if name != "base":
        old_text_keys(folder / name / "text_encoder")
    if name == "sd1":  # as the published folders are: vocabulary and merges, no tokenizer.json
        (folder / name / "tokenizer" / "tokenizer.json").unlink()
        for file in ("vocab.json", "merges.txt"):
            (folder / name / "tokenizer" / file).write_text((folder / "tokenizer-files" / file).read_text())
    return Oracle(name, folder / name, pipe)
