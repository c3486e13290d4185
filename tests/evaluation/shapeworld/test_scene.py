"""Scenes: deterministic, well formed, the same world at every size."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsregen.evaluation.shapeworld import (
    BACKGROUNDS,
    CAPTION_WORDS,
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    sample_scene,
)

seeds = st.integers(0, 2**31)
splits = st.sampled_from(["train", "eval", "reference"])
counts = st.sampled_from([1, 2, 3, None])
sizes = st.sampled_from([(64, 64), (96, 64), (64, 96), (192, 192), (128, 320)])


@settings(deadline=None)
@given(seeds, splits, counts, sizes)
def test_a_scene_is_a_pure_function_of_its_arguments(seed: int, split: str, objects: int | None, size: tuple[int, int]) -> None:
    first = sample_scene(seed, split=split, objects=objects, size=size)
    assert first == sample_scene(seed, split=split, objects=objects, size=size)
    assert (first.width, first.height) == size
    assert objects is None or len(first.objects) == objects


@settings(deadline=None)
@given(seeds, splits, counts, sizes)
def test_objects_are_inside_apart_and_truly_described(seed: int, split: str, objects: int | None, size: tuple[int, int]) -> None:
    scene = sample_scene(seed, split=split, objects=objects, size=size)
    assert len(set(scene.phrases)) == len(scene.phrases)
    assert scene.background in BACKGROUNDS
    for item, (left, top, right, bottom) in zip(scene.objects, scene.boxes, strict=True):
        assert item.colour in COLOURS
        assert item.shape in SHAPES
        assert 0 < left < item.x < right < 1
        assert 0 < top < item.y < bottom < 1
        assert 0.11 <= item.radius <= 0.22
        assert item.size_word != "small" or item.radius <= 0.15
        assert item.size_word != "large" or item.radius >= 0.18
    assert f" {scene.caption} ".count(" and ") == len(scene.objects) - 1
    assert set(scene.caption.split()) <= set(CAPTION_WORDS)
    assert all(phrase in scene.caption for phrase in scene.phrases)


@settings(deadline=None)
@given(seeds, splits, st.integers(2, 4))
def test_size_changes_only_the_resolution(seed: int, split: str, factor: int) -> None:
    for width, height in ((64, 64), (96, 64), (64, 96)):
        small = sample_scene(seed, split=split, size=(width, height))
        large = sample_scene(seed, split=split, size=(width * factor, height * factor))
        assert small.objects == large.objects
        assert np.allclose(small.boxes, large.boxes, rtol=1e-9)
        assert small.background == large.background
        assert small.caption == sample_scene(seed, split=split).caption


def test_splits_share_no_scene() -> None:
    train = {sample_scene(seed, split="train").objects for seed in range(500)}
    held_out = {sample_scene(seed, split="eval").objects for seed in range(500)}
    assert len(train) == len(held_out) == 500
    assert not train & held_out


def test_frequencies() -> None:
    scenes = [sample_scene(seed) for seed in range(2000)]
    shares = np.bincount([len(scene.objects) for scene in scenes])[1:] / len(scenes)
    assert np.allclose(shares, (0.35, 0.45, 0.20), atol=0.03)
    items = [item for scene in scenes for item in scene.objects]
    assert np.isclose(np.mean([item.size_word != "" for item in items]), 0.30, atol=0.03)
    for words in ([item.colour for item in items], [item.shape for item in items]):
        assert np.allclose(np.array(list(Counter(words).values())) / len(words), 1 / 6, atol=0.03)
    # No place in the caption is favoured in the image.
    pairs = [scene.objects for scene in scenes if len(scene.objects) == 2]
    assert np.isclose(np.mean([first.x < second.x for first, second in pairs]), 0.5, atol=0.06)


def test_captions_are_english() -> None:
    objects = (
        SceneObject("red", "circle", "small", 0.2, 0.2, 0.12),
        SceneObject("orange", "star", "", 0.7, 0.2, 0.16),
        SceneObject("orange", "ring", "large", 0.5, 0.7, 0.20),
    )
    scene = Scene(objects, "gradient", 64, 64)
    assert scene.caption == "a small red circle and an orange star and a large orange ring"
    assert scene.phrases == ("red circle", "orange star", "orange ring")


def test_boxes_are_normalised_by_each_side() -> None:
    scene = Scene((SceneObject("red", "circle", "", 0.5, 0.5, 0.2),), "gradient", 128, 64)
    assert scene.boxes == (pytest.approx((0.4, 0.3, 0.6, 0.7)),)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'"):
        sample_scene(0, split="test")
    with pytest.raises(ValueError, match="negative"):
        sample_scene(-1)
    with pytest.raises(ValueError, match="1 to 3 objects, got 4"):
        sample_scene(0, objects=4)
    with pytest.raises(ValueError, match="positive"):
        sample_scene(0, size=(0, 64))
