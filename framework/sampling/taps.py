"""What one network pass is asked to record, and what it recorded.

A network never keeps hooks or counts layers: the recorder is an argument of the call, holds exactly the tap points that
were asked for, and dies with the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from ..config.options import check_options
from ..errors import ConfigError, nearest

PLACES = ("all", "first_up", "down", "mid", "up", "grid:coarsest")
TapKind: TypeAlias = Literal["cross_probs", "cross_logits", "self_probs", "hidden"]
TAP_KINDS: tuple[TapKind, ...] = get_args(TapKind)


@dataclass(frozen=True)
class TapRequest:
    """Tap points wanted by an extractor before the model is known: a kind, and layer selectors (see `select_layers`)."""

    kind: TapKind
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TapLayer:
    """A transformer block of a network that can be tapped.

    `name` is the module's dotted path; `place` is `down`, `mid` or `up`; `block` its index there; `downscale` how many latent
    cells one map cell spans per side; `heads` the number of attention heads.
    """

    name: str
    place: str
    block: int
    downscale: int
    heads: int


@dataclass(frozen=True, order=True)
class TapPoint:
    """One thing to record: a `kind` (one of `TAP_KINDS`) at a layer, written `layer:kind`."""

    layer: str
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in TAP_KINDS:  # not by `check_options`: networks make points in every pass
            raise ConfigError(f"tap kind {self.kind!r}: expected one of {', '.join(TAP_KINDS)}{nearest(self.kind, TAP_KINDS)}")

    def __str__(self) -> str:
        return f"{self.layer}:{self.kind}"


class EverythingRecorded(Exception):
    """Raised inside a pass by the last tap point when nothing after it is needed; the network's `observe` catches it."""


class Taps:
    """The recorder of one pass.

    Args:
        wanted: the tap points to record.
        full: run the pass to its end although everything has been recorded (the predicted noise is wanted too).

    Recorded values have the layout of `Features.maps`, `[b n k h w]`: heads and tokens for probabilities and logits (fp32),
    heads and keys for `self_probs`, 1 and channels for `hidden`.
    """

    def __init__(self, wanted: Iterable[TapPoint], *, full: bool = False) -> None:
        self.wanted = frozenset(wanted)
        self.full = full
        self._recorded: dict[TapPoint, Tensor] = {}

    def wants(self, layer: str, kind: str) -> bool:
        return TapPoint(layer, kind) in self.wanted

    def record(self, layer: str, kind: str, value: Tensor) -> None:
        """Keep `value` (`[b n k h w]`) if it is wanted. Recording a point again overwrites it: a recomputed pass is harmless.

        Raises:
            EverythingRecorded: this was the last point wanted, and the pass need not go on.
        """
        point = TapPoint(layer, kind)
        if point not in self.wanted:
            return
        again = point in self._recorded
        self._recorded[point] = value
        if not again and not self.full and len(self._recorded) == len(self.wanted):
            raise EverythingRecorded

    def __getitem__(self, point: TapPoint) -> Tensor:
        if point not in self._recorded:
            known = ", ".join(str(p) for p in sorted(self._recorded)) or "nothing"
            raise ConfigError(f"tap point {point} was not recorded in this pass (recorded: {known}); declare it in `needs`")
        return self._recorded[point]

    @property
    def loose(self) -> tuple[TapPoint, ...]:
        """What was recorded so that no gradient goes through it."""
        return tuple(point for point, value in self._recorded.items() if not value.requires_grad)

    def within(self, layer: str) -> Taps:
        """A recorder for one layer of a pass, empty: of what is wanted there, ending early only if the pass ends there."""
        wanted = {point for point in self.wanted if point.layer == layer}
        left = self.wanted - self._recorded.keys()
        return Taps(wanted, full=self.full or not left or not left <= wanted)

    def spread(self, taken: Callable[[Tensor], Tensor]) -> Taps:
        """What was recorded, for other samples: `taken` gives each of them what it takes of a tensor `[b ...]`."""
        spread = Taps(self.wanted, full=self.full)
        spread._recorded = {point: taken(value) for point, value in self._recorded.items()}
        return spread


def select_layers(layers: Sequence[TapLayer], selectors: Sequence[str]) -> tuple[TapLayer, ...]:
    """The layers that any of the selectors picks, in the order of the forward pass.

    A selector is `all`, `down`, `mid`, `up`, `first_up` (the first up block that has attention), `grid:coarsest` (the coarsest
    grid found outside the mid block, wherever it occurs), `grid:1/4` (maps with a quarter of the latent's side), or a glob on the
    layer's name such as `up_blocks.1.*`.

    Raises:
        ConfigError: a selector picks nothing; the message lists the layers that exist.
    """
    picked: set[str] = set()
    for selector in selectors:
        found = [layer.name for layer in layers if _matches(layer, selector, layers)]
        if not found:
            meant = _meant(selector, layers)
            names = "\n  ".join(f"{layer.name} (grid 1/{layer.downscale})" for layer in layers)
            raise ConfigError(
                f"layer selector {selector!r} picks no attention layer of this model{meant}; its layers:\n  {names}"
            )
        picked.update(found)
    return tuple(layer for layer in layers if layer.name in picked)


def _meant(selector: str, layers: Sequence[TapLayer]) -> str:
    """The nearest selector that picks something; `mid` for `middle`, which is too long to be near."""
    places = [place for place in PLACES if any(_matches(layer, place, layers) for layer in layers)]
    others = [text for layer in layers for text in (f"grid:1/{layer.downscale}", layer.name)]
    near = nearest(selector, [*places, *others])
    begun = next((place for place in places if selector.casefold().startswith(place)), None)
    return near or (f" (did you mean {begun!r}?)" if begun else "")


def _matches(layer: TapLayer, selector: str, layers: Sequence[TapLayer]) -> bool:
    if selector == "all" or selector == layer.place:
        return True
    if selector == "first_up":
        return layer.place == "up" and layer.block == min(other.block for other in layers if other.place == "up")
    if selector == "grid:coarsest":
        outside_mid = [other.downscale for other in layers if other.place != "mid"]
        return bool(outside_mid) and layer.downscale == max(outside_mid)
    if selector.startswith("grid:1/"):
        return selector.removeprefix("grid:1/") == str(layer.downscale)
    return fnmatchcase(layer.name, selector)
