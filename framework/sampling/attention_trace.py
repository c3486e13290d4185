"""Watching a run: the attention map of every phrase at some of the steps, whatever guidance looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..events import StepReport, drained
from ..guidance.term import preparing
from ..protocols import FeatureExtractor, Run
from .taps import TapPoint, Taps, select_layers


@dataclass
class AttentionTrace:
    """An observer of the loop that looks at every phrase through an extractor, at about `shots` steps.

    `maps[index]` is `[b k h w]`: the mean over views for each thing, on the finest of the extractor's grids, of the latent
    that step denoised; a run that starts from a picture makes the later steps alone. Costs one partial pass without gradient per
    shot.
    """

    run: Run
    extractor: FeatureExtractor
    shots: int = 8
    maps: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __post_init__(self) -> None:
        count = len(self.run.steps)
        shots = min(self.shots, count)
        self.indices = {self.run.steps[round(i * (count - 1) / max(1, shots - 1))].index for i in range(shots)}
        self.points = [
            TapPoint(layer.name, request.kind)
            for request in self.extractor.needs.taps
            for layer in select_layers(self.run.denoiser.layers, request.layers)
        ]
        self.state = drained(preparing(self.extractor, self.run, "area"))

    @torch.no_grad()
    def __call__(self, report: StepReport) -> None:
        if report.step.index not in self.indices:
            return
        view = self.run.denoiser.observe(report.z, report.step, Taps(self.points))
        maps = max(self.extractor.current(view, self.state).maps, key=lambda m: m.shape[-1])  # [b n k h w]
        self.maps[report.step.index] = maps.mean(dim=1).cpu()  # [b k h w]
