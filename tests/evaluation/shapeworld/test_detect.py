"""The detector: near perfect on true images, and nothing found where nothing is."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lsregen.evaluation.shapeworld import Detection, Scene, SceneObject, detect, masks, render, sample_scene, score_scene

SIZES = [(64, 64), (96, 64), (64, 96), (192, 192)]


def blurred(image: NDArray[np.uint8], sigma: float, noise: float, seed: int) -> NDArray[np.uint8]:
    soft = ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))
    soft += np.random.default_rng(seed).normal(0, noise, soft.shape)
    return np.clip(np.round(soft), 0, 255).astype(np.uint8)


def share_right(size: tuple[int, int], sigma: float, noise: float) -> tuple[float, float]:
    """Over 60 scenes: the share of objects found right, and the mean overlap of their boxes."""
    overlaps: list[float] = []
    for seed in range(60):
        scene = sample_scene(seed, split="eval", size=size)
        found = detect(blurred(render(scene), sigma, noise, seed))
        assert len(found) == len(scene.objects)
        overlaps += [result.iou for result in score_scene(found, scene.phrases, scene.boxes)]
    return float(np.mean(np.array(overlaps) > 0)), float(np.mean(overlaps))


@pytest.mark.parametrize("size", SIZES)
def test_true_images(size: tuple[int, int]) -> None:
    right, overlap = share_right(size, 0, 0)
    assert right >= 0.985
    assert overlap >= 0.95


@pytest.mark.parametrize("size", SIZES)
def test_blurred_and_noisy_images(size: tuple[int, int]) -> None:
    right, overlap = share_right(size, 0.5, 4)
    assert right >= 0.98
    assert overlap >= 0.94


def test_heavy_blur() -> None:
    right, overlap = share_right((64, 64), 1.2, 3)
    assert right >= 0.97
    assert overlap >= 0.90


@pytest.mark.parametrize("value", [0, 90, 255])
@pytest.mark.parametrize("size", [(64, 64), (7, 5), (1, 1)])
def test_nothing_on_a_blank_image(value: int, size: tuple[int, int]) -> None:
    assert detect(np.full((*size, 3), value, dtype=np.uint8)) == []


def test_nothing_on_bare_backgrounds() -> None:
    for seed in range(60):
        scene = sample_scene(seed)
        bare = Scene((), scene.background, 64, 64, seed)
        assert detect(blurred(render(bare), 0, 4, seed)) == []


def test_colour_noise_is_specks() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert detect(noise) == []


def test_a_wholly_coloured_image_is_one_square() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[..., 0] = 200
    (found,) = detect(image)
    assert (found.colour, found.shape) == ("red", "square")
    assert found.box == pytest.approx((0, 0, 1, 1), abs=0.01)


def test_detections_are_ordered_and_their_masks_fit() -> None:
    for seed in range(20):
        scene = sample_scene(seed, split="eval", objects=3, size=(96, 64))
        found = detect(render(scene))
        scores = [detection.score for detection in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        true = dict(zip(scene.phrases, masks(scene), strict=True))
        for detection in found:
            mask = true[f"{detection.colour} {detection.shape}"]
            assert detection.mask.shape == mask.shape
            assert (detection.mask & mask).sum() / (detection.mask | mask).sum() > 0.85


@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("left", "right"), [("red", "yellow"), ("blue", "red"), ("green", "purple")])
def test_touching_objects_of_two_colours(left: str, right: str, sigma: float) -> None:
    # Where red meets yellow, blur paints orange.
    objects = (
        SceneObject(left, "square", "", 0.345, 0.5, 0.19),
        SceneObject(right, "circle", "", 0.67, 0.5, 0.18),
    )
    found = detect(blurred(render(Scene(objects, "gradient", 64, 64)), sigma, 2, 0))
    assert {(detection.colour, detection.shape) for detection in found} == {
        (left, "square"),
        (right, "circle"),
    }


def test_shapeless_patches_score_low() -> None:
    crescent = SceneObject("red", "circle", "", 0.5, 0.5, 0.2)
    inside = masks(Scene((crescent,), "gradient", 64, 64))[0]
    bite = np.roll(inside, 9, axis=1)
    image = np.where((inside & ~bite)[..., None], (230, 30, 30), (120, 120, 120)).astype(np.uint8)
    (found,) = detect(image)
    assert found.score < 0.65


def test_a_detection_can_be_told_from_an_equal_one() -> None:
    # Masks are arrays: comparing detections compares identities, never raises.
    mask = np.zeros((2, 2), dtype=np.bool_)
    assert Detection("red", "star", (0, 0, 1, 1), 1, mask) != Detection("red", "star", (0, 0, 1, 1), 1, mask)


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (64, 64, 4)])
def test_only_images_are_accepted(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[h w 3\]"):
        detect(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="got float32"):
        detect(np.zeros((64, 64, 3), dtype=np.float32))  # type: ignore[arg-type]
