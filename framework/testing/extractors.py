"""The properties of a feature extractor, and `check_extractor`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..config.arguments import checked
from ..events import drained
from ..guidance.term import preparing
from ..layout.regions import Layout
from ..pipeline.pipeline import Pipeline
from ..plugins.class_checks import FEATURE_KINDS, check_instance, check_plugin
from ..protocols import FeatureExtractor, Model, Run
from ..sampling.taps import TAP_KINDS
from ..types import Features, Latents
from .bench import EVERY, LAYOUTS, Bench, Looks, declared_view, generous_view, needed_points
from .checks import (
    OPTIONS_MEND,
    REPEAT_MEND,
    UNTOUCHED_MEND,
    Conformance,
    Property,
    expect,
    expect_close,
    expect_finite,
    expect_options,
    expect_repeatable,
    expect_untouched,
    gradients_at,
    meanings,
    numbers,
    places,
    run_checks,
)
from .toys import ToyModel


@dataclass(frozen=True)
class Subject:
    """An extractor under test, on the runs of a bench."""

    extractor: FeatureExtractor
    bench: Bench

    def prepared(self, run: Run) -> Any:
        with torch.no_grad():
            return drained(preparing(self.extractor, run, "area"))

    def current(self, run: Run, z: Latents, *, state: Any = None, step: int = 1) -> Features:
        view = declared_view(run, z, run.steps[step], self.extractor.needs)
        return self.extractor.current(view, self.prepared(run) if state is None else state)

    def target(self, run: Run, z: Latents, looks: Looks | None = None) -> Features | None:
        view = declared_view(run, z, run.steps[1], self.extractor.needs, looks)
        return self.extractor.target(view, self.prepared(run))

    def features(self, samples: Sequence[int] = EVERY, shape: str = "square", seed: int = 1) -> Features:
        return self.current(self.bench.run(samples, shape), self.bench.latent(seed, samples, shape))


def declarations(subject: Subject) -> None:
    """It is a frozen dataclass whose kind is known, and whose needs are static and name layers that the model has."""
    check_plugin("extractor", "checked", type(subject.extractor))
    kind, needs = subject.extractor.kind, subject.extractor.needs
    expect(kind in FEATURE_KINDS, f"a kind out of {', '.join(FEATURE_KINDS)}", repr(kind))
    unknown = [request.kind for request in needs.taps if request.kind not in TAP_KINDS]
    expect(not unknown, f"tap kinds out of {', '.join(TAP_KINDS)}", ", ".join(unknown))
    run = subject.bench.run()
    needed_points(run, needs)
    subject.prepared(run)
    expect(subject.extractor.needs == needs, "the same needs before and after `prepare`", subject.extractor.needs)


def shape(subject: Subject) -> None:
    """Its features are maps [b n k h w] of its kind, with `present` and `group` [b k]; a target fits them."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    state = subject.prepared(run)
    view = generous_view(run, z, run.steps[1], _kinds(subject))
    current, target = subject.extractor.current(view, state), subject.extractor.target(view, state)
    _expect_features(subject, current, len(z), "current")
    if target is not None:
        _expect_features(subject, target, len(z), "target")
        _expect_fits(current, target)


def finite(subject: Subject) -> None:
    """Features are finite on pure noise, and on an almost clean latent."""
    run = subject.bench.run()
    state = subject.prepared(run)
    for step in (0, len(run.steps) - 1):
        for maps in subject.current(run, subject.bench.latent(1), state=state, step=step).maps:
            expect_finite(maps, "the maps", f"at step {step}")


def gradient_reaches_z(subject: Subject) -> None:
    """Every map of every sample has a finite gradient at the latent."""
    run, z = subject.bench.run(), subject.bench.latent(1).requires_grad_()
    current = subject.current(run, z)
    for number, maps in enumerate(current.maps):
        expect(maps.requires_grad, f"a gradient from maps[{number}] to z", "none: they do not depend on z")
        (gradient,) = gradients_at(_pull(maps, current.present).sum(), [z])
        expect_finite(gradient, "the gradient", f"from maps[{number}] to z")
        reached = gradient.abs().flatten(1).amax(dim=1) > 0
        lacking = places(~reached & current.present.any(dim=1))
        expect(not lacking, f"a gradient from maps[{number}] to the z of every sample", f"zero for samples {lacking}")


