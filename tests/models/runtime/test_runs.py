"""Whole runs of a model whose prompt is cut, or whose numbers break: said once, with what to change."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lsregen.framework import Layout, NonFiniteError, PhraseError, Pipeline

CUT = "a red circle and a blue circle and a red circle and a blue circle"  # two words too long
BOX = (0.1, 0.1, 0.6, 0.6)


@pytest.fixture
def pipeline(oracles: Any) -> Pipeline:
    """Of a model of its own, which may be broken."""
    return Pipeline.load(oracles("base").folder, device="cpu", dtype="fp32")


def test_a_prompt_that_is_cut(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pipeline(CUT, layout=Layout.from_boxes({"red circle#1": BOX}), guidance="layout-guidance", steps=1)
    assert [record.getMessage() for record in caplog.records] == [
        "a prompt is too long for 16 tokens; the model does not see its end: 'and a blue circle'"
    ]
    with pytest.raises(PhraseError, match=r"phrase 'blue circle#2'.*does not see"):
        pipeline(CUT, layout=Layout.from_boxes({"blue circle#2": BOX}), guidance="layout-guidance", steps=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "guidance", "said"),
    [
        ("unet.mid_block.resnets.0.conv1", None, r"step 0 \(t=\d+\): the latents of the seeds 3 are not finite"),
        ("unet.mid_block.resnets.0.conv1", "layout-guidance", r"term 'layout' at step 0 \(t=\d+\): its energy is \[nan\]"),
        ("autoencoder.decoder.conv_in", None, "the autoencoder gave values that are not finite for the seeds 3"),
    ],
)
def test_a_network_that_breaks(pipeline: Pipeline, value: float, part: str, guidance: str | None, said: str) -> None:
    network, _, module = part.partition(".")
    weights: Any = getattr(pipeline.model, network).get_submodule(module).weight
    weights.fill_(value)
    layout = None if guidance is None else Layout.from_boxes({"red circle": BOX})
    steps: list[int] = []
    weights_of = {"unet": "unet", "autoencoder": "vae"}[network]
    with pytest.raises(NonFiniteError, match=rf"{said}.* in torch\.float32; the weights of {weights_of} hold"):
        pipeline("a red circle", layout=layout, guidance=guidance, steps=2, seed=3, on_step=lambda report: steps.append(report))
    assert len(steps) == (2 if network == "autoencoder" else 0)


def test_a_network_that_overflows_before_any_pull(pipeline: Pipeline) -> None:
    """Its weights are finite, and guidance has moved nothing: no gamma is at fault."""
    weights: Any = pipeline.model
    weights.unet.conv_in.weight.fill_(torch.finfo(torch.float32).max)
    layout = Layout.from_boxes({"red circle": BOX})
    for guidance in ("layout-guidance", None):
        with pytest.raises(NonFiniteError, match="step 0") as caught:
            pipeline("a red circle", layout=layout, guidance=guidance, steps=2, seed=3)
        assert "gamma" not in str(caught.value)


def test_an_overflow_in_half_precision_names_it(oracles: Any) -> None:
    half: Any = Pipeline.load(oracles("base").folder, device="cpu", dtype="fp16")
    weights = half.model.unet.conv_out.weight
    weights.fill_(torch.finfo(torch.float16).max)
    with pytest.raises(NonFiniteError, match=r"with the network in torch\.float16; try --dtype fp32"):
        half("a red circle", steps=2, seed=3)
