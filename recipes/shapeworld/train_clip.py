"""Trains a small CLIP of the world, which measures how well a picture agrees with its prompt: it finds the caption of a picture.

Writes a folder as transformers saves CLIP, for `lsregen evaluate score --clip`. It does not ship with the package: a few minutes
on one core make it. Its scores tell methods apart on this world and on nothing else, and belong to one file of weights.

    python -m recipes.shapeworld.train_clip --out runs/clip/export
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from lsregen.evaluation.shapeworld import render, sample_scene
from recipes.shapeworld.data import captions, image_pool, to_tensor
from recipes.shapeworld.training import Learner, Ranks, Run, arguments, write_preprocessor
from recipes.shapeworld.words import END, LENGTH, START, save_tokenizer

SIDE, POOL, HELD_OUT = 64, 6000, 10_000_000
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
LEARNING_RATE = 1e-3
TEMPERATURE = 20.0  # of the logits at the start; it is learned


def network(tokenizer: Any) -> CLIPModel:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {**TEXT, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    vision = {**VISION, "image_size": SIDE, "patch_size": 16}
    settings = {"projection_dim": 64, "logit_scale_init_value": float(np.log(TEMPERATURE))}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, **settings))


def logits_of(model: Any, tokenizer: Any, images: Tensor, texts: list[str]) -> Tensor:
    """How well every picture agrees with every text, `[b t]`."""
    words = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt").to(images.device)
    return model(pixel_values=images, input_ids=words["input_ids"], attention_mask=words["attention_mask"]).logits_per_image


def loss_of(logits: Tensor, texts: list[str]) -> Tensor:
    """Each picture's caption among those of the batch, and each caption's picture; equal captions are right for each other."""
    same = torch.tensor([[float(a == b) for b in texts] for a in texts], device=logits.device)
    wanted = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


@torch.no_grad()
def found(model: Any, tokenizer: Any, count: int = 200, among: int = 50) -> float:
    """The share of held-out pictures whose own caption agrees best, among so many."""
    right = 0
    for first in range(HELD_OUT, HELD_OUT + count, among):
        scenes = [sample_scene(first + i, split="train", size=(SIDE, SIDE)) for i in range(among)]
        images, texts = to_tensor(np.stack([render(scene) for scene in scenes])), [scene.caption for scene in scenes]
        best = logits_of(model, tokenizer, images, texts).argmax(dim=1).tolist()
        right += sum(texts[place] == text for place, text in zip(best, texts, strict=True))
    return right / count


def export(model: CLIPModel, tokenizer: Any, out: Path) -> None:
    """In the layout of transformers, with what its pictures are prepared by."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    crop = {"height": SIDE, "width": SIDE}
    write_preprocessor(
        out, "CLIPImageProcessor",
        do_resize=True, size={"shortest_edge": SIDE}, resample=3, do_center_crop=True, crop_size=crop,
    )  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, "clip", steps=1200, batch=48, each="pairs")
    parser.add_argument("--out", type=Path, default=Path("runs/clip/export"))
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    save_tokenizer(args.folder / "tokenizer")
    tokenizer: Any = AutoTokenizer.from_pretrained(args.folder / "tokenizer", local_files_only=True)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (START, END)
    torch.manual_seed(0)
    model: Any = network(tokenizer).to(ranks.device).train()
    images, texts = image_pool(args.images, POOL, (SIDE, SIDE)), captions(POOL, (SIDE, SIDE))
    learner = Learner(run, {"model": model}, rate=LEARNING_RATE, steps=args.steps, warmup=100, betas=(0.9, 0.98))

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        picks = torch.randint(POOL, (args.batch,), generator=draws).sort().values.numpy()
        chosen = [texts[pick] for pick in picks]
        return loss_of(logits_of(model, tokenizer, to_tensor(images[picks]).to(ranks.device), chosen), chosen)

    learner.learn(11, loss_at)
    if ranks.first:
        model.eval()
        export(model, tokenizer, args.out)
        run.log(step=args.steps, found=round(found(model.cpu(), tokenizer), 4))
    ranks.close()


if __name__ == "__main__":
    main()
