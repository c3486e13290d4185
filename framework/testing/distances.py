"""The properties of a distance, and `check_distance`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config.arguments import checked, checked_device
from ..layout.rasters import check_raster
from ..plugins.class_checks import check_instance, check_plugin
from ..protocols import Distance
from ..types import Energy
from .checks import (
    OPTIONS_MEND,
    REPEAT_MEND,
    UNTOUCHED_MEND,
    Conformance,
    Property,
    expect,
    expect_apart,
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
from .inputs import EXTREMES, PHRASE_KINDS, Boxes, Case, spoilt, with_maps

SEEDS = range(3)


@dataclass(frozen=True)
class Subject:
    """A distance under test and the device that its inputs live on."""

    distance: Distance
    device: str

    @property
    def kind(self) -> str:
        """The first accepted kind, one of those with phrases if there is any."""
        return next((kind for kind in self.distance.accepts if kind in PHRASE_KINDS), self.distance.accepts[0])

    def case(
        self,
        *grids: tuple[int, int],
        kind: str = "",
        seed: int = 0,
        raster: str = "",
        dtype: torch.dtype = torch.float32,
        boxes: Boxes | None = None,
    ) -> Case:
        options = {} if boxes is None else {"boxes": boxes}
        raster = raster or self.distance.raster
        return Case.make(kind or self.kind, raster, grids or ((8, 8),), seed=seed, dtype=dtype, device=self.device, **options)

    def energy(self, case: Case) -> Energy:
        return self.distance(case.current, case.target if self.distance.needs_target else None)

    def value(self, case: Case) -> Tensor:
        return self.energy(case).value

    def gradients(self, case: Case) -> tuple[Tensor, list[Tensor]]:
        """The value `[b]` and its gradient at every map; zeros where nothing depends on a map."""
        case = case.leaves()
        value = self.value(case)
        maps = case.current.maps
        return value.detach(), gradients_at(value.sum(), maps)


def declarations(subject: Subject) -> None:
    """It is a frozen dataclass that says what it accepts, whether it needs a target, and by which rule boxes become masks."""
    check_plugin("distance", "checked", type(subject.distance))
    expect(
        subject.distance.needs_target in (True, False), "needs_target to be True or False", repr(subject.distance.needs_target)
    )
    check_raster(subject.distance.raster)


def shape(subject: Subject) -> None:
    """It gives scalars [b], one per sample."""
    _expect_scalars(subject, subject.case())


def finite(subject: Subject) -> None:
    """Value and gradient are finite, for maps without mass and maps with all of it in one cell too."""
    case = subject.case()
    nothing = [torch.zeros_like(m) for m in case.current.maps]
    one_cell = [zeros.clone() for zeros in nothing]
    for maps in one_cell:
        maps[..., 0, 0] = 1
    for where, maps in (("for random maps", case.current.maps), ("for maps of zeros", nothing), ("for one cell", one_cell)):
        _expect_finite(subject, with_maps(case, maps), where)


def extreme_boxes(subject: Subject) -> None:
    """A box over the whole image, one inside a single cell and one that rounds to nothing give finite values and gradients."""
    for raster in dict.fromkeys((subject.distance.raster, "area", "truncate")):
        _expect_finite(subject, subject.case(boxes=EXTREMES, raster=raster), f"for full and tiny boxes, made masks by {raster}")


def differentiable(subject: Subject) -> None:
    """Where the value changes with the maps, its gradient says so."""
    values, moves = zip(*(_value_and_pull(subject, subject.case(seed=seed)) for seed in SEEDS), strict=True)
    varies = torch.stack(values).std(dim=0) > 1e-6
    expect(bool(varies.any()), "a value that depends on the maps", f"{numbers(values[0])} for all of them")
    pulled = torch.stack(moves).amax(dim=0) > 0
    lacking = places(varies & ~pulled)
    expect(not lacking, "a gradient at the maps of every sample", f"none for samples {lacking}, whose values do vary")


def energy_falls(subject: Subject) -> None:
    """A small step against the gradient lowers the energy, by about what the gradient promises."""
    case = subject.case(dtype=torch.float64)
    before, gradient = subject.gradients(case)
    size = torch.stack([g.square().flatten(1).sum(dim=1) for g in gradient]).sum(dim=0).sqrt()  # [b]
    unit = [g / size.clamp(min=1e-300).reshape(-1, 1, 1, 1, 1) for g in gradient]
    fell = size == 0
    for length in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        moved = with_maps(case, [m - length * u for m, u in zip(case.current.maps, unit, strict=True)])
        fell = fell | (before - subject.value(moved).detach() > 0.1 * length * size)
    rising = places(~fell)
    expect(not rising, "a lower energy after a step against its gradient", f"no fall for samples {rising}")


def target_met(subject: Subject) -> None:
    """Features that are what they should be have an energy of about zero."""
    case = subject.case()
    usual = subject.value(case).detach()
    equal = [aim.expand_as(m) for aim, m in zip(case.target.maps, case.current.maps, strict=True)]
    candidates = [equal, [60 * aim - 30 for aim in equal]] if case.current.kind == "logits" else [equal]
    best = torch.stack([subject.value(with_maps(case, maps)).detach() for maps in candidates]).amin(dim=0)
    fits = best <= 1e-3 * usual.abs() + 1e-6
    expect(bool(fits.all()), "about zero where the maps are the target", f"{numbers(best)} (random maps: {numbers(usual)})")


def target_declared(subject: Subject) -> None:
    """A target that it asks for makes a difference."""
    case = subject.case()
    other = replace(case, target=replace(case.target, maps=tuple(aim.flip(-1) for aim in case.target.maps)))
    value = subject.value(case)
    expect_apart(subject.value(other), value, "another value for another target", f"{numbers(value)} for both")


def per_sample_independence(subject: Subject) -> None:
    """A sample's energy and gradient are what they would be without its neighbours."""
    case = subject.case()
    values, gradients = subject.gradients(case)
    for index in range(len(values)):
        value, alone = subject.gradients(case.sample(index))
        expect_close(values[index : index + 1], value, f"the energy of sample {index} as in a batch of its own")
        for of_batch, of_one in zip(gradients, alone, strict=True):
            expect_close(of_batch[index : index + 1], of_one, f"the gradient of sample {index} as in a batch of its own")


