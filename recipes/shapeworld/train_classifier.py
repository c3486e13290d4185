"""Train the classifier whose features the evaluation compares sets of pictures by, and ship it.

    python -m recipes.shapeworld.train_classifier --folder runs/classifier

Half of the pictures are disturbed, and how much is asked for too: features that only know what a picture shows would not tell
a good picture from a poor one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lsregen.evaluation.shapeworld import BACKGROUNDS, Scene, render, sample_scene
from lsregen.evaluation.shapeworld.classifier import DISTURBANCES, KINDS, WEIGHTS, Classifier, Scores, load_classifier
from recipes.shapeworld.data import image_pool, to_tensor
from recipes.shapeworld.latents import PATCH, LatentSpace, latent_space
from recipes.shapeworld.training import Learner, Ranks, Run, arguments, generator

COUNTS = {(64, 64): 36_000, (96, 64): 6_000, (64, 96): 6_000}
EMPTY = 4_096  # scenes without objects, all 64x64
HELD_OUT = 10_000_000  # first seed of the training split that no recipe uses
LEARNING_RATE = 3e-3
DISTURBED = 0.5  # share of the pictures; each of them by one thing, or by two
LAMBDA_TONES = 4.0


@dataclass(frozen=True)
class Pool:
    """Pictures `[n H W 3]`, which `KINDS` they show `[n 36]`, and the numbers of their backgrounds `[n]`."""

    images: np.ndarray
    kinds: Tensor
    backgrounds: Tensor


@dataclass(frozen=True)
class Batch:
    """Disturbed pictures `[b 3 H W]` and everything to be told of them; see `Scores`."""

    images: Tensor
    kinds: Tensor
    backgrounds: Tensor
    strengths: Tensor
    tones: Tensor


def main() -> None:
    parser = arguments(__doc__, "classifier", steps=6000, batch=64)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    if ranks.first:
        pools(args.images)
        latent_space(args.images)
    ranks.barrier()
    sources, space = pools(args.images), latent_space(args.images)

    torch.manual_seed(0)
    model = Classifier().to(ranks.device)
    learner = Learner(
        run, {"model": model}, rate=LEARNING_RATE, steps=args.steps, warmup=100, betas=(0.9, 0.999), weight_decay=0.02
    )

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        batch = draw_batch(sources, space, args.batch, draws, ranks.device)
        return loss_of(model(batch.images), batch)

    learner.learn(3, loss_at)
    if ranks.first:
        export(model, args.out)
        run.log(step=args.steps, size=args.out.stat().st_size, **accuracies(args.out, space))
    ranks.close()


def export(model: Classifier, path: Path) -> None:
    """fp16 safetensors."""
    weights = {
        key: tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu() for key, tensor in model.state_dict().items()
    }
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    path.chmod(0o644)  # safetensors writes files that only their owner may read


def pools(folder: Path) -> dict[tuple[int, int], list[Pool]]:
    """The training pictures by their size, rendered and labelled once."""
    found = {size: [Pool(image_pool(folder, count, size), *labels(folder, count, size))] for size, count in COUNTS.items()}
    found[(64, 64)].append(empty_pool(folder))
    return found


def labels(folder: Path, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    width, height = size
    path = folder / f"labels-{width}x{height}-{count}.npz"
    if not path.exists():
        scenes = [sample_scene(seed, split="train", size=size) for seed in range(count)]
        kinds = np.stack([kinds_of(scene) for scene in scenes])
        np.savez(path, kinds=kinds, backgrounds=[BACKGROUNDS.index(scene.background) for scene in scenes])
    with np.load(path) as data:
        return torch.from_numpy(data["kinds"]), torch.from_numpy(data["backgrounds"])


def empty_pool(folder: Path) -> Pool:
    """Backgrounds alone, of scenes that come after those of the other pools."""
    path = folder / f"empty-{EMPTY}.npz"
    if not path.exists():
        first = max(COUNTS.values())
        scenes = [replace(sample_scene(first + i, split="train"), objects=()) for i in range(EMPTY)]
        backgrounds = [BACKGROUNDS.index(scene.background) for scene in scenes]
        np.savez(path, images=np.stack([render(scene) for scene in scenes]), backgrounds=backgrounds)
    with np.load(path) as data:
        return Pool(data["images"], torch.zeros(EMPTY, len(KINDS)), torch.from_numpy(data["backgrounds"]))


def kinds_of(scene: Scene) -> np.ndarray:
    """Which of `KINDS` a scene holds, as zeros and ones `[36]`."""
    held = {(item.colour, item.shape) for item in scene.objects}
    return np.array([float(kind in held) for kind in KINDS], dtype=np.float32)


def draw_batch(
    sources: dict[tuple[int, int], list[Pool]], space: LatentSpace, count: int, draws: torch.Generator, device: torch.device
) -> Batch:
    """A batch of one size, square for four in five; one picture in ten of the square ones is empty."""
    sizes = list(sources)
    number = int(torch.multinomial(torch.tensor([0.8, 0.1, 0.1]), 1, generator=draws))
    parts = sources[sizes[number]]
    counts = [count] if len(parts) == 1 else [count - count // 10, count // 10]
    picked = [torch.randint(len(pool.images), (n,), generator=draws).sort().values for pool, n in zip(parts, counts, strict=True)]
    clean = torch.cat([to_tensor(pool.images[places.numpy()]) for pool, places in zip(parts, picked, strict=True)])
    kinds = torch.cat([pool.kinds[places] for pool, places in zip(parts, picked, strict=True)])
    backgrounds = torch.cat([pool.backgrounds[places] for pool, places in zip(parts, picked, strict=True)])
    images, strengths = disturb(clean, space, draws)
    tones = torch.cat([clean.mean(dim=(2, 3)), clean.std(dim=(2, 3))], dim=1)
    return Batch(*(tensor.to(device) for tensor in (images, kinds, backgrounds, strengths, tones)))


def loss_of(scores: Scores, batch: Batch) -> Tensor:
    return (
        8 * F.binary_cross_entropy_with_logits(scores.kinds, batch.kinds)
        + 0.5 * F.cross_entropy(scores.background, batch.backgrounds)
        + F.binary_cross_entropy_with_logits(scores.disturbances, batch.strengths)
        + LAMBDA_TONES * F.mse_loss(scores.tones, batch.tones)
    )


def disturb(images: Tensor, space: LatentSpace, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some of the pictures made worse, and how much by each of `DISTURBANCES`, `[b 5]` in [0, 1]."""
    chosen = torch.rand(len(images), len(DISTURBANCES), generator=draws).argsort(dim=1).argsort(dim=1)
    how_many = (torch.rand(len(images), 1, generator=draws) < DISTURBED) * (
        1 + (torch.rand(len(images), 1, generator=draws) < 0.25).long()
    )
    strengths = (chosen < how_many) * torch.rand(chosen.shape, generator=draws)
    # Warped first and compressed last, as it happens to pictures.
    order: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
        ("warp", lambda part, strength: warped(part, strength, draws)),
        ("coding", lambda part, strength: coded(part, strength, space, draws)),
        ("blur", lambda part, strength: blurred(part, strength)),
        ("noise", lambda part, strength: noisy(part, strength, draws)),
        ("jpeg", lambda part, strength: compressed(part, strength)),
    ]
    result = images.clone()
    for name, change in order:
        strength = strengths[:, DISTURBANCES.index(name)]
        places = strength.nonzero()[:, 0]
        if len(places):
            result[places] = change(result[places], strength[places]).clamp(-1, 1)
    return (result * 127.5).round() / 127.5, strengths  # pictures have 256 levels


