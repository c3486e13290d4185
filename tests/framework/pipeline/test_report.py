"""What a result is in Python: short to look at, shown as an image, and usable when a run was ended early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lsregen.framework import Layout, Pipeline, Result, StepReport
from lsregen.framework.sampling.image_to_image import to_pil

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.1, 0.1, 0.5, 0.5)})
SOURCE = {"model": "shapeworld-base", "steps": 1, "guidance": {}}
TERM = {"extractor": {"name": "gligen_inversion", "source": SOURCE}, "distance": "l2", "blend": 0.5}


@pytest.fixture(scope="module")
def result(pipeline: Pipeline) -> Result:
    return pipeline(PROMPT, layout=LAYOUT, guidance="layout-guidance", steps=2)


def test_a_result_is_short_to_look_at(result: Result) -> None:
    assert len(repr(result)) < 500


def test_a_notebook_shows_the_image(result: Result) -> None:
    shown: Any = result
    assert shown._repr_png_().startswith(b"\x89PNG")


def test_a_run_that_is_ended_gives_the_clean_estimate(pipeline: Pipeline) -> None:
    seen: list[StepReport] = []

    def end(report: StepReport) -> bool:
        seen.append(report)
        return False

    ended = pipeline(PROMPT, steps=10, seed=1, on_step=end)
    with torch.no_grad():
        (estimate,) = to_pil(pipeline.model.decode(seen[-1].prediction.z0))
    assert np.abs(np.asarray(ended.image).astype(int) - np.asarray(estimate).astype(int)).max() <= 1


@pytest.mark.filterwarnings("ignore")
def test_a_source_is_rendered_once_for_all_terms(pipeline: Pipeline) -> None:
    result = pipeline(PROMPT, layout=LAYOUT, guidance={"guidance": {"one": TERM, "two": TERM}}, steps=2)
    assert len(result.renders) == 1