def energy_falls(subject: Subject) -> None:
    """A small step of z against the gradient of its features lowers their sum of squares."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    state = subject.prepared(run)

    def energy(at: Latents) -> Tensor:
        current = subject.current(run, at, state=state)
        return torch.stack([_pull(maps, current.present) for maps in current.maps]).sum(dim=0)

    leaf = z.detach().requires_grad_()
    before = energy(leaf)
    (gradient,) = gradients_at(before.sum(), [leaf])
    size = gradient.square().flatten(1).sum(dim=1).sqrt()
    unit = gradient / size.clamp(min=1e-30).reshape(-1, 1, 1, 1)
    fell = size == 0
    for length in (1.0, 0.3, 0.1, 0.03):  # long enough to be seen in single precision
        fell = fell | (before.detach() - energy(z - length * unit).detach() > 0.1 * length * size)
    rising = places(~fell)
    expect(not rising, "a lower energy after a step of z against its gradient", f"no fall for samples {rising}")


def needs_sufficient(subject: Subject) -> None:
    """What it declares is all that it looks at."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    subject.current(run, z)
    subject.target(run, z)


def needs_necessary(subject: Subject) -> None:
    """It looks at all that it declares: whatever is declared is computed."""
    run, z, looks = subject.bench.run(), subject.bench.latent(1), Looks()
    needs, state = subject.extractor.needs, subject.prepared(run)
    view = declared_view(run, z, run.steps[1], needs, looks)
    subject.extractor.current(view, state)
    subject.extractor.target(view, state)
    unread = sorted(set(needed_points(run, needs)) - looks.taps)
    expect(not unread, "every declared tap point to be read", f"unread: {', '.join(map(str, unread))}")
    expect(looks.image or not needs.image, "the declared image to be looked at", "it was not")
    used = looks.prediction or looks.image
    expect(used or not needs.prediction, "the declared prediction to be looked at", "it was not")


def others_taps_ignored(subject: Subject) -> None:
    """Its features are the same when other terms have asked for more to be recorded."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    state = subject.prepared(run)
    alone = subject.current(run, z, state=state)
    beside = subject.extractor.current(generous_view(run, z, run.steps[1], TAP_KINDS), state)
    _expect_same(beside, alone, "the features as without other terms")


def steps_do_not_interfere(subject: Subject) -> None:
    """One prepared state serves every step: features do not depend on which steps were looked at before."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    state = subject.prepared(run)
    first = subject.current(run, z, state=state, step=1)
    subject.current(run, subject.bench.latent(2), state=state, step=2)
    _expect_same(subject.current(run, z, state=state, step=1), first, "the features of a step as before another was looked at")


def per_sample_independence(subject: Subject) -> None:
    """A sample's features and their gradient are what they would be without its neighbours."""
    leaf = subject.bench.latent(1).requires_grad_()
    whole = subject.current(subject.bench.run(), leaf)
    pulls = torch.stack([_pull(maps, whole.present) for maps in whole.maps]).sum(dim=0)
    for i in EVERY:
        alone = subject.features((i,))
        for number, (maps, own) in enumerate(zip(whole.maps, alone.maps, strict=True)):
            seen, wanted = (m[:, :, kept] for m, kept in ((maps[i : i + 1], whole.present[i]), (own, alone.present[0])))
            expect_close(seen, wanted, f"maps[{number}] of sample {i} as in a batch of its own", rtol=1e-3, atol=1e-5)
        (gradient,) = gradients_at(pulls[i], [leaf])
        crossed = [j for j in EVERY if j != i and bool(gradient[j].any())]
        expect(not crossed, f"the features of sample {i} to depend on its own z alone", f"a gradient at samples {crossed}")


