"""The recipe of the detector: its targets are the scenes', a step changes its weights, and what it writes is one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lsregen.evaluation.instruments.detectors import TransformersDetector
from lsregen.evaluation.shapeworld import sample_scene
from lsregen.framework.testing import check_detector
from recipes.shapeworld import train_detector as recipe
from recipes.shapeworld.export_coco import categories
from recipes.shapeworld.latent_space import patch_directions
from recipes.shapeworld.latents import CHANNELS, PATCH, LatentSpace
from recipes.shapeworld.train_classifier import disturb
from recipes.shapeworld.training import Learner, Ranks, Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    images = recipe.pictures_of([sample_scene(seed) for seed in range(16)])
    return LatentSpace(*patch_directions(images, PATCH, CHANNELS), 1.0, PATCH)


def test_targets_are_classes_and_boxes_by_centre_and_size() -> None:
    scene = sample_scene(3, objects=2)
    (target,) = recipe.targets_of([scene], torch.device("cpu"))
    assert [list(categories())[i] for i in target["class_labels"]] == list(scene.phrases)
    for (x, y, width, height), box in zip(target["boxes"].tolist(), scene.boxes, strict=True):
        assert (x - width / 2, y - height / 2, x + width / 2, y + height / 2) == pytest.approx(box, abs=1e-6)


def test_no_two_steps_see_the_same_scenes() -> None:
    scenes = [scene.seed for step in range(3) for scene in recipe.drawn(step, 4, Ranks())]
    assert len(set(scenes)) == len(scenes) == 12
    assert [len(scene.objects) for scene in recipe.drawn(0, 8, Ranks())[1::2]] == [3] * 4


@pytest.mark.long
def test_two_steps_and_what_they_write(tmp_path: Path, space: LatentSpace) -> None:
    torch.manual_seed(0)
    model: Any = recipe.network().train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    learner = Learner(Run(tmp_path / "run", Ranks()), {"model": model}, rate=recipe.LEARNING_RATE, steps=2, warmup=1)

    def loss_at(step: int, draws: torch.Generator) -> torch.Tensor:
        scenes = recipe.drawn(step, 4, Ranks())
        loss = recipe.loss_of(model, scenes, disturb(recipe.pictures_of(scenes), space, draws)[0])
        assert torch.isfinite(loss)
        return loss

    learner.learn(12, loss_at, log=1, save=1)
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) > 0.9 * len(before)
    assert list(Learner(Run(tmp_path / "run", Ranks()), {"model": model}, rate=1.0, steps=5).steps_left) == [2, 3, 4]
    recipe.export(model.eval(), tmp_path / "detector")
    detector = TransformersDetector(str(tmp_path / "detector"))
    check_detector(detector)
    assert detector.load("cpu").classes == tuple(categories())
    assert 0 <= recipe.precision(tmp_path / "detector", space, 1, disturbed=True, count=4) <= 1
