"""Pixels: deterministic, where the geometry says, of the colours the words say."""

import colorsys

import numpy as np
import pytest

from lsregen.evaluation.shapeworld import COLOURS, masks, render, sample_scene


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 96), (192, 192), (33, 47)])
def test_shapes_and_determinism(size: tuple[int, int]) -> None:
    scene = sample_scene(5, size=size, objects=3)
    image = render(scene)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert (image == render(scene)).all()
    found = masks(scene)
    assert found.shape == (3, size[1], size[0])
    assert found.dtype == np.bool_
    assert found.any(axis=(1, 2)).all()


@pytest.mark.parametrize("size", [(1024, 1024), (1536, 1024)])
def test_boxes_are_tight_around_the_masks(size: tuple[int, int]) -> None:
    for seed in range(12):
        scene = sample_scene(seed, split="eval", size=size)
        for mask, box in zip(masks(scene), scene.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            # Within 4 px of 1024: the tips of stars and triangles narrow to less than a pixel.
            assert np.allclose(drawn, np.array(box) * (*size, *size), atol=4)


def test_masks_never_overlap() -> None:
    for seed in range(200):
        assert masks(sample_scene(seed, objects=3)).sum(axis=0).max() == 1


def test_objects_have_their_colour_and_backgrounds_are_nearly_grey() -> None:
    for seed in range(60):
        scene = sample_scene(seed, size=(96, 96))
        image, found = render(scene) / 255, masks(scene)
        for mask, item in zip(found, scene.objects, strict=True):
            hue, saturation, _ = colorsys.rgb_to_hsv(*np.median(image[mask], axis=0))
            away = abs(hue * 360 - COLOURS[item.colour][0])
            assert min(away, 360 - away) < 8
            assert saturation > 0.6
        # Away from antialiased outlines.
        apart = np.zeros_like(found[0])
        for left, top, right, bottom in scene.boxes:
            apart[int(top * 96) - 1 : int(bottom * 96) + 2, int(left * 96) - 1 : int(right * 96) + 2] = True
        assert np.ptp(image[~apart], axis=1).max() < 0.13


def test_the_same_world_at_another_resolution() -> None:
    for seed in range(10):
        small = render(sample_scene(seed, size=(64, 64))).astype(np.float32)
        large = render(sample_scene(seed, size=(192, 192))).astype(np.float32)
        shrunk = large.reshape(64, 3, 64, 3, 3).mean(axis=(1, 3))
        assert np.abs(small - shrunk).mean() < 2.5


def test_splits_and_seeds_look_different() -> None:
    images = [render(sample_scene(seed, split=split)) for seed in range(5) for split in ("train", "eval")]
    assert len({image.tobytes() for image in images}) == len(images)
