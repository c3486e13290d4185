"""How much a set of pictures looks like the world: distances between its features and those of true images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

from PIL import Image

from ..metrics.bootstrap import Statistic
from ..metrics.feature_distances import Reference, enough, frechet_distance, kernel_distance
from .classifier import Features, image_features
from .render import render
from .scene import Scene, sample_scene

REFERENCE = 2048  # true images to compare with
SPLIT = "reference"


def quality(features: Features, scenes: Sequence[Scene]) -> dict[str, Statistic]:
    """The distances of pictures from true images, by their features `[n 64]` in the order of their scenes.

    `frechet`, `kid`: from the reference, which holds scenes of the same size with as many objects. `frechet_true`: the same
    distance of the true images of these very scenes, what a perfect method would get. The Frechet distances are left out unless
    there are more pictures than features, and all of them for a single picture.
    """
    if len(scenes) < 2:
        return {}
    first = scenes[0]
    reference = true_reference(len(first.objects), (first.width, first.height))
    found = {"kid": kernel_distance(features, reference)}
    if enough(features):
        found["frechet"] = frechet_distance(features, reference)
        found["frechet_true"] = frechet_distance(true_features(tuple(scenes)), reference)
    return dict(sorted(found.items()))


@cache
def true_reference(objects: int, size: tuple[int, int]) -> Reference:
    """`REFERENCE` true images of scenes that are used for nothing else."""
    return Reference(_rendered(sample_scene(seed, split=SPLIT, objects=objects, size=size) for seed in range(REFERENCE)))


@lru_cache(maxsize=16)
def true_features(scenes: tuple[Scene, ...]) -> Features:
    """Features `[n 64]` of the images that the scenes should have."""
    return _rendered(scenes)


def _rendered(scenes: Iterable[Scene]) -> Features:
    return image_features([Image.fromarray(render(scene)) for scene in scenes])
