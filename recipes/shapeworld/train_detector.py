"""Trains a small RT-DETR of the world: a learned detector of `red circle`s, with which the protocol runs as it does on COCO.

Writes a folder as transformers saves detectors, for `lsregen evaluate score --detector`. It does not ship with the package: half
an hour of one core makes it. Every step draws new scenes, and half of the pictures are disturbed: generated ones are never clean.

    python -m recipes.shapeworld.train_detector --out runs/detector/export
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from lsregen.evaluation.instruments.detectors import TransformersDetector
from lsregen.evaluation.metrics.bootstrap import FoundBox, ImageResult, average_precision
from lsregen.evaluation.shapeworld import Scene, render, sample_scene
from recipes.shapeworld.data import to_tensor
from recipes.shapeworld.export_coco import categories
from recipes.shapeworld.latents import LatentSpace, latent_space
from recipes.shapeworld.train_classifier import HELD_OUT, disturb
from recipes.shapeworld.training import Learner, Ranks, Run, arguments, generator, write_preprocessor

SIDE = 64
LABELS = tuple(categories())
LEARNING_RATE = 1.5e-3
WIDTH, QUERIES = 64, 12
STRIDES = (8, 16)


def network() -> RTDetrForObjectDetection:
    """Two levels of features, 64 and 16 places, and twelve queries; its batch norms learn, since nothing was trained before."""
    stages: dict[str, Any] = {"hidden_sizes": [24, 64, 128], "depths": [1, 1, 1], "out_indices": [2, 3]}
    backbone = RTDetrResNetConfig(embedding_size=24, layer_type="basic", **stages)
    config = RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[64, 128],
        feat_strides=list(STRIDES),
        encode_proj_layers=[len(STRIDES) - 1],
        encoder_hidden_dim=WIDTH,
        encoder_ffn_dim=2 * WIDTH,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=WIDTH,
        decoder_in_channels=[WIDTH] * len(STRIDES),
        num_feature_levels=len(STRIDES),
        decoder_layers=2,
        decoder_ffn_dim=2 * WIDTH,
        decoder_attention_heads=4,
        num_queries=QUERIES,
        num_denoising=QUERIES,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    return RTDetrForObjectDetection(config)


def drawn(step: int, batch: int, ranks: Ranks) -> list[Scene]:
    """Scenes that no other step or process sees; every other one is full, so that there is more to learn from."""
    first = (step * ranks.count + ranks.rank) * batch
    return [sample_scene(first + i, split="train", objects=(None, 3)[i % 2], size=(SIDE, SIDE)) for i in range(batch)]


def pictures_of(scenes: Sequence[Scene]) -> Tensor:
    """The true pictures `[b 3 H W]`, in [-1, 1]."""
    return to_tensor(np.stack([render(scene) for scene in scenes]))


def targets_of(scenes: Sequence[Scene], device: torch.device) -> list[dict[str, Tensor]]:
    """What transformers' loss takes: the numbers of the classes, and boxes as centre and size, in fractions of the picture."""
    found: list[dict[str, Tensor]] = []
    for scene in scenes:
        corners = torch.tensor(scene.boxes, dtype=torch.float32).view(-1, 2, 2)
        low, high = corners[:, 0], corners[:, 1]
        classes = torch.tensor([LABELS.index(phrase) for phrase in scene.phrases])
        boxes = torch.cat([(low + high) / 2, high - low], dim=1)
        found.append({"class_labels": classes.to(device), "boxes": boxes.to(device)})
    return found


def loss_of(model: Any, scenes: Sequence[Scene], images: Tensor) -> Tensor:
    """RT-DETR's own: varifocal, L1 and GIoU of matched queries, of every layer, of the chosen places, and of noised boxes."""
    return model(pixel_values=images, labels=targets_of(scenes, images.device)).loss


def export(model: RTDetrForObjectDetection, out: Path) -> None:
    """In the layout of transformers, with what its pictures are prepared by."""
    model.save_pretrained(out)
    size = {"height": SIDE, "width": SIDE}
    write_preprocessor(out, "RTDetrImageProcessor", do_resize=True, size=size, resample=2)


def precision(folder: Path, space: LatentSpace, objects: int, *, disturbed: bool = False, count: int = 300) -> float:
    """Average precision at an overlap of .5 of an exported folder, over held-out scenes of so many objects."""
    detector = TransformersDetector(str(folder)).load("cpu")
    scenes = [sample_scene(HELD_OUT + i, split="train", objects=objects, size=(SIDE, SIDE)) for i in range(count)]
    images = pictures_of(scenes)
    if disturbed:
        images = disturb(images, space, generator(13, 0, 0))[0]
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = detector([Image.fromarray(picture) for picture in pixels], [()] * count)
    return average_precision(
        [
            ImageResult(
                tuple(zip(scene.phrases, scene.boxes, strict=True)),
                tuple(FoundBox(one.label, one.box, one.score) for one in seen),
            )
            for scene, seen in zip(scenes, found, strict=True)
        ]
    )


def main() -> None:
    parser = arguments(__doc__, "detector", steps=2500, batch=32, each="pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/detector/export"))
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    space = latent_space(args.images)
    torch.manual_seed(0)
    built: Any = network()
    model = built.to(ranks.device).train()
    learner = Learner(run, {"model": model}, rate=LEARNING_RATE, steps=args.steps, warmup=100, betas=(0.9, 0.999))

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        scenes = drawn(step, args.batch, ranks)
        return loss_of(model, scenes, disturb(pictures_of(scenes), space, draws)[0].to(ranks.device))

    learner.learn(12, loss_at, log=25, save=100)
    if ranks.first:
        export(model.to("cpu").eval(), args.out)
        found = {f"{n} object{'s' * (n > 1)}": round(precision(args.out, space, n), 4) for n in (1, 2)}
        spoilt = round(precision(args.out, space, 2, disturbed=True), 4)
        run.log(step=args.steps, precision=found, disturbed=spoilt)
    ranks.close()


if __name__ == "__main__":
    main()