def noisy(images: Tensor, strength: Tensor, draws: torch.Generator) -> Tensor:
    """Up to a deviation of 20 levels."""
    return images + torch.randn(images.shape, generator=draws) * strength[:, None, None, None] * 20 / 127.5


def blurred(images: Tensor, strength: Tensor) -> Tensor:
    """A Gaussian of .3 to 1.5 pixels, each picture its own."""
    sigma = 0.3 + 1.2 * strength
    offsets = torch.arange(-4.0, 5.0)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # [(b c) 9]
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    flat = rearrange(padded, "b c h w -> 1 (b c) h w")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    return rearrange(flat, "1 (b c) h w -> b c h w", c=3)


def compressed(images: Tensor, strength: Tensor) -> Tensor:
    """JPEG of quality 95 to 25."""
    pixels = ((rearrange(images, "b c h w -> b h w c") + 1) * 127.5).round().byte().numpy()
    decoded: list[np.ndarray] = []
    for picture, one in zip(pixels, strength.tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=round(95 - 70 * one))
        decoded.append(np.asarray(Image.open(buffer)))
    return to_tensor(np.stack(decoded))


def coded(images: Tensor, strength: Tensor, space: LatentSpace, draws: torch.Generator) -> Tensor:
    """What is left of every patch along the directions of the latent space, with up to .4 of the latents' deviation as noise."""
    z = space.encode(images)
    z = z + torch.randn(z.shape, generator=draws) * strength[:, None, None, None] * 0.4 / space.scale
    inverse = torch.linalg.pinv(space.directions)  # [3*p*p c]
    patches = rearrange(z, "b c h w -> b h w c") @ inverse.T + space.mean
    return rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", c=3, p=PATCH, q=PATCH)


def warped(images: Tensor, strength: Tensor, draws: torch.Generator) -> Tensor:
    """Smooth shifts of up to about 4 pixels: shapes lose their form."""
    height, width = images.shape[-2:]
    coarse = torch.randn(len(images), 2, height // 8, width // 8, generator=draws) * strength[:, None, None, None]
    shift = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False) * 2.5  # pixels
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = (columns + shift[:, 0]) * 2 / width - 1, (rows + shift[:, 1]) * 2 / height - 1
    return F.grid_sample(images, torch.stack([x, y], dim=-1), mode="bilinear", padding_mode="reflection", align_corners=False)


@torch.no_grad()
def accuracies(path: Path, space: LatentSpace, count: int = 1024) -> dict[str, Any]:
    """Of the shipped file on held-out scenes, clean and disturbed: exact sets of kinds, single kinds, backgrounds, strengths."""
    classifier = load_classifier(path)
    scenes = [sample_scene(HELD_OUT + i, split="train") for i in range(count)]
    clean = to_tensor(np.stack([render(scene) for scene in scenes]))
    kinds = torch.from_numpy(np.stack([kinds_of(scene) for scene in scenes]))
    backgrounds = torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])
    images, strengths = disturb(clean, space, generator(4, 0, 0))
    found: dict[str, Any] = {}
    for name, pictures in (("clean", clean), ("disturbed", images)):
        scores = classifier(pictures)
        right = (scores.kinds > 0) == kinds.bool()
        found[f"{name}_kinds_exact"] = round(right.all(dim=1).float().mean().item(), 4)
        found[f"{name}_kinds"] = round(right.float().mean().item(), 5)
        found[f"{name}_background"] = round((scores.background.argmax(dim=1) == backgrounds).float().mean().item(), 4)
        target = strengths if name == "disturbed" else torch.zeros_like(strengths)
        error = (scores.disturbances.sigmoid() - target).abs().mean(dim=0)
        found[f"{name}_strength_error"] = dict(zip(DISTURBANCES, [round(e, 3) for e in error.tolist()], strict=True))
    return found


if __name__ == "__main__":
    main()
