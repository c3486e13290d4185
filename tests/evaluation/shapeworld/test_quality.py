"""Pictures that look less like the world are further away, and true images are as near as can be."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lsregen.evaluation.shapeworld import quality as module
from lsregen.evaluation.shapeworld import render, sample_scene
from lsregen.evaluation.shapeworld.classifier import FEATURES, image_features
from lsregen.evaluation.shapeworld.quality import quality

COUNT = 100
SCENES = [sample_scene(seed, split="eval", objects=2) for seed in range(COUNT)]
TRUE = [Image.fromarray(render(scene)) for scene in SCENES]


@pytest.fixture(autouse=True, scope="module")
def smaller_reference() -> Iterator[None]:
    module.true_reference.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REFERENCE", 400)
        yield
    module.true_reference.cache_clear()


def found(change: Callable[[Image.Image], Image.Image]) -> dict[str, float]:
    features = image_features([change(image) for image in TRUE])
    return {name: statistic.value for name, statistic in quality(features, SCENES).items()}


def noisy(deviation: float) -> Callable[[Image.Image], Image.Image]:
    rng = np.random.default_rng(0)

    def change(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image) + rng.normal(0, deviation, (image.height, image.width, 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return change


def test_distances_grow_with_what_is_wrong() -> None:
    true = found(lambda image: image)
    assert list(true) == ["frechet", "frechet_true", "kid"]
    assert true["frechet"] == pytest.approx(true["frechet_true"], rel=1e-5)
    assert true["frechet"] > 0
    order = [true, found(noisy(5)), found(noisy(20)), found(lambda image: Image.new("RGB", image.size))]
    for better, worse in pairwise(order):
        assert better["frechet"] < worse["frechet"]
        assert better["kid"] < worse["kid"]
        assert worse["frechet_true"] == pytest.approx(true["frechet_true"], rel=1e-5)
    assert found(lambda image: image.filter(ImageFilter.GaussianBlur(1)))["frechet"] > true["frechet"]


def test_what_too_few_pictures_cannot_tell_is_left_out() -> None:
    features = image_features(TRUE[:FEATURES])
    assert list(quality(features, SCENES[:FEATURES])) == ["kid"]
    assert quality(features[:1], SCENES[:1]) == {}


def test_the_reference_shares_no_scene_with_other_splits() -> None:
    for seed in range(20):
        scenes = [sample_scene(seed, split=split, objects=2) for split in ("train", "eval", module.SPLIT)]
        assert len({scene.objects for scene in scenes}) == 3