def absent_phrases(subject: Subject) -> None:
    """A sample without phrases changes nothing for the others, and what it lacks is not present."""
    bare = (LAYOUTS[0], Layout(), LAYOUTS[2])
    run, z = subject.bench.run(layouts=bare), subject.bench.latent(1)
    current, usual = subject.current(run, z), subject.features()
    _expect_features(subject, current, len(z), "current")
    for i in (0, 2):
        for maps, wanted in zip(current.maps, usual.maps, strict=True):
            seen, aim = maps[i, :, current.present[i]], wanted[i, :, usual.present[i]]
            expect_close(seen, aim, f"sample {i} as beside a neighbour that has phrases", rtol=1e-3, atol=1e-5)
    if len(set(numbers(usual.present.sum(dim=1)))) > 1:  # its things are phrases: more of them where there are more phrases
        expect(not bool(current.present[1].any()), "nothing present in a sample without phrases", numbers(current.present[1]))


def unplaced_left_out(subject: Subject) -> None:
    """What is present in a target has a place there; a phrase without box or mask is not present."""
    target = cast("Features", subject.target(subject.bench.run(), subject.bench.latent(1)))
    held = torch.stack([m.abs().amax(dim=(1, 3, 4)) > 0 for m in target.maps]).any(dim=0)  # [b k]
    empty = places(target.present & ~held)
    expect(not empty, "something in the target of everything present there", f"nothing at [sample, thing] {empty}")


