"""Diagnostics of stand-in models: one that keeps everything and looks right, one that blurs and looks elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lsregen.evaluation.shapeworld.diagnostics import diagnose
from lsregen.evaluation.shapeworld.pointing import average_maps, best_layers, layer_pointing, mean_map
from lsregen.evaluation.shapeworld.scenes import Scenes
from lsregen.framework.layout.rasters import rasterise
from lsregen.framework.layout.regions import Box
from lsregen.framework.layout.tokens import Piece, TokenTable
from lsregen.framework.sampling.taps import TapLayer
from lsregen.framework.types import NoiseSchedule, Step

SCENES = Scenes(objects=2, size=(64, 64), count=5, seed=3)
LAYERS = (TapLayer("mid", "mid", 0, 2, 2), TapLayer("up0", "up", 0, 1, 2), TapLayer("up1", "up", 1, 1, 2))


@dataclass
class FakeModel:
    """Latents are images; each word of a caption attends to the box of its object, or to the one beside it."""

    swapped: bool = False
    blur: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    noise_schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    name: str = "fake"

    def encode_image(self, images: Tensor) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        return torch.nn.functional.avg_pool2d(images, self.blur)

    def decode(self, z: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(z, scale_factor=self.blur)

    def tokens(self, prompt: str) -> TokenTable:
        pieces, start = [Piece(0, "<bos>", 0, 0, True)], 0
        for word in prompt.split():
            pieces.append(Piece(len(pieces), word, start, start + len(word)))
            start += len(word) + 1
        return TokenTable(prompt, tuple(pieces))

    def bind(self, prompts: Sequence[str], *_: Any, cfg: float, count: int) -> Any:
        assert cfg == 1
        return SimpleNamespace(layers=LAYERS, observe=lambda z, step, taps: self.observe(prompts, z, step, taps))

    def observe(self, prompts: Sequence[str], z: Tensor, step: Step, taps: Any) -> dict[Any, Tensor]:
        assert step.t == 701
        assert {point.layer for point in taps.wanted} in ({"mid", "up0"}, {"mid", "up0", "up1"})
        signal = z.std() / step.alpha_bar**0.5
        assert signal > 0.5, "noised, not clean"
        grids = {"mid": (8, 8), "up0": (16, 16), "up1": (16, 16)}
        return {
            point: torch.stack([self._maps(p, grids[point.layer], point.layer == "up1") for p in prompts])
            for point in taps.wanted
        }

    def _maps(self, prompt: str, grid: tuple[int, int], blind: bool) -> Tensor:
        scene = next(scene for seed in SCENES.seeds if (scene := SCENES.scene(seed)).caption == prompt)
        table, masks = self.tokens(prompt), [rasterise(Box(*box), grid) for box in scene.boxes]
        maps = torch.rand(2, table.length, *grid, generator=torch.Generator().manual_seed(0)) * 0.1
        for i, phrase in enumerate(() if blind else scene.phrases):
            maps[:, table.span(phrase)[-1]] += masks[1 - i if self.swapped else i]
        return maps


def pipeline(model: FakeModel) -> Any:
    def schedule(noise: NoiseSchedule, count: int) -> tuple[Step, ...]:
        return tuple(Step(i, count, 981 - 20 * i, 0.1, 0.2) for i in range(count))

    resolved = SimpleNamespace(sampler=SimpleNamespace(schedule=schedule))
    return cast("Any", SimpleNamespace(model=model, resolve=lambda guidance: (resolved, None)))


def metrics_of(model: FakeModel) -> dict[str, float]:
    found = diagnose(pipeline(model), SCENES, batch=2)
    assert (found["count"], found["attention_timestep"]) == (5, 701)
    return {name: interval["value"] for name, interval in found["metrics"].items()}


def test_a_model_without_fault() -> None:
    assert metrics_of(FakeModel()) == {"true_images_right": 1, "autoencoder_right": 1, "attention_peak_in_box": 1}


def test_faults_are_found() -> None:
    found = metrics_of(FakeModel(swapped=True, blur=16))
    assert found["true_images_right"] == 1
    assert found["autoencoder_right"] < 0.6
    assert found["attention_peak_in_box"] < 0.2


def test_every_layer_is_measured() -> None:
    found = layer_pointing(pipeline(FakeModel()), SCENES, batch=2)
    assert [(entry["layer"], entry["grid"]) for entry in found] == [
        ("mid", [8, 8]), ("up0", [16, 16]), ("up1", [16, 16]), ("all", [16, 16]),
    ]  # fmt: skip
    values = {entry["layer"]: entry["metrics"]["peak_in_box"]["value"] for entry in found}
    assert values["mid"] == values["up0"] == values["all"] == 1
    assert values["up1"] < 0.5, "that layer looks nowhere"
    assert best_layers(found, 1) == ["mid"]
    assert best_layers(found, 2) == ["mid", "up0"]


def test_maps_to_look_at() -> None:
    scene = SCENES.scene(4)
    image, maps = average_maps(pipeline(FakeModel()), scene)
    assert image.shape == (3, 64, 64)
    assert [box for _, box in maps] == list(scene.boxes)
    for values, (left, top, right, bottom) in maps:
        row, column = divmod(int(values.argmax()), 16)
        assert left <= (column + 0.5) / 16 <= right
        assert top <= (row + 0.5) / 16 <= bottom


def test_maps_of_several_grids_are_averaged_on_the_finest() -> None:
    found = mean_map([torch.full((1, 2, 3, 4, 4), 1.0), torch.full((1, 4, 3, 8, 8), 3.0)])
    assert found.shape == (1, 3, 8, 8)
    assert found.mean().item() == pytest.approx(2)
