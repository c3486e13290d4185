"""Terms: what pulls, as it is composed, and within a run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from ..capabilities import Proposing
from ..errors import ConfigError, shown
from ..events import Passes
from ..layout.rasters import check_raster
from ..plugins.calls import calling
from ..protocols import Distance, FeatureExtractor, Run
from ..sampling.taps import TapPoint, select_layers
from ..types import Energy, Features, Latents, Needs, View
from .contracts import check_parts, check_pull, check_samples, checked_energy, checked_features
from .gradients import to_device
from .schedule import Schedule


@dataclass(frozen=True)
class Term:
    """One pull: what to look at, how far it is, and when to pull how hard."""

    extractor: FeatureExtractor
    distance: Distance
    schedule: Schedule = field(default_factory=Schedule)
    name: str = ""

    def __post_init__(self) -> None:
        check_parts(self.name, self.extractor, self.distance, self.schedule)
        if self.extractor.kind not in self.distance.accepts:
            extractor, distance = type(self.extractor).__name__, type(self.distance).__name__
            raise ConfigError(
                f"term {self.name or '?'}: distance {distance} accepts features of kind {', '.join(self.distance.accepts)}, "
                f"but extractor {extractor} gives {self.extractor.kind}"
            )
        with calling(f"term {self.name or '?'}", "extractor", self.extractor, "needs"):
            check_pull(self.name, self.extractor, self.distance, self.schedule)
        try:
            check_raster(self.distance.raster)
        except ConfigError as error:
            raise ConfigError(f"term {self.name or '?'}: distance {type(self.distance).__name__}: {error}") from None


def terms_of(given: object) -> tuple[Term, ...]:
    """One term, or several.

    Raises:
        ConfigError: something else is among them.
    """
    terms = tuple(cast("Sequence[object]", given)) if isinstance(given, list | tuple) else (given,)
    for term in terms:
        if not isinstance(term, Term):
            by_name = "; a preset's: pipeline.resolve(name)[1]" if isinstance(term, str) else ""
            raise ConfigError(
                f"guidance: {shown(term)} is no term; expected Term(extractor, distance), or a list of them{by_name}"
            )
    return cast("tuple[Term, ...]", terms)


def named(terms: Sequence[Term]) -> Iterator[Term]:
    """Every term under a name of its own: the given one, else its distance's, numbered where names meet."""
    taken: set[str] = set()
    for term in terms:
        given = term.name or type(term.distance).__name__
        name, number = given, 1
        while name in taken:
            number += 1
            name = f"{given}#{number}"
        taken.add(name)
        yield replace(term, name=name)


def preparing(extractor: FeatureExtractor, run: Run, raster: str) -> Passes[Any]:
    """The state of an extractor for one run, whether its `prepare` returns it or is a generator."""
    state = extractor.prepare(run, raster)
    return (yield from cast("Passes[Any]", state)) if isinstance(state, Generator) else state


class ActiveTerm:
    """A term within a run: its prepared state, its tap points, and the samples that have stopped for good."""

    def __init__(self, term: Term, run: Run, state: Any) -> None:
        self.term, self.seeds, self.state = term, run.seeds, state
        self.looked = False
        with self._looking("needs"):
            self.needs: Needs = term.extractor.needs
        self.stopped = torch.zeros(len(run.z_T), dtype=torch.bool)  # on the CPU
        self.points = frozenset(
            TapPoint(layer.name, request.kind)
            for request in self.needs.taps
            for layer in select_layers(run.denoiser.layers, request.layers)
        )
        if self.shares_pass and (term.schedule.repeats > 1 or term.schedule.refine):
            raise ConfigError(
                f"term {term.name!r}: it looks at attention layers, so at site {term.schedule.site!r} it shares its pass with "
                "denoising: repeats and refine need site 'before'"
            )

    @classmethod
    def prepared(cls, term: Term, run: Run) -> Passes[Self]:
        """A term whose extractor has prepared itself."""
        with calling(f"term {term.name!r}", "extractor", term.extractor, "prepare"):
            state = yield from preparing(term.extractor, run, term.distance.raster)
        return cls(term, run, state)

    @property
    def shares_pass(self) -> bool:
        """Whether it reuses the pass that denoising makes. A z0 term that looks at the prediction alone needs no pass at all."""
        return self.term.schedule.site in ("after", "noise") or (self.term.schedule.site == "z0" and bool(self.points))

    def initial(self, run: Run) -> Latents | None:
        """The latent that the extractor proposes to start from, if it does."""
        with self._looking("initial"):
            extractor = self.term.extractor
            return extractor.initial(run, self.state) if isinstance(extractor, Proposing) else None

    def measured(self, view: View, updated: Tensor) -> Measured:
        """What the distance measures. `updated` `[b]` (on the CPU): the samples whose gradient is wanted; into others none goes.

        Zero times an infinite slope is not zero: a sample that is done would break the gradient that it shares with other terms.
        """
        name, distance = self.term.name, self.term.distance
        if not bool(updated.all()):
            chosen = to_device(updated, view.z)
            view = view.spread(_kept(view.z, chosen), lambda value: _kept(value, chosen))
        current = cast("Features", self._features("current", view))
        target = self._features("target", view) if distance.needs_target else None
        if distance.needs_target and target is None:
            raise ConfigError(
                f"term {name!r}: distance {type(distance).__name__} needs a target, and extractor "
                f"{type(self.term.extractor).__name__} has none for this run; give boxes, masks or a reference"
            )
        if not self.looked:
            check_samples(name, self.term.extractor, distance, self.seeds, current, target)
            self.looked = True
        return Measured(self.term, current, target)

    def _features(self, method: str, view: View) -> Features | None:
        extractor = self.term.extractor
        with self._looking(method):
            found = getattr(extractor, method)(view, self.state)
        if found is None and method == "target":
            return None
        return checked_features(found, self.term.name, extractor, method, len(view.z))

    def _looking(self, method: str) -> AbstractContextManager[None]:
        return calling(f"term {self.term.name!r}", "extractor", self.term.extractor, method)


@dataclass(frozen=True)
class Measured:
    """The features of a term at one latent, from which its energy is computed."""

    term: Term
    current: Features
    target: Features | None

    def energy(self, samples: Tensor | None = None) -> Energy:
        """The energy of each sample. `samples` `[b]`: those into whose features a gradient goes; all of them by default."""
        current, target, name, distance = self.current, self.target, self.term.name, self.term.distance
        if samples is not None:
            current, target = _kept_features(current, samples), None if target is None else _kept_features(target, samples)
        with calling(f"term {name!r}", "distance", distance):
            energy = distance(current, target)
        return checked_energy(energy, name, distance, len(current.present))


def _kept_features(features: Features, samples: Tensor) -> Features:
    return replace(features, maps=tuple(_kept(maps, samples) for maps in features.maps))


def _kept(value: Tensor, samples: Tensor) -> Tensor:
    """The same values `[b ...]`, through which a gradient goes into these samples `[b]` alone."""
    return torch.where(samples.reshape(-1, *[1] * (value.ndim - 1)), value, value.detach())
