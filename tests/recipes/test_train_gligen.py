"""The recipe of the model that sees boxes: its UNet learns, the base's text encoder does not, and what is exported is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsregen.evaluation.metrics.bootstrap import box_overlap
from lsregen.evaluation.shapeworld import detect
from lsregen.framework import LoadOptions
from lsregen.framework.sampling.image_to_image import to_pil
from lsregen.models import EMBEDDED, DiffusersFolder
from recipes.shapeworld import export_gligen
from recipes.shapeworld import train_gligen as recipe
from recipes.shapeworld.training import generator
from tests.recipes.conftest import FEW, Starter, check_model, check_updates

pytestmark = pytest.mark.slow

BASE = EMBEDDED / "shapeworld-base"


def load_base() -> Any:
    return DiffusersFolder().load(BASE, LoadOptions(device="cpu", dtype="fp32"))


@pytest.fixture(scope="module")
def base() -> Any:
    return load_base()


@pytest.fixture(scope="module")
def batches(start: Starter, base: Any) -> recipe.Batches:
    return recipe.Batches(start.images, base.text.encoders[0], FEW)


@pytest.mark.long
def test_it_learns_and_resumes_and_its_export_is_a_model(
    start: Starter, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = load_base()
    monkeypatch.setattr(DiffusersFolder, "load", lambda *_args, **_options: used)
    check_updates(start, recipe.main, tmp_path / "run", networks={"unet"})
    monkeypatch.undo()
    frozen = base.text.encoders[0].network.state_dict()
    assert all(torch.equal(frozen[name], value) for name, value in used.text.encoders[0].network.state_dict().items())
    assert export_gligen.export(tmp_path / "model", tmp_path / "run", BASE) == 2
    check_model(tmp_path / "model", "shapeworld-gligen", tmp_path / "run")


def test_it_starts_from_what_the_base_computes(base: Any, batches: recipe.Batches) -> None:
    images, ids, boxes = batches.draw(0, generator(5, 0, 0))
    context = base.text.encoders[0].network(input_ids=ids).last_hidden_state
    z, t = torch.randn(len(images), 8, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((len(images),), 500)
    grounded = recipe.Grounded(recipe.start_from(base.unet), base.text.encoders[0].encode(recipe.PHRASES).pooled)
    assert boxes.there.any()
    torch.testing.assert_close(grounded(z, t, context, boxes), base.unet(z, t, context))


@pytest.mark.parametrize("step", [0, 5, 11])  # square, and the two oblong sizes
def test_boxes_are_where_the_objects_are(batches: recipe.Batches, step: int) -> None:
    images, _, boxes = batches.draw(step, generator(5, step, 0))
    for picture, corners, phrases, there in zip(to_pil(images / 2 + 0.5), boxes.boxes, boxes.phrases, boxes.there, strict=True):
        found = detect(np.asarray(picture))
        for box, number in zip(corners[there > 0].tolist(), phrases[there > 0].tolist(), strict=True):
            same = [one for one in found if f"{one.colour} {one.shape}" == recipe.PHRASES[number]]
            assert max(box_overlap(one.box, box) for one in same) > 0.8


def test_heads_are_told_until_half_of_the_decay() -> None:
    assert [recipe.told(step, 100, 0.4) for step in (0, 60, 70, 80, 99)] == [1, 1, 0.5, 0, 0]
