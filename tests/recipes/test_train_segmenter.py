"""The recipe of the segmenter: what it makes, and where, is what ships."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import SegformerForSemanticSegmentation

from recipes.shapeworld.train_segmenter import LABELS, OUT, network

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_network_that_ships_lies_where_the_recipe_writes_it() -> None:
    ships, made = SegformerForSemanticSegmentation.from_pretrained(ROOT / OUT), network()
    assert tuple(ships.config.id2label.values()) == LABELS
    assert {key: tensor.shape for key, tensor in ships.state_dict().items()} == {
        key: tensor.shape for key, tensor in made.state_dict().items()
    }
