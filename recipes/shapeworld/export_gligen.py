"""Write the trained GLIGEN model as a model folder, beside what it shares with the base: autoencoder, text encoder, tokenizer.

    python -m recipes.shapeworld.export_gligen

The averaged weights are what is exported. The training may still run: whatever its last checkpoint holds is taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from lsregen.models import EMBEDDED
from lsregen.models.networks.unet import UNet
from lsregen.models.weights.checkpoint import save_component, write_config
from lsregen.models.weights.configs import unet_values
from recipes.shapeworld.export import CFG, DTYPE, use_average
from recipes.shapeworld.latents import PATCH, SIDE
from recipes.shapeworld.train_gligen import GLIGEN

SHARED = ("vae", "text_encoder", "tokenizer", "scheduler")
SHARE = 1.0  # of the steps that see the boxes; see docs/shapeworld.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/gligen"))
    parser.add_argument("--base", type=Path, default=EMBEDDED / "shapeworld-base")
    parser.add_argument("--out", type=Path, default=Path("models/shapeworld/shapeworld-gligen"))
    args = parser.parse_args()
    steps = export(args.out, args.run, args.base)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {total / 1e6:.2f} MB; steps trained: {steps}")


def export(out: Path, run: Path, base: Path) -> int:
    """Write the folder `out` from a training's folder and the base model's; returns how many steps were made."""
    unet = UNet(GLIGEN)
    state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    unet.load_state_dict(state["unet"])
    use_average((unet,), state["average"])
    for part in SHARED:
        shutil.copytree(base / part, out / part, dirs_exist_ok=True)
    save_component(out / "unet", unet_values(GLIGEN, SIDE // PATCH), unet.state_dict(), "diffusion_pytorch_model", DTYPE)
    write_config(out, {"cfg": CFG, "grounding": SHARE}, "lsregen.json")
    index = json.loads((base / "model_index.json").read_text())
    write_config(out, {**index, "_class_name": "StableDiffusionGLIGENPipeline"}, "model_index.json")  # last: see `export`
    return int(state["step"])


if __name__ == "__main__":
    main()
