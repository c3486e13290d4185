"""The shipped classifier knows the world, and its features tell good pictures from poor ones wherever they come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lsregen.evaluation.shapeworld import BACKGROUNDS, render, sample_scene
from lsregen.evaluation.shapeworld.classifier import (
    FEATURES,
    KINDS,
    WEIGHTS,
    image_features,
    load_classifier,
    to_tensor,
    weights_hash,
)
from lsregen.framework.errors import CheckpointError


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 96)])
def test_it_recognises_held_out_scenes(size: tuple[int, int]) -> None:
    scenes = [sample_scene(seed, split="eval", size=size) for seed in range(200)]
    with torch.no_grad():
        scores = load_classifier()(to_tensor(np.stack([render(scene) for scene in scenes])))
    truth = [{KINDS.index((item.colour, item.shape)) for item in scene.objects} for scene in scenes]
    found = [set(row.nonzero()[:, 0].tolist()) for row in scores.kinds > 0]
    assert np.mean([a == b for a, b in zip(truth, found, strict=True)]) > 0.85
    backgrounds = torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])
    assert (scores.background.argmax(dim=1) == backgrounds).float().mean() > 0.95


def test_features_depend_on_their_own_picture_alone() -> None:
    images = [
        Image.fromarray(render(sample_scene(seed, split="eval", size=size))) for seed, size in enumerate([(64, 64), (96, 64)] * 3)
    ]
    together = image_features(images, batch=2)
    assert together.shape == (6, FEATURES)
    alone = np.concatenate([image_features([image]) for image in images])
    assert together == pytest.approx(alone, abs=1e-4)
    assert 0.3 < together.std() < 3


def test_larger_pictures_are_seen_at_the_size_it_learned() -> None:
    image = Image.fromarray(render(sample_scene(0, split="eval")))
    larger = image.resize((192, 192), Image.Resampling.NEAREST)
    assert image_features([larger]) == pytest.approx(image_features([image]), abs=1e-5)


def test_other_weights_have_another_hash(tmp_path: Path) -> None:
    weights = load_file(WEIGHTS)
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    save_file(weights, same)
    save_file({**weights, "heads.bias": weights["heads.bias"] + 1}, other)
    assert len({weights_hash(path) for path in (same, other)}) == 2
    assert len(weights_hash()) == 64


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_weights_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "classifier.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="install lsregen again"):
        load_classifier(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not the weights of the shape world's classifier"):
        load_classifier(path)
