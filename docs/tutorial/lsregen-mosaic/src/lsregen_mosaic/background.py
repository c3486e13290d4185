"""The feature extractor `background`: the colour of the picture outside of its boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lsregen.framework import ConfigError, Features, Needs, Range, Run, View, check_options, hookimpl, option, rasterise

Part = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Background:
    """The clean picture that the model predicts, in coarse cells, without what lies in the boxes; one colour is the target."""

    kind: ClassVar[str] = "image"

    colour: tuple[Part, Part, Part] = option((1.0, 1.0, 1.0), "what the background should be: red, green, blue")
    cell: Annotated[int, Range(1)] = option(8, "the pixels of a cell's side, over which the picture is averaged")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def needs(self) -> Needs:
        return Needs(image=True)

    def prepare(self, run: Run, raster: str) -> Tensor:
        """How much each cell belongs to the background: `[b 1 1 h w]`."""
        width, height = run.size
        grid = (height // self.cell, width // self.cell)
        if min(grid) < 1:
            raise ConfigError(f"cell: {self.cell} is more than a side of the image of {width}x{height}; choose a smaller one")
        boxes = [rasterise(layout.boxed, grid, raster) for layout in run.layouts]  # [r h w] each
        taken = [masks.amax(dim=0) if len(masks) else torch.zeros(grid) for masks in boxes]
        return (1 - torch.stack(taken))[:, None, None].to(run.z_T)

    def current(self, view: View, state: Tensor) -> Features:
        image = F.avg_pool2d(view.image(), self.cell)  # [b 3 h w]
        return self._features(image[:, None], state)

    def target(self, view: View, state: Tensor) -> Features:
        b, _, _, h, w = state.shape
        colour = state.new_tensor(self.colour).reshape(1, 1, 3, 1, 1)
        return self._features(colour.expand(b, 1, 3, h, w), state)

    def _features(self, maps: Tensor, weight: Tensor) -> Features:
        """The things are the channels, and all of them are always there."""
        present = torch.ones(len(maps), 3, dtype=torch.bool, device=maps.device)
        group = torch.arange(3, device=maps.device).expand(len(maps), 3)
        return Features((maps,), self.kind, present, group, weight=(weight,))


@hookimpl
def register_extractors(register: Callable[[str, type], None]) -> None:
    register("background", Background)
