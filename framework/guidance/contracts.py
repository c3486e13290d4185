"""What plugins hand over during a run, checked where it comes in, so that a fault names the plugin and not a line of lsregen."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import cast

import torch
from torch import Tensor

from ..capabilities import Diagnosing, blends
from ..config.options import convert
from ..errors import ConfigError, PluginError, shown
from ..protocols import Distance, FeatureExtractor, Model
from ..types import Energy, Features, Step, View
from .schedule import Schedule, first_step

LOOKS = ("kind",)
MEASURES = ("accepts",)


def check_parts(term: str, extractor: object, distance: object, schedule: object) -> None:
    """Refuse what a term cannot be made of.

    Raises:
        ConfigError: the parts are swapped, a class stands for its instance, or one is another thing altogether.
    """
    parts = {"extractor": (extractor, LOOKS), "distance": (distance, MEASURES)}
    for place, (given, members) in parts.items():
        kind = given if isinstance(given, type) else type(given)
        fits = all(hasattr(given, member) for member in members)
        if fits and not isinstance(given, type):
            continue
        mended = f"; write {kind.__name__}(...)" if fits else ""
        if all(hasattr(kind, member) for member in (MEASURES if place == "extractor" else LOOKS)):
            mended = "; the extractor comes first: Term(extractor, distance)"
        said = f"the class {kind.__name__}" if isinstance(given, type) else kind.__name__
        raise ConfigError(f"term {term or '?'}: {place}: {said} is no {place}{mended}")
    convert(term, str, "term: name")
    if not isinstance(schedule, Schedule):
        raise ConfigError(f"term {term or '?'}: schedule: {shown(schedule)} is no schedule; write Schedule(gamma=...)")


def check_pull(term: str, extractor: FeatureExtractor, distance: Distance, schedule: Schedule) -> None:
    """Refuse a pull where nothing would move, or a blend where another share would be moved than it says.

    Raises:
        ConfigError: the site does not suit what the extractor looks at, or the distance does not blend.
    """
    if schedule.site != "z0" and schedule.blend is None:
        return
    needs, where = extractor.needs, f"term {term or '?'}"
    if schedule.site == "z0" and not (needs.taps or needs.estimate):
        raise ConfigError(
            f"{where}: extractor {type(extractor).__name__} looks at z alone, which a pull at site 'z0' does not move; take site "
            "'before'"
        )
    if schedule.blend is None:
        return
    if not _blends(extractor, distance):
        raise ConfigError(
            f"{where}: blend {schedule.blend}: only a squared distance between latents (l2, with the reduction sum) moves a "
            "known share of the way to its target; give gamma instead"
        )
    if schedule.site != (site := _site_of_blends(extractor)):
        raise ConfigError(
            f"{where}: blend {schedule.blend} at site {schedule.site!r}: the extractor looks at "
            f"{'the clean estimate' if needs.estimate else 'z'}, and only at site {site!r} is that moved by the share asked for; "
            "take that site, or give gamma instead"
        )


def overshoot(term: str, extractor: FeatureExtractor, distance: Distance, schedule: Schedule) -> str | None:
    """What is said of a gamma that goes beyond the target, where the share of the way is known: pull after pull adds to that."""
    share = 2 * schedule.gamma  # as a blend; see `Schedule.strength`
    known = _blends(extractor, distance) and schedule.site == _site_of_blends(extractor) and schedule.normalise == "none"
    if schedule.blend is not None or not known or share <= 1:
        return None
    return (
        f"term {term!r}: gamma {schedule.gamma:g} goes {share:g} times the way to the target, so the pulls swing around it or "
        "lead away from it; give blend instead, between 0 (not at all) and 1 (onto it)"
    )


def _blends(extractor: FeatureExtractor, distance: Distance) -> bool:
    return extractor.kind == "latent" and blends(distance)


def _site_of_blends(extractor: FeatureExtractor) -> str:
    """The site at which what the extractor looks at is moved itself."""
    return "z0" if extractor.needs.estimate else "before"


def check_window(term: str, schedule: Schedule, steps: Sequence[Step]) -> None:
    """Refuse a term that would pull at none of the steps of a run.

    Raises:
        ConfigError: its window holds none of them.
    """
    if any(schedule.active(step) for step in steps):
        return
    first, window = steps[0], f"from {schedule.from_:g} and until {schedule.until:g}"
    if schedule.until <= first.fraction:
        needed = ceil(1e4 * (first.count - first_step(schedule.until, first.count) + 1) / first.count) / 1e4
        raise ConfigError(
            f"term {term!r}: image-to-image leaves out the first {first.index} of the {first.count} steps, and with them all "
            f"between {window}; raise strength to {needed:g}, or set until above {first.fraction:g}"
        )
    raise ConfigError(f"term {term!r}: none of the {len(steps)} steps lies between {window}; widen the window or take more steps")


def check_samples(
    term: str, extractor: object, distance: object, seeds: Sequence[int], current: Features, target: Features | None
) -> None:
    """Every sample has something to be pulled by: what is an error for an image alone is one in a batch too.

    Raises:
        ConfigError: nothing is present in a sample, or nothing that has a target; names the seeds.
    """
    name = type(extractor).__name__
    if bare := _without(current.present, seeds):
        raise ConfigError(f"term {term!r}: extractor {name} has nothing to look at in {bare}; give it phrases or boxes")
    if target is not None and (bare := _without(current.present & target.present, seeds)):
        raise ConfigError(
            f"term {term!r}: distance {type(distance).__name__} needs a target, and extractor {name} has none for {bare}; give "
            "it boxes, masks or a reference"
        )


def _without(present: Tensor, seeds: Sequence[int]) -> str:
    """The samples of which nothing is `present` `[b k]`, in words; empty if there are none."""
    bare = [str(seed) for seed, has in zip(seeds, present.any(dim=1), strict=True) if not bool(has)]
    return f"the {'image of seed' if len(bare) == 1 else 'images of the seeds'} {', '.join(bare)}" if bare else ""


def checked_features(found: object, term: str, extractor: FeatureExtractor, method: str, samples: int) -> Features:
    """What an extractor's method gave for so many samples.

    Raises:
        ConfigError: it is no `Features`, of another kind than the extractor says, or of other shapes.
    """
    wrong = described(found)
    if isinstance(found, Features):
        fault = _misshapen(found, extractor.kind, samples)
        if not fault:
            return found
        wrong = f"a Features whose {fault}"
    name = type(extractor).__name__
    raise ConfigError(
        f"term {term!r}: {method} of extractor {name} returned {wrong}; expected a Features of kind {extractor.kind!r} with maps "
        f"[b n k h w], and present and group [b k], b here {samples}; "
        f"lsregen.framework.testing.check_extractor({name}(...)) finds this"
    )


def _misshapen(found: Features, kind: str, samples: int) -> str:
    """What is wrong with features; empty if nothing is."""
    if found.kind != kind:
        return f"kind is {shown(found.kind)}"
    maps = cast("tuple[object, ...]", tuple(found.maps) if isinstance(cast("object", found.maps), tuple | list) else ())
    if not maps:
        return f"maps are {described(found.maps)}, without any"
    for i, each in enumerate(maps):
        if not (isinstance(each, Tensor) and each.ndim == 5 and len(each) == samples):
            return f"maps[{i}] is {described(each)}"
    things = found.maps[0].shape[2]
    parts: dict[str, object] = {"present": found.present, "group": found.group}
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            return f"{name} is {described(part)}"
        numbers = part.dtype == torch.bool if name == "present" else not (part.is_floating_point() or part.is_complex())
        if part.shape != (samples, things) or not numbers:
            dtype = str(part.dtype).removeprefix("torch.")
            return f"{name} is {described(part)} of {dtype}, beside maps of {things} things"
    return ""


def check_attached(view: View, model: Model) -> View:
    """A pass whose values depend on the latent, as every pull needs.

    Raises:
        PluginError: they do not: the model is at fault, whatever the terms make of them.
    """
    loose = view.loose
    if not loose:
        return view
    raise PluginError(
        f"model {model.name!r}: {loose} of its pass does not depend on the latent, so nothing can be pulled: observe detaches "
        "it, or runs without gradient; lsregen.framework.testing.check_model finds this"
    )


def check_steps(steps: object, sampler: object) -> tuple[Step, ...]:
    """The steps that a sampler's schedule gave.

    Raises:
        ConfigError: they are no steps, or none.
    """
    given = cast("tuple[object, ...]", tuple(cast("Sequence[object]", steps)) if isinstance(steps, tuple | list) else ())
    if not given or not all(isinstance(step, Step) for step in given):
        raise ConfigError(
            f"sampler {type(sampler).__name__}: schedule returned {described(cast('object', steps))}; expected a tuple of steps"
        )
    return cast("tuple[Step, ...]", given)


def check_latent(found: object, z: Tensor, sampler: object) -> Tensor:
    """What a sampler's step gave.

    Raises:
        ConfigError: it is no latent of the same shape.
    """
    if not (isinstance(found, Tensor) and found.shape == z.shape):
        raise ConfigError(
            f"sampler {type(sampler).__name__}: step returned {described(found)}; expected a latent of shape {list(z.shape)}"
        )
    return found


def checked_energy(found: object, term: str, distance: object, samples: int) -> Energy:
    """What a distance gave for so many samples.

    Raises:
        ConfigError: it is no `Energy`, or a part of it has not one value for each sample.
    """
    wrong = described(found)
    if isinstance(found, Energy):
        optional = {} if found.refine is None else {"refine": found.refine}
        parts: dict[str, object] = {"value": found.value, "watch": found.watch, **optional}
        faults = [name for name, part in parts.items() if not (isinstance(part, Tensor) and part.shape == (samples,))]
        if not faults:
            return found
        wrong = f"an Energy whose {faults[0]} is {described(parts[faults[0]])}"
    name = type(distance).__name__
    raise ConfigError(
        f"term {term!r}: distance {name} returned {wrong}; expected an Energy of tensors [b], one value for each sample, here "
        f"[{samples}]; lsregen.framework.testing.check_distance({name}(...)) finds this"
    )


def described(value: object) -> str:
    """A value by its type, and a tensor by its shape too."""
    if value is None:
        return "None"
    return f"a Tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def remedies(model: Model, *others: str, pulled: bool = True) -> str:
    """What to try when a value is not finite: other weights where these are at fault, else a wider dtype and the others.

    `pulled`: whether the latent was moved by guidance before; if not, a lower gamma could change nothing.
    """
    wider = ["--dtype fp32"] if torch.finfo(model.dtype).bits < 32 else []
    if broken := broken_weights(model):
        cure = " or ".join([*(f"try {one}" for one in wider), "download or convert the model again"])
        return f"the weights of {broken} hold values that are not finite; {cure}"
    useful = [*wider, *(other for other in others if pulled or "gamma" not in other)]
    if not useful:
        return "the network itself gives no finite values; check that its settings belong to its weights"
    return f"try {' or '.join(useful)}"


def broken_weights(model: Model) -> str:
    """The components of a model whose weights are not finite, in words; empty if there are none, or the model does not tell."""
    return " and ".join(model.broken_weights()) if isinstance(model, Diagnosing) else ""