def dtype_and_device(subject: Subject) -> None:
    """Features are in single precision, as latents are, and on the latent's device."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    target = subject.target(run, z)
    for name, features in (("current", subject.current(run, z)), *((("target", target),) if target else ())):
        for maps in features.maps:
            fits = maps.dtype == z.dtype and maps.device == z.device
            expect(fits, f"{name} maps as {z.dtype} on {z.device}", f"{maps.dtype} on {maps.device}")
        expect(features.present.device == z.device, f"{name}.present on {z.device}", features.present.device)


def deterministic(subject: Subject) -> None:
    """Two runs alike give the same features, whatever the state of the global random stream."""
    expect_repeatable(lambda: list(subject.features().maps))


def inputs_untouched(subject: Subject) -> None:
    """It changes neither z nor what the pass recorded."""
    run, z = subject.bench.run(), subject.bench.latent(1)
    state = subject.prepared(run)
    view = generous_view(run, z, run.steps[1], TAP_KINDS)
    recorded = {str(point): view[point] for point in needed_points(run, subject.extractor.needs)}

    def look() -> None:
        with torch.no_grad():  # where autograd does not guard them
            subject.extractor.current(view, state)
            subject.extractor.target(view, state)

    expect_untouched({"z": z, "z_T": run.z_T, "eps": view.eps, "z0": view.z0, **recorded}, look)


def options_round_trip(subject: Subject) -> None:
    """Its options can be written down, read again, and explained."""
    expect_options(subject.extractor)


def non_square(subject: Subject) -> None:
    """On wide and tall images maps and targets are wide and tall."""
    for form in ("wide", "tall"):
        run, z = subject.bench.run(shape=form), subject.bench.latent(1, shape=form)
        current, target = subject.current(run, z), subject.target(run, z)
        for maps in current.maps:
            h, w = maps.shape[-2:]
            expect((w > h) == (form == "wide"), f"{form} maps for a {form} image", f"a grid of {h}x{w}")
        if target is not None:
            _expect_fits(current, target)


def _no_target(subject: Subject) -> str | None:
    target = subject.target(subject.bench.run(), subject.bench.latent(1))
    return "its target is None, though there are boxes" if target is None else None


def _kinds(subject: Subject) -> list[str]:
    return sorted({request.kind for request in subject.extractor.needs.taps})


def _pull(maps: Tensor, present: Tensor) -> Tensor:
    """An uneven sum of squares per sample `[b]` over what is present: attention over all tokens sums to 1 and would not move."""
    weight = torch.linspace(0.5, 1.5, maps[0].numel(), device=maps.device).reshape(maps.shape[1:])
    held = torch.where(present[:, None, :, None, None], maps, torch.zeros_like(maps))
    return (weight * held.square()).flatten(1).sum(dim=1)


def _expect_features(subject: Subject, features: Features, b: int, name: str) -> None:
    expect(features.kind == subject.extractor.kind, f"{name}.kind {subject.extractor.kind!r}", repr(features.kind))
    expect(len(features.maps) > 0, f"at least one map in {name}.maps", "none")
    k = features.present.shape[-1]
    for attribute, value in (("present", features.present), ("group", features.group)):
        expect(tuple(value.shape) == (b, k), f"{name}.{attribute} [b k] with b={b}", list(value.shape))
    expect(features.present.dtype == torch.bool, f"{name}.present as bool", features.present.dtype)
    whole = not features.group.is_floating_point() and int(features.group.min()) >= 0
    expect(whole, f"{name}.group of whole numbers from 0", features.group.dtype)
    for i, maps in enumerate(features.maps):
        fits = maps.ndim == 5 and maps.shape[0] == b and maps.shape[2] == k
        expect(fits, f"{name}.maps[{i}] [b n k h w] with b={b} and k={k}, as in {name}.present", list(maps.shape))


def _expect_fits(current: Features, target: Features) -> None:
    expect(len(target.maps) == len(current.maps), f"{len(current.maps)} maps in the target too", len(target.maps))
    for i, (maps, aim) in enumerate(zip(current.maps, target.maps, strict=True)):
        views = aim.shape[1] in (1, maps.shape[1])
        fits = views and aim.shape[2:] == maps.shape[2:]
        expect(fits, f"target.maps[{i}] to broadcast over the views of {list(maps.shape)}", list(aim.shape))


def _expect_same(seen: Features, wanted: Features, expected: str) -> None:
    expect(len(seen.maps) == len(wanted.maps), expected, f"{len(seen.maps)} maps instead of {len(wanted.maps)}")
    for one, other in zip(seen.maps, wanted.maps, strict=True):
        expect_close(one, other, expected, atol=1e-6)


FIRST, SOUND = ("declarations",), ("declarations", "shape", "needs_sufficient")
PROPERTIES: tuple[Property[Subject], ...] = (
    Property(
        declarations, "see the `FeatureExtractor` protocol; give check_extractor a pipeline if the toy model lacks the layers"
    ),
    Property(shape, "see `Features`: samples, views, things, and a grid", FIRST),
    Property(needs_sufficient, "declare in `needs` what `current` and `target` read of the view", (*FIRST, "shape")),
    Property(needs_necessary, "take what is never read out of `needs`", SOUND),
    Property(finite, "keep divisors and logarithms away from zero", SOUND),
    Property(gradient_reaches_z, "compute the maps from the view without detach, numpy, argmax or no_grad", SOUND),
    Property(energy_falls, "look for a part of the features that gradients do not see", (*SOUND, "gradient_reaches_z")),
    Property(others_taps_ignored, "read the points that `prepare` selected, not all that `view.taps` holds", SOUND),
    Property(steps_do_not_interfere, "keep in the state only what holds for the whole run", SOUND),
    Property(per_sample_independence, "reduce over dimension 0 nowhere, and take each sample's own layout", SOUND),
    Property(absent_phrases, "pad to the longest sample and say so in `present`", SOUND),
    Property(unplaced_left_out, "take phrases without a box or mask out of the target's `present`", SOUND, _no_target),
    Property(dtype_and_device, "make new tensors on view.z.device, masks as single precision", SOUND),
    Property(deterministic, REPEAT_MEND, SOUND),
    Property(inputs_untouched, UNTOUCHED_MEND, SOUND),
    Property(options_round_trip, OPTIONS_MEND, FIRST),
    Property(non_square, "take h and w from the recorded maps, in this order", SOUND),
)
EXTRACTOR_PROPERTIES = meanings(PROPERTIES)


@checked
def check_extractor(
    extractor: FeatureExtractor, *, pipeline: Pipeline | None = None, only: Collection[str] | None = None
) -> Conformance:
    """Check that an extractor works with every model and every distance that accepts its kind.

    Args:
        pipeline: on whose model; by default on a toy with real cross-attention, whose layers are named as in diffusers.
        only: names out of `EXTRACTOR_PROPERTIES`; all of them by default.

    Raises:
        ConformanceError: it lacks some of the properties; a line for each.
        ConfigError: `only` names a property that does not exist.
    """
    check_instance("extractor", extractor)
    model: Model = ToyModel() if pipeline is None else pipeline.model
    return run_checks("extractor", extractor, Subject(extractor, Bench(model)), PROPERTIES, only)
