"""When a term pulls, how hard, how often within a step, and where its pull is applied: all of it data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from ..config.constraints import OneOf, Range, Share
from ..config.options import check_options, option
from ..errors import ConfigError
from ..plugins.functions import Functions
from ..types import Step

if TYPE_CHECKING:
    from torch import Tensor

MOST_UPDATES = 10_000
"""Of one term within one step."""
Updates: TypeAlias = Annotated[int, Range(1, MOST_UPDATES)]
Site: TypeAlias = Literal["before", "after", "noise", "z0"]
DECAYS: Mapping[str, Callable[[Step], float]] = Functions(
    "decay",
    {
        "constant": lambda step: 1.0,
        # Attend-and-Excite: the root of a line from 1 to 1/2 over all steps.
        "sqrt_linear": lambda step: (1 - 0.5 * step.index / max(1, step.count - 1)) ** 0.5,
        "linear": lambda step: 1 - step.index / step.count,
        # layout-guidance multiplies by sigma^2 in a variance-exploding sampler; in ours that is 1 - alpha_bar.
        "one_minus_alpha_bar": lambda step: 1 - step.alpha_bar,
        # ZestGuide multiplies by the share of noise in the latent.
        "sqrt_one_minus_alpha_bar": lambda step: (1 - step.alpha_bar) ** 0.5,
    },
)
NORMALISATIONS: Mapping[str, Callable[[Tensor], Tensor]] = Functions(
    "normalisation",
    {
        "none": lambda gradient: gradient.new_ones(len(gradient)),
        "linf": lambda gradient: gradient.abs().amax(dim=1),
        "rms": lambda gradient: gradient.square().mean(dim=1).sqrt(),
    },
)
"""From gradients `[b n]` to what they are divided by, `[b]`."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of one term.

    A negative `gamma` raises the energy: it pushes away from what the distance asks for, and nothing ends that by itself.
    `normalise` keeps its sign; `stop_below` and `refine`, which wait for a low energy, are refused beside it, and `blend` is
    never negative.

    A step of fraction `f` (0 is the noisiest) is guided when `from_ <= f < until`. Its strength is `gamma` times the decay.
    Within a step the pull is repeated up to `repeats` times; a sample whose watched energy was at most `stop_below` when its last
    update was computed is left alone for the rest of the step, or of the run (`stop_forever`).

    `refine` maps fractions of the run to `(threshold, most)`: at that step a sample above the threshold is first pulled until it
    was at most the threshold, `most` times at the most; then, if `final_update`, it gets the ordinary updates of the step too
    (Chefer et al. 2023, section 4.2).

    Raises:
        ConfigError: a value is out of its range, or repeats are asked for at a site that shares its pass with denoising.
    """

    gamma: float = option(
        1.0, "strength: what the gradient is multiplied by; its scale depends on the site; a negative one pushes away"
    )
    decay: Annotated[str, OneOf(DECAYS)] = option("constant", "how the strength falls")
    blend: Share | None = option(
        None, "for l2 on latents, instead of gamma: how far a pull goes toward the target, from 0 (not at all) to 1 (onto it)"
    )
    from_: Share = option(0.0, "first guided step, as a fraction of all steps")
    until: Share = option(1.0, "end of the guided steps, as a fraction of all steps (not included)")
    repeats: Updates = option(1, "most updates within one step")
    stop_below: float | None = option(None, "leave a sample alone for this step once its energy was at most this")
    stop_forever: bool = option(False, "and for the rest of the run")
    refine: Mapping[Share, tuple[float, Updates]] = field(
        default_factory=dict[float, tuple[float, int]],
        metadata={"help": "fraction of the run: [energy to reach, most updates] before the ordinary update of that step"},
    )
    final_update: bool = option(True, "make the ordinary updates after a refinement too")
    normalise: Annotated[str, OneOf(NORMALISATIONS)] = option("none", "divide each sample's gradient by its size")
    non_finite: Literal["error", "skip"] = option(
        "error",
        "a sample's gradient that is not finite is an error, or its update by all terms of that backward skipped; an energy that "
        "is not finite is an error always",
    )
    site: Site = option("before", "where the pull is applied")

    def __post_init__(self) -> None:
        check_options(self)
        if self.blend is not None and (self.gamma != 1 or self.normalise != "none"):
            given = f"gamma {self.gamma}" if self.gamma != 1 else f"normalise {self.normalise!r}"
            raise ConfigError(f"blend: {self.blend} beside {given}; blend is the strength itself, so leave the other out")
        if self.from_ >= self.until:
            raise ConfigError(f"from {self.from_} is not before until {self.until}: no step would be guided")
        for fraction in self.refine:
            if not self.from_ <= fraction < self.until:
                raise ConfigError(
                    f"refine: {fraction}: expected a fraction from {self.from_} to below {self.until}, the guided part of the run"
                )
        if self.gamma < 0 and (self.stop_below is not None or self.refine):
            waits = "refine" if self.refine else "stop_below"
            raise ConfigError(
                f"gamma: {self.gamma} pushes the energy up, and {waits} waits until it is low; leave one of them out"
            )
        if self.site in ("after", "noise") and (self.repeats > 1 or self.refine):
            raise ConfigError(f"site {self.site!r} shares its pass with denoising: repeats and refine need site 'before' or 'z0'")

    def active(self, step: Step) -> bool:
        """Whether this step lies in the window."""
        return first_step(self.from_, step.count) <= step.index < first_step(self.until, step.count)

    def strength(self, step: Step) -> float:
        """What the gradient is multiplied by. That of a squared distance is twice the way to the target."""
        gamma = self.gamma if self.blend is None else 0.5 * self.blend
        return gamma * DECAYS[self.decay](step)

    def refinement(self, step: Step) -> tuple[float, int] | None:
        """Threshold and most updates, if a refinement is due at this step; the latest, where few steps bring several together."""
        last = first_step(self.until, step.count) - 1
        due = {f: refinement for f, refinement in self.refine.items() if min(first_step(f, step.count), last) == step.index}
        return due[max(due)] if due else None


def first_step(fraction: float, count: int) -> int:
    """The first step that has at least this fraction of the run behind it."""
    return ceil(fraction * count - 1e-9)  # .3 * 10 is not 3
