"""Train the segmenter that the extractor `segmentation` may ask where things are, and ship it: a tiny SegFormer.

    python -m recipes.shapeworld.train_segmenter --folder runs/segmenter

Half of its pictures are disturbed, since it looks at estimates of pictures that are not finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from lsregen.evaluation.shapeworld import masks, render, sample_scene
from lsregen.evaluation.shapeworld.classifier import KINDS
from recipes.shapeworld.data import image_pool, to_tensor
from recipes.shapeworld.latents import LatentSpace, latent_space
from recipes.shapeworld.train_classifier import HELD_OUT, disturb
from recipes.shapeworld.training import Learner, Ranks, Run, arguments, generator, write_preprocessor

LABELS = ("background", *(f"{colour} {shape}" for colour, shape in KINDS))
COUNTS = {(64, 64): 24_000, (96, 64): 6_000, (64, 96): 6_000}
LEARNING_RATE = 2e-3
BACKGROUND_WEIGHT = 0.3  # most of a picture is background
OUT = Path("extractors/shapeworld-segmenter")


def network() -> SegformerForSemanticSegmentation:
    config = SegformerConfig(
        num_channels=3,
        depths=[1, 1, 2, 1],
        hidden_sizes=[16, 32, 64, 96],
        strides=[2, 2, 2, 2],
        patch_sizes=[5, 3, 3, 3],
        sr_ratios=[8, 4, 2, 1],
        num_attention_heads=[1, 2, 4, 6],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=64,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    return SegformerForSemanticSegmentation(config)


def label_pool(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """Which of `LABELS` every pixel of the training scenes shows, uint8 `[count H W]`, made once."""
    width, height = size
    path = folder / f"segments-{width}x{height}-{count}.npy"
    if not path.exists():
        labels = np.zeros((count, height, width), dtype=np.uint8)
        for seed in range(count):
            labels[seed] = labels_of(seed, size)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, labels)
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def labels_of(seed: int, size: tuple[int, int]) -> np.ndarray:
    scene = sample_scene(seed, split="train", size=size)
    labels = np.zeros((scene.height, scene.width), dtype=np.uint8)
    for mask, phrase in zip(masks(scene), scene.phrases, strict=True):
        labels[mask] = LABELS.index(phrase)
    return labels


class Batches:
    def __init__(self, folder: Path, space: LatentSpace, batch: int) -> None:
        self.batch, self.space = batch, space
        self.images = {size: image_pool(folder, 36_000 if size == (64, 64) else count, size) for size, count in COUNTS.items()}
        self.labels = {size: label_pool(folder, count, size) for size, count in COUNTS.items()}

    def draw(self, step: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures `[b 3 H W]` and labels `[b H W]`; every fifth step oblong ones."""
        size = ((96, 64), (64, 96))[(step // 5) % 2] if step % 5 == 4 else (64, 64)
        picks = torch.randint(COUNTS[size], (self.batch,), generator=draws).sort().values.numpy()
        images, labels = to_tensor(self.images[size][picks]), torch.from_numpy(self.labels[size][picks].astype(np.int64))
        if torch.rand((), generator=draws) < 0.5:
            images, labels = images.flip(-1), labels.flip(-1)
        return disturb(images, self.space, draws)[0], labels


def loss_of(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    logits = F.interpolate(model(pixel_values=images).logits, labels.shape[-2:], mode="bilinear")  # [b labels H W]
    weight = torch.ones(len(LABELS), device=logits.device)
    weight[0] = BACKGROUND_WEIGHT
    return F.cross_entropy(logits, labels, weight=weight)


@torch.no_grad()
def mean_iou(model: Any, space: LatentSpace, *, disturbed: bool, count: int = 300) -> float:
    """The overlap of each object's pixels with those that are given its label, over held-out scenes."""
    scenes = [sample_scene(HELD_OUT + i, split="train") for i in range(count)]
    images = to_tensor(np.stack([render(scene) for scene in scenes]))
    if disturbed:
        images = disturb(images, space, generator(8, 0, 0))[0]
    found: list[float] = []
    for scene, image in zip(scenes, images, strict=True):
        logits = F.interpolate(model(pixel_values=image[None]).logits, image.shape[-2:], mode="bilinear")
        labels = rearrange(logits.argmax(dim=1), "1 h w -> h w").numpy()
        for mask, phrase in zip(masks(scene), scene.phrases, strict=True):
            seen = labels == LABELS.index(phrase)
            found.append(float((mask & seen).sum() / (mask | seen).sum()))
    return sum(found) / len(found)


def export(model: SegformerForSemanticSegmentation, out: Path) -> None:
    """In the layout of transformers, fp16, with what its pictures are normalised by."""
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner may read
    write_preprocessor(out, "SegformerImageProcessor", do_resize=False)


def main() -> None:
    parser = arguments(__doc__, "segmenter", steps=3000, batch=24)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    space = latent_space(args.images)
    torch.manual_seed(0)
    model: Any = network().to(ranks.device).train()
    batches = Batches(args.images, space, args.batch)
    learner = Learner(
        run, {"model": model}, rate=LEARNING_RATE, steps=args.steps, warmup=100, betas=(0.9, 0.999), weight_decay=0.01
    )

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        images, labels = (part.to(ranks.device) for part in batches.draw(step, draws))
        return loss_of(model, images, labels)

    learner.learn(7, loss_at)
    if ranks.first:
        export(model, args.out)
        shipped: Any = SegformerForSemanticSegmentation.from_pretrained(args.out, local_files_only=True).float().eval()
        found = {name: round(mean_iou(shipped, space, disturbed=name == "disturbed"), 4) for name in ("clean", "disturbed")}
        run.log(step=args.steps, size=(args.out / "model.safetensors").stat().st_size, iou=found)
    ranks.close()


if __name__ == "__main__":
    main()
