"""Write the trained large model as a model folder, in the layout of Stable Diffusion XL, with fp16 safetensors.

    python -m recipes.shapeworld.export_large

The averaged weights are what is exported. The trainings may still run: whatever their last checkpoint holds is taken.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from lsregen.models.networks.unet import UNet
from lsregen.models.weights.checkpoint import save_component, write_config
from lsregen.models.weights.configs import autoencoder_values, scheduler_values, unet_values
from recipes.shapeworld.export import CFG, DTYPE, INDEX, SCHEDULE, text_keys, text_values, use_average
from recipes.shapeworld.latents import LARGE_PATCH, LARGE_SIDE, latent_space
from recipes.shapeworld.train_autoencoder import CONFIGS
from recipes.shapeworld.train_large import UNET, text_encoders

LARGE_INDEX = {
    **INDEX,
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/large"))
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/autoencoder-large"))
    parser.add_argument("--images", type=Path, default=Path("runs/images"))
    parser.add_argument("--out", type=Path, default=Path("models/shapeworld/shapeworld-large"))
    args = parser.parse_args()
    steps = export(args.out, args.run, args.autoencoder, args.images)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {total / 1e6:.2f} MB; steps trained: {steps}")


def export(out: Path, run: Path, autoencoder: Path, images: Path) -> dict[str, int]:
    """Write the folder `out` from the folders of the two trainings; returns how many steps each has made."""
    tokenizer = CLIPTokenizer.from_pretrained(run / "tokenizer", local_files_only=True)
    unet, (text, text_2) = UNet(UNET), text_encoders(tokenizer)
    state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    for name, network in {"unet": unet, "text": text, "text_2": text_2}.items():
        network.load_state_dict(state[name])
    use_average((unet, text, text_2), state["average"])
    coder = torch.load(autoencoder / "last.pt", map_location="cpu", weights_only=True)
    config = replace(CONFIGS[LARGE_PATCH], scaling_factor=latent_space(images, LARGE_PATCH).scale)

    stem = "diffusion_pytorch_model"
    save_component(out / "unet", unet_values(UNET, LARGE_SIDE // LARGE_PATCH), unet.state_dict(), stem, DTYPE)
    save_component(out / "vae", autoencoder_values(config), coder["model"], stem, DTYPE)
    save_component(out / "text_encoder", text_values(text), text_keys(text), "model", DTYPE)
    values = {**text_values(text_2), "architectures": ["CLIPTextModelWithProjection"]}
    save_component(out / "text_encoder_2", values, text_keys(text_2), "model", DTYPE)
    write_config(out / "scheduler", scheduler_values(SCHEDULE, "eps"), "scheduler_config.json")
    for folder in ("tokenizer", "tokenizer_2"):
        shutil.copytree(run / "tokenizer", out / folder, dirs_exist_ok=True)
    write_config(out, {"cfg": CFG}, "lsregen.json")
    write_config(out, LARGE_INDEX, "model_index.json")  # last: a folder without it is no model
    return {"large": int(state["step"]), "autoencoder": int(coder["step"])}


if __name__ == "__main__":
    main()
