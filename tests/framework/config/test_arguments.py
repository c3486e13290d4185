"""Arguments of Python are told by their names; what every one refuses is tried in `tests/bad_input`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import Guidance, Layout, LsregenError, Pipeline, Result, Schedule, Term

PROMPT = "a red circle and a blue square"
BOXES = {"red circle": (0.1, 0.1, 0.5, 0.5)}
TERM = Term(CrossAttention(), MaxToken())


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")


def called(pipeline: Pipeline, **changed: Any) -> object:
    return pipeline(**{"prompt": PROMPT, "layout": Layout.from_boxes(BOXES), "steps": 1, "guidance": {}, **changed})


def test_numbers_of_other_libraries_are_numbers(pipeline: Pipeline) -> None:
    result = called(pipeline, seed=np.int64(3), steps=torch.tensor(1), cfg=np.float32(2), count=np.array(2), trace=np.int8(0))
    assert isinstance(result, Result)
    assert result.report.seeds == (3, 4)
    assert type(result.report.config["cfg"]) is float
    assert Schedule(gamma=np.float32(2), repeats=np.int64(3)) == Schedule(gamma=2.0, repeats=3)


@pytest.mark.parametrize("guidance", [{"steps": None}, {"steps": "many"}, {"cfg": "high"}, {"sampler": "ddim", "cfg": []}])
def test_what_is_overridden_must_be_of_the_right_kind_too(pipeline: Pipeline, guidance: dict[str, Any]) -> None:
    with pytest.raises(LsregenError, match=r"steps|cfg"):
        pipeline.resolve(guidance, steps=2, cfg=2.0)


def test_sets_beside_a_guidance_object_are_told_apart(pipeline: Pipeline) -> None:
    guidance = Guidance(TERM)
    with pytest.raises(LsregenError, match=r"guidance\.MaxToken\.gamma=3.*Guidance object"):
        pipeline.resolve(guidance, sets=["guidance.MaxToken.gamma=3"])
    assert pipeline.resolve(guidance, sets=["steps=3"])[0].steps == 3