def absent_ignored(subject: Subject) -> None:
    """What is not present in a sample changes neither its energy nor its gradient, nor counts as one more phrase."""
    case = subject.case()
    absent = ~case.current.present
    value, _ = subject.gradients(case)
    spoilt_case = replace(case, current=spoilt(case.current, absent, 99), target=spoilt(case.target, absent, 98))
    other, gradients = subject.gradients(spoilt_case)
    expect_close(other, value, "the same energy whatever the maps of absent things hold")
    reached = max(float((g * absent[:, None, :, None, None]).abs().max()) for g in gradients)
    expect(reached == 0, "no gradient at absent things", f"one of {reached:.3g}")
    for index in range(len(value)):
        padded, bare = (subject.value(case.sample(index, present_only=only)) for only in (False, True))
        expect_close(padded, bare, f"the energy of sample {index} as without its absent things")
    nobody = torch.zeros_like(absent)
    empty = Case(replace(case.current, present=nobody), replace(case.target, present=nobody))
    none = subject.value(empty).detach()
    expect(not none.any(), "an energy of 0 for a sample without phrases", numbers(none))


def unplaced_ignored(subject: Subject) -> None:
    """A phrase that is not present in the target changes neither energy nor gradient."""
    case = subject.case()
    unplaced = case.current.present & (case.current.group == 1)
    target = replace(case.target, present=case.target.present & ~unplaced)
    value, _ = subject.gradients(replace(case, target=target))
    other, gradients = subject.gradients(Case(spoilt(case.current, unplaced, 97), spoilt(target, unplaced, 96)))
    expect_close(other, value, "the same energy whatever the maps of a phrase without a place hold")
    reached = max(float((g * unplaced[:, None, :, None, None]).abs().max()) for g in gradients)
    expect(reached == 0, "no gradient at a phrase without a place", f"one of {reached:.3g}")


def dtype_and_device(subject: Subject) -> None:
    """The energy has the dtype of the maps, single or double, and is on their device."""
    for dtype in (torch.float32, torch.float64):
        case = subject.case(dtype=dtype)
        energy, where = subject.energy(case), case.current.present.device
        for name, value in _parts(energy).items():
            expected = f"{name} as {dtype} on {where}, as the maps are"
            expect(value.dtype == dtype and value.device == where, expected, f"{value.dtype} on {value.device}")


def deterministic(subject: Subject) -> None:
    """The same features give the same energy, whatever the state of the global random stream."""
    case = subject.case()
    expect_repeatable(lambda: list(_parts(subject.energy(case)).values()))


def inputs_untouched(subject: Subject) -> None:
    """It changes none of the tensors it is given."""
    case = subject.case()
    tensors = {f"current.maps[{i}]": m for i, m in enumerate(case.current.maps)}
    tensors |= {f"target.maps[{i}]": m for i, m in enumerate(case.target.maps)}
    tensors |= {"present": case.current.present, "group": case.current.group}
    expect_untouched(tensors, lambda: subject.energy(case))


def options_round_trip(subject: Subject) -> None:
    """Its options can be written down, read again, and explained."""
    expect_options(subject.distance)


def every_kind(subject: Subject) -> None:
    """Every kind of features that it accepts gives scalars and finite gradients."""
    for kind in subject.distance.accepts:
        _expect_works(subject, subject.case(kind=kind), f"for features of kind {kind}")


def non_square(subject: Subject) -> None:
    """Wide and tall grids give scalars and finite gradients."""
    for h, w in ((6, 10), (10, 6)):
        _expect_works(subject, subject.case((h, w)), f"on a grid of {h}x{w}")


