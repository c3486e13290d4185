"""What a model could do at best: does its autoencoder keep the objects, and does its attention know where they are?

Both are measured on true images of the world, without sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from ...framework.types import Image
from ..metrics.bootstrap import bootstrap, mean
from .detect import detect
from .pointing import attend, mean_map, peaks_in_box
from .scene import Scene
from .scenes import Scenes
from .score import score_scene
from .true_images import decode, diagnostic_step, encode, true_images

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline

LAYERS = ("mid", "first_up")


def diagnose(
    pipeline: Pipeline, scenes: Scenes, *, batch: int = 32, on_done: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """The diagnostics of a pipeline's model as JSON, each a share of objects with its interval over scenes.

    `true_images_right`: recognised in the true images, the detector's own ceiling. `autoencoder_right`: still recognised after
    encoding and decoding. `attention_peak_in_box`: see
    `pointing.peaks_in_box`; of the mid block and the first up block, averaged.
    """
    model, step = pipeline.model, diagnostic_step(pipeline)
    shares: dict[str, list[float]] = {"true_images_right": [], "autoencoder_right": [], "attention_peak_in_box": []}
    for first in range(0, scenes.count, batch):
        chosen = [scenes.scene(seed) for seed in scenes.seeds[first : first + batch]]
        images = true_images(chosen)
        z0 = encode(model, images)
        shares["true_images_right"] += shares_right(chosen, images)
        shares["autoencoder_right"] += shares_right(chosen, decode(model, z0))
        seen = attend(model, chosen, z0, step, LAYERS)
        shares["attention_peak_in_box"] += peaks_in_box(model, chosen, mean_map(list(seen.values())))
        on_done(len(chosen))
    return {
        "objects": scenes.objects,
        "size": list(scenes.size),
        "count": scenes.count,
        "seed": scenes.seed,
        "attention_timestep": step.t,
        "metrics": {name: bootstrap(mean(values, share=True)).to_json() for name, values in shares.items()},
    }


def shares_right(scenes: Sequence[Scene], images: Image) -> list[float]:
    """The share of each scene's objects that are recognised in its image, colour and shape."""
    pixels = rearrange((images.clamp(0, 1) * 255).round().byte().cpu(), "b c h w -> b h w c").contiguous().numpy()
    results = [score_scene(detect(image), scene.phrases, scene.boxes) for scene, image in zip(scenes, pixels, strict=True)]
    return [float(np.mean([result.right for result in scene])) for scene in results]
