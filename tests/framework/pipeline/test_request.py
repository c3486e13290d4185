"""What is asked of a pipeline: lists of every kind, spread over a batch, and what is refused by its name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsregen.framework import ConfigError, Layout, Pipeline
from lsregen.framework.pipeline.request import make_batch
from lsregen.framework.sampling.image_to_image import pictures_of

LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: 0 is out of range; expected a whole number from 1 to 100,000"),
        ({"prompt": ["a", "b"], "count": 2}, "count: 2 with a list of prompts; repeat the prompts in the list instead"),
        ({"prompt": []}, "prompts: the list is empty; give at least one prompt"),
        ({"prompt": " "}, "prompt ' ' is empty; say what the picture should show"),
        ({"prompt": ["a", ""]}, "prompt '' is empty; say what the picture should show"),
        ({"seed": -1}, "seed: -1 is out of range; expected a whole number from 0 to 2^63 - 1"),
        ({"seed": 2**63}, f"seed: {2**63} is out of range; expected a whole number from 0 to 2^63 - 1"),
        ({"seed": 2**63 - 1, "count": 2}, f"seed[1]: {2**63} is out of range; expected a whole number from 0 to 2^63 - 1"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number from 0 to 2^63 - 1 or a list of whole numbers from 0 to 2^63 - 1"),
        ({"seed": [1, "a"], "count": 2}, "seed[1]: 'a' is not a whole number"),
        ({"seed": [1, 2]}, "seed: 2 given for 1 images; give one for all of them, or one each"),
        ({"negative": ["x"], "count": 2}, "negative: 1 given for 2 images; give one for all of them, or one each"),
        ({"layout": [LAYOUT] * 3, "count": 2}, "layout: 3 given for 2 images; give one for all of them, or one each"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_batch(**{"prompt": "a", "negative": "", "layout": None, "seed": 0, "count": 1, **options})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "texts",
    [iter, np.array, partial(np.array, dtype=object), dict.fromkeys, deque],
    ids=["iterator", "array", "objects", "keys", "deque"],
)
@pytest.mark.parametrize(
    "seeds",
    [iter, np.array, partial(np.array, dtype=np.uint8), torch.tensor, range],
    ids=["iterator", "array", "bytes", "tensor", "range"],
)
def test_what_has_an_order_is_a_list(texts: Callable[[Any], Any], seeds: Callable[[Any], Any]) -> None:
    def several(items: list[str]) -> Any:
        return texts(items).keys() if texts == dict.fromkeys else texts(items)

    numbers = range(2) if seeds is range else seeds([0, 1])
    batch = make_batch(several(["a", "b"]), several(["c", "d"]), iter([LAYOUT, None]), numbers, 1)
    assert batch == make_batch(["a", "b"], ["c", "d"], [LAYOUT, None], [0, 1], 1)
    assert all(type(seed) is int for seed in batch.seeds)
    assert all(type(text) is str for text in (*batch.prompts, *batch.negatives))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", np.array([["a"], ["b"]])),
        ("prompt", np.arange(3)),
        ("prompt", {"a", "b"}),
        ("prompt", {"a": 1}),
        ("prompt", iter([1, 2])),
        ("prompt", cycle(["a"])),
        ("negative", np.array([1.5, 2.5])),
        ("seed", np.array([0.0, 1.0])),
        ("seed", torch.tensor([[0, 1]])),
        ("seed", torch.tensor([True, False])),
        ("seed", torch.zeros(2, dtype=torch.long, device="meta")),
        ("seed", np.array(["0", "1"])),
        ("seed", {0, 1}),
    ],
)
def test_what_is_no_list_of_such_values_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}") as caught:
        make_batch(**{"prompt": ["a", "b"], "negative": "", "layout": None, "seed": 0, "count": 1, name: value})
    assert len(str(caught.value)) < 400


def test_settings_and_pictures_may_be_any_iterable(pipeline: Pipeline) -> None:
    sets = ("steps=3", "cfg=2")
    expected = pipeline.resolve("layout-guidance", sets=sets)[0]
    assert pipeline.resolve("layout-guidance", sets=np.array(sets))[0] == expected
    assert pipeline.resolve("layout-guidance", sets=(text for text in sets))[0] == expected
    pictures = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "red")]
    assert pictures_of(iter(pictures), 2) == tuple(pictures)


def test_single_values_are_spread_over_a_batch() -> None:
    batch = make_batch(["a", "b"], "blurred", LAYOUT, 3, 1)
    assert batch.negatives == ("blurred", "blurred")
    assert batch.layouts == (LAYOUT, LAYOUT)
    assert batch.seeds == (3, 4)
    assert make_batch("a", "", None, [2**62], 1).layouts == (Layout(),)
