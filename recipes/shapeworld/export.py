"""Write the trained base model as a model folder, in the layout of diffusers, with fp16 safetensors.

    python -m recipes.shapeworld.export

The averaged weights are what is exported. The trainings may still run: whatever their last checkpoint holds is taken.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from lsregen.framework.types import NoiseSchedule
from lsregen.models.networks.unet import UNet
from lsregen.models.weights.checkpoint import save_component, write_config
from lsregen.models.weights.configs import autoencoder_values, scheduler_values, unet_values
from recipes.shapeworld.latents import PATCH, SIDE, latent_space
from recipes.shapeworld.train_autoencoder import CONFIGS
from recipes.shapeworld.train_base import UNET, text_encoder

CFG = 4.0
DTYPE = torch.float16
SCHEDULE = NoiseSchedule()  # its defaults are Stable Diffusion's
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("runs/base"))
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/autoencoder"))
    parser.add_argument("--images", type=Path, default=Path("runs/images"))
    parser.add_argument("--out", type=Path, default=Path("models/shapeworld/shapeworld-base"))
    args = parser.parse_args()
    steps = export(args.out, args.base, args.autoencoder, args.images)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {total / 1e6:.2f} MB; steps trained: {steps}")


def export(out: Path, base: Path, autoencoder: Path, images: Path) -> dict[str, int]:
    """Write the folder `out` from the folders of the two trainings; returns how many steps each has made."""
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    unet, text = UNet(UNET), text_encoder(tokenizer)
    state = torch.load(base / "last.pt", map_location="cpu", weights_only=True)
    unet.load_state_dict(state["unet"])
    text.load_state_dict(state["text"])
    use_average((unet, text), state["average"])
    coder = torch.load(autoencoder / "last.pt", map_location="cpu", weights_only=True)
    config = replace(CONFIGS[PATCH], scaling_factor=latent_space(images).scale)

    stem = "diffusion_pytorch_model"
    save_component(out / "unet", unet_values(UNET, SIDE // PATCH), unet.state_dict(), stem, DTYPE)
    save_component(out / "vae", autoencoder_values(config), coder["model"], stem, DTYPE)
    save_component(out / "text_encoder", text_values(text), text_keys(text), "model", DTYPE)
    write_config(out / "scheduler", scheduler_values(SCHEDULE, "eps"), "scheduler_config.json")
    shutil.copytree(base / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    write_config(out, {"cfg": CFG}, "lsregen.json")
    write_config(out, INDEX, "model_index.json")  # last: a folder without it is no model
    return {"base": int(state["step"]), "autoencoder": int(coder["step"])}


@torch.no_grad()
def use_average(modules: tuple[nn.Module, ...], average: list[Tensor]) -> None:
    """Replace the parameters of the modules, in their order, by their running averages."""
    for parameter, mean in zip([p for module in modules for p in module.parameters()], average, strict=True):
        parameter.copy_(mean)


def text_values(text: Any) -> dict[str, Any]:
    """The `config.json` of the text encoder, in the form of `transformers`."""
    return {**text.config.to_diff_dict(), "architectures": ["CLIPTextModel"], "dtype": "float16"}


def text_keys(text: nn.Module) -> dict[str, Tensor]:
    """The text encoder's weights under the keys that every version of `transformers` reads."""
    weights = text.state_dict()
    named = {
        key: key if key.startswith("text_projection.") else f"text_model.{key.removeprefix('text_model.')}" for key in weights
    }
    return {named[key]: tensor for key, tensor in weights.items()}


if __name__ == "__main__":
    main()
