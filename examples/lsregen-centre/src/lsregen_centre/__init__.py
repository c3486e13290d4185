"""A plugin of one distance. Copy this folder, rename it, and write your own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lsregen.framework import ConfigError, Energy, Features, hookimpl, mean_present, option, over_groups


@dataclass(frozen=True)
class Centre:
    """Squared distance between the centre of mass of a phrase's map and the centre of its box, in fractions of the image.

    Says where a phrase should be, but not how large.
    """

    accepts: ClassVar[tuple[str, ...]] = ("attention", "probability")
    needs_target: ClassVar[bool] = True

    raster: str = option("area", "how boxes become masks on a map's grid")

    def __call__(self, current: Features, target: Features | None) -> Energy:
        if target is None:
            raise ConfigError("centre needs boxes: the target is each phrase's mask")
        per_map = [
            (centre_of(maps) - centre_of(mask)).square().sum(dim=-1).mean(dim=1)  # [b k]
            for maps, mask in zip(current.maps, target.maps, strict=True)
        ]
        energy = torch.stack(per_map).mean(dim=0)
        present = current.present & target.present
        return Energy.of(mean_present(*over_groups(energy, present, current.group)))


def centre_of(maps: Tensor) -> Tensor:
    """Centre of mass `[b n k 2]`, as fractions of height and width, of maps `[b n k h w]`; the middle for an empty map."""
    h, w = maps.shape[-2:]
    rows = (torch.arange(h, dtype=maps.dtype, device=maps.device) + 0.5) / h - 0.5  # from the middle
    columns = (torch.arange(w, dtype=maps.dtype, device=maps.device) + 0.5) / w - 0.5
    mass = maps.sum(dim=(-2, -1))
    mass = mass.masked_fill(mass == 0, 1)
    down = (maps.sum(dim=-1) * rows).sum(dim=-1) / mass
    across = (maps.sum(dim=-2) * columns).sum(dim=-1) / mass
    return 0.5 + torch.stack([down, across], dim=-1)


@hookimpl
def register_distances(register: Callable[[str, type], None]) -> None:
    register("centre", Centre)