def several_maps(subject: Subject) -> None:
    """Several maps at once, of different grids and numbers of views, all count."""
    reached = torch.zeros(2)
    for seed in SEEDS:
        case = subject.case((8, 8), (4, 4), seed=seed)
        _expect_works(subject, case, "for maps of two grids")
        _, gradients = subject.gradients(case)
        reached += torch.stack([g.abs().max().cpu().float() for g in gradients])
    expect(bool((reached > 0).all()), "an energy that depends on every map", f"no gradient at maps[{int(reached.argmin())}]")


def _parts(energy: Energy) -> Mapping[str, Tensor]:
    named = {"value": energy.value, "watch": energy.watch, "refine": energy.refine}
    return {name: value for name, value in named.items() if value is not None}


def _expect_scalars(subject: Subject, case: Case, where: str = "") -> None:
    for name, value in _parts(subject.energy(case)).items():
        b = len(case.current.present)
        expect(tuple(value.shape) == (b,), f"{name} [{b}], a scalar per sample {where}".rstrip(), list(value.shape))


def _expect_finite(subject: Subject, case: Case, where: str) -> None:
    for name, value in _parts(subject.energy(case)).items():
        expect_finite(value, name, where)
    for gradient in subject.gradients(case)[1]:
        expect_finite(gradient, "the gradient", where)


def _expect_works(subject: Subject, case: Case, where: str) -> None:
    _expect_scalars(subject, case, where)
    _expect_finite(subject, case, where)


def _value_and_pull(subject: Subject, case: Case) -> tuple[Tensor, Tensor]:
    """The value `[b]` and the largest part of its gradient `[b]`."""
    value, gradients = subject.gradients(case)
    return value.detach(), torch.stack([g.abs().flatten(1).amax(dim=1) for g in gradients]).amax(dim=0)


def _no_target(subject: Subject) -> str | None:
    return None if subject.distance.needs_target else "it declares needs_target = False, and gets none in any check"


def _no_phrases(subject: Subject) -> str | None:
    if subject.kind in PHRASE_KINDS:
        return None
    return f"it accepts {', '.join(subject.distance.accepts)} only, whose things (channels) are all present"


def _no_place(subject: Subject) -> str | None:
    return _no_target(subject) or _no_phrases(subject)


def _one_kind(subject: Subject) -> str | None:
    kinds = subject.distance.accepts
    return None if len(kinds) > 1 else f"it accepts {', '.join(kinds)} only, which every check uses"


FIRST, SOUND = ("declarations",), ("declarations", "shape")
PROPERTIES: tuple[Property[Subject], ...] = (
    Property(declarations, "see the class-level attributes and the fields of the `Distance` protocol"),
    Property(shape, "reduce over views, things and cells, never over samples: mean_present(*over_groups(...))", FIRST),
    Property(finite, "keep divisors and logarithms away from zero: divide by x.clamp(min=...)", SOUND),
    Property(extreme_boxes, "expect masks of all ones and of all zeros", SOUND),
    Property(differentiable, "compute the value from `current.maps` without detach, item, argmax or comparison", SOUND),
    Property(
        energy_falls, "look for a wrong sign, or for a part of the value that gradients do not see", (*SOUND, "differentiable")
    ),
    Property(target_met, "subtract the least value that the energy can have", SOUND, _no_target),
    Property(target_declared, "declare needs_target = False, or use the target", SOUND, _no_target),
    Property(per_sample_independence, "reduce over dimension 0 nowhere, normalise each sample by its own values", SOUND),
    Property(absent_ignored, "leave out what `present` says is absent: mean_present(*over_groups(...))", SOUND, _no_phrases),
    Property(unplaced_ignored, "leave out what is absent in the target: current.present & target.present", SOUND, _no_place),
    Property(dtype_and_device, "make new tensors from the maps: torch.zeros_like(m), m.new_zeros(...), no .float()", SOUND),
    Property(deterministic, REPEAT_MEND, SOUND),
    Property(inputs_untouched, UNTOUCHED_MEND, SOUND),
    Property(options_round_trip, OPTIONS_MEND, FIRST),
    Property(every_kind, "take kinds that it cannot measure out of `accepts`", SOUND, _one_kind),
    Property(non_square, "take h and w from the last two dimensions separately", SOUND),
    Property(several_maps, "loop over current.maps and target.maps, and average", (*SOUND, "differentiable")),
)
DISTANCE_PROPERTIES = meanings(PROPERTIES)


@checked
def check_distance(distance: Distance, *, only: Collection[str] | None = None, device: str = "cpu") -> Conformance:
    """Check that a distance works with every extractor whose features it accepts.

    Args:
        only: names out of `DISTANCE_PROPERTIES`; all of them by default.
        device: where the made features live.

    Raises:
        ConformanceError: it lacks some of the properties; a line for each.
        ConfigError: `only` names a property that does not exist.
    """
    check_instance("distance", distance)
    return run_checks("distance", distance, Subject(distance, checked_device(device)), PROPERTIES, only)
