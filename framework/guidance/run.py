"""The update rule, once: `z~ = z - gamma * grad_z D(feat(z), ideal_feat(z, control, text))`, for any number of terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import ConfigError, NonFiniteError
from ..events import LogEntry
from ..plugins.calls import calling
from ..protocols import Run
from ..sampling.taps import TapPoint, Taps
from ..types import Energy, Latents, Prediction, Step, View
from .contracts import check_attached, check_window, remedies
from .gradients import Backward, broken_samples, normalised
from .schedule import Schedule
from .term import ActiveTerm, Term, named, terms_of
from .term_step import TermStep


@dataclass(frozen=True)
class Guidance:
    """Terms that pull together. Immutable; `start` makes the mutable state of one run. Guidances and terms add up with `+`."""

    terms: tuple[Term, ...] = ()

    def __init__(self, terms: Term | Sequence[Term] = ()) -> None:
        object.__setattr__(self, "terms", tuple(named(terms_of(terms))))

    def __add__(self, other: Guidance | Term | Sequence[Term]) -> Guidance:
        return Guidance((*self.terms, *(other.terms if isinstance(other, Guidance) else terms_of(other))))

    def start(self, run: Run) -> GuidanceRun:
        with torch.no_grad():
            return GuidanceRun(self, run)


_Pending: TypeAlias = tuple[ActiveTerm, TermStep]


@dataclass(frozen=True)
class _Look:
    """A view of the batch, and of which `samples` `[b]` it holds; the others were left out, being done."""

    view: View
    samples: Tensor


@dataclass(frozen=True)
class _Pull:
    """One term at one latent: its energy, the part of it that is minimised now `[b]`, zero for samples that are done; and which
    samples were `seen`."""

    active: ActiveTerm
    progress: TermStep
    energy: Energy
    minimised: Tensor
    seen: Tensor

    def settled(self) -> _Pull:
        """The same without its graph."""
        return replace(self, energy=Energy.of(self.energy.watch), minimised=self.minimised.detach())

    @property
    def name(self) -> str:
        return self.active.term.name

    @property
    def schedule(self) -> Schedule:
        return self.active.term.schedule


class GuidanceRun:
    """The mutable side of guidance in one run: prepared states, stopped samples, the log.

    `log` holds every evaluation; `energies` the last watched energy `[b]` of every term; `passes` counts guided passes, and
    `skipped` the updates of samples that were left out because their gradient was not finite.
    """

    def __init__(self, guidance: Guidance, run: Run) -> None:
        self.run = run
        for term in guidance.terms:  # first: what prepares may render for a minute
            check_window(term.name, term.schedule, run.steps)
        self.terms = [ActiveTerm(term, run) for term in guidance.terms]
        self.log: list[LogEntry] = []
        self.energies: dict[str, Tensor] = {}
        self.passes = 0
        self.skipped = 0
        self._backward = Backward(run.model.dtype)
        self._shift_after: Tensor | None = None
        self._left_out: dict[str, Tensor] = {}  # by term, the samples whose last update was skipped

    def initial(self) -> Latents:
        """The latent to start from: `run.z_T`, unless an extractor proposes another.

        Raises:
            ConfigError: several do, or the run starts from an image.
        """
        proposals: dict[str, Latents] = {}
        for active in self.terms:
            if (z := active.initial(self.run)) is not None:
                proposals[active.term.name] = z
        if len(proposals) > 1 or (proposals and self.run.eps_T is not None):
            also = ["the image that the run starts from"] if self.run.eps_T is not None else []
            raise ConfigError(f"several would decide what to start from: {', '.join([*map(repr, proposals), *also])}; keep one")
        return next(iter(proposals.values()), self.run.z_T)

    def before(self, z: Latents, step: Step) -> Latents:
        """Pull `z` ahead of the denoising pass, as often as the schedules say."""
        return self._descend(z, step, self._due(step, "before"), lambda leaf, pending: self._observe(leaf, step, pending))

    def predict(self, z: Latents, step: Step) -> Prediction:
        """The denoiser's prediction, shifted by the terms that act on the noise or on z0; one pass serves both."""
        due = self._due(step, "after", "noise", "z0")
        shared, direct = [t for t in due if t.shares_pass], [t for t in due if not t.shares_pass]
        prediction = self._predict_with(z, step, shared) if shared else self.run.denoiser.predict(z, step)
        if direct:  # their gradient is taken at z0
            eps = prediction.eps
            z0 = self._descend(prediction.z0, step, direct, lambda leaf, _: self._look_at(z, step, Prediction(eps, leaf)))
            prediction = Prediction(eps, z0)
        return prediction

    def after(self, z: Latents, step: Step) -> Latents:
        """Apply the pulls computed in the pass that denoising has used already."""
        if self._shift_after is None:
            return z
        z, self._shift_after = z - self._shift_after, None
        return z

    def _due(self, step: Step, *sites: str) -> list[ActiveTerm]:
        return [
            t for t in self.terms if t.term.schedule.site in sites and t.term.schedule.active(step) and not bool(t.stopped.all())
        ]

    def _observe(self, leaf: Latents, step: Step, pending: Sequence[_Pending], *, shared: bool = False) -> _Look:
        """One pass for the union of what the terms need; none at all if they look at `z` only.

        Once half of the samples or more are done, the others are passed without them. `shared`: denoising uses the pass too, and
        needs every sample.
        """
        points = frozenset[TapPoint]().union(*(active.points for active, _ in pending))
        taps = Taps(points, full=shared or any(active.needs.estimate for active, _ in pending))
        live = torch.stack([progress.updated for _, progress in pending]).any(dim=0)
        everyone = torch.ones_like(live)
        if not taps.wanted and not taps.full:
            return _Look(View(leaf, step, taps, self.run.denoiser.layers), everyone)
        self.passes += 1
        if shared or 2 * int(live.sum()) > len(leaf):
            return _Look(check_attached(self.run.denoiser.observe(leaf, step, taps), self.run.model), everyone)
        chosen = [i for i in range(len(leaf)) if bool(live[i])]
        some = check_attached(self.run.denoiser.select(chosen).observe(leaf[chosen], step, taps), self.run.model)
        return _Look(some.spread(leaf, partial(_taken, live=live)), live)

    def _look_at(self, z: Latents, step: Step, prediction: Prediction) -> _Look:
        view = View(z, step, Taps(()), self.run.denoiser.layers, prediction, self.run.model.decode)
        return _Look(view, torch.ones(len(z), dtype=torch.bool, device=z.device))

    def _descend(
        self, variable: Tensor, step: Step, terms: list[ActiveTerm], look: Callable[[Tensor, list[_Pending]], _Look]
    ) -> Tensor:
        """Repeat `variable -= sum_i gamma_i * g_i` until every term is done with every sample."""
        pending = [(t, TermStep(t.term.schedule, step, t.stopped)) for t in terms]
        while pending := [(t, progress) for t, progress in pending if progress.live]:
            leaf = variable.detach().requires_grad_()
            with torch.enable_grad():
                pulls = self._pulls(look(leaf, pending), pending, step)  # what was seen is not kept during the backward
            variable = variable - self._shift(pulls, leaf, step)
            self._advance(pulls, step)
            del pulls  # one graph at a time
        return variable

    def _predict_with(self, z: Latents, step: Step, terms: list[ActiveTerm]) -> Prediction:
        """The prediction, and the pulls of terms that share its pass."""
        conditional, shifts, pulls = self._shared_pass(z, step, terms)  # its graph is gone before the other branch runs
        prediction = self.run.denoiser.predict(z, step, conditional)
        self._advance(pulls, step)
        if "noise" in shifts:
            prediction = _shift_noise(prediction, shifts["noise"], step)
        if "z0" in shifts:
            prediction = Prediction(prediction.eps, prediction.z0 - shifts["z0"])
        self._shift_after = shifts.get("after")
        return prediction

    def _shared_pass(self, z: Latents, step: Step, terms: list[ActiveTerm]) -> tuple[Prediction, dict[str, Tensor], list[_Pull]]:
        """One differentiable pass gives the conditional prediction and the shifts of all the terms, by site."""
        leaf = z.detach().requires_grad_()
        with torch.enable_grad():
            pending = [(t, TermStep(t.term.schedule, step, t.stopped)) for t in terms]
            seen = self._observe(leaf, step, pending, shared=True)
            pulls = self._pulls(seen, pending, step)
        by_site = {site: [p for p in pulls if p.schedule.site == site] for site in dict.fromkeys(p.schedule.site for p in pulls)}
        last = list(by_site)[-1]  # after its gradient the graph is freed
        shifts = {site: self._shift(group, leaf, step, keep_graph=site != last) for site, group in by_site.items()}
        return Prediction(seen.view.eps.detach(), seen.view.z0.detach()), shifts, [pull.settled() for pull in pulls]

    def _pulls(self, seen: _Look, pending: Sequence[_Pending], step: Step) -> list[_Pull]:
        return [self._pulled(active, progress, seen, step) for active, progress in pending]

    def _pulled(self, term: ActiveTerm, progress: TermStep, seen: _Look, step: Step) -> _Pull:
        counted = seen.samples & progress.updated
        measured = term.measured(seen.view, progress.updated)
        energy = measured.energy()
        if not bool((torch.isfinite(energy.value) & torch.isfinite(energy.watch))[counted].all()):
            values = [float(value) for value in energy.value.detach()]
            raise NonFiniteError(
                f"term {term.term.name!r} at step {step.index} (t={step.t}): its energy is {values}, with the network in "
                f"{self.run.model.dtype}; {remedies(self.run.model, 'a lower gamma', pulled=bool(self.log))}"
            )
        return _Pull(term, progress, energy, progress.minimised(energy, measured.energy), seen.samples)

    def _shift(self, pulls: Sequence[_Pull], leaf: Tensor, step: Step, *, keep_graph: bool = False) -> Tensor:
        """`sum_i gamma_i * g_i`: one backward for all terms that use their gradient as it is, one for each that normalises it."""
        plain = [pull for pull in pulls if pull.schedule.normalise == "none"]
        groups = [*([plain] if plain else []), *([pull] for pull in pulls if pull.schedule.normalise != "none")]
        shift = torch.zeros_like(leaf)
        for group in groups:
            gradient = self._gradient(group, leaf, step, keep_graph=keep_graph or group is not groups[-1])
            shift = shift + normalised(gradient, group[0].schedule, step)
        return shift

    def _gradient(self, group: Sequence[_Pull], leaf: Tensor, step: Step, *, keep_graph: bool) -> Tensor:
        """The gradient `[b c h w]` of a group: of its energies times their strengths, or of one energy to be normalised."""
        with torch.enable_grad():
            # Samples never mix: each one's energy depends on its own latent alone.
            scaled = [p.minimised * (p.schedule.strength(step) if p.schedule.normalise == "none" else 1.0) for p in group]
            energies = torch.stack(scaled).sum(dim=0)  # [b]
        names = ", ".join(repr(pull.name) for pull in group)
        constant = ", ".join(repr(p.name) for p, energy in zip(group, scaled, strict=True) if not energy.requires_grad)
        with calling(f"term {names} at step {step.index}", "gradient, by distance", group[0].active.term.distance):
            gradient = None if constant else self._backward(energies, leaf, keep_graph=keep_graph)
        if gradient is None:
            raise ConfigError(f"term {constant or names}: its energy does not depend on the latent, so there is nothing to pull")
        # Zero times an infinite slope is not zero: the gradient of a sample that is done may be anything.
        moved = torch.stack([pull.progress.updated for pull in group]).any(dim=0)
        broken = broken_samples(gradient) & moved
        gradient = torch.where((moved & ~broken).reshape(-1, 1, 1, 1), gradient, torch.zeros_like(gradient))
        if not bool(broken.any()):
            return gradient
        if any(pull.schedule.non_finite == "error" for pull in group):
            raise NonFiniteError(
                f"term {names} at step {step.index} (t={step.t}): the gradient is not finite, with the network in "
                f"{self.run.model.dtype}; {remedies(self.run.model, 'a lower gamma', 'non_finite: skip', pulled=bool(self.log))}"
            )
        self.skipped += int(broken.sum())
        self._left_out.update((pull.name, broken) for pull in group)
        return gradient

    def _advance(self, pulls: Sequence[_Pull], step: Step) -> None:
        """Write down the updates just made, and let the stop rules look at them."""
        for pull in pulls:
            watch, updated = pull.energy.watch.detach(), pull.progress.updated
            if (broken := self._left_out.pop(pull.name, None)) is not None:
                updated = updated & ~broken
            self.energies[pull.name] = torch.where(pull.seen, watch, self.energies.get(pull.name, watch))
            self.log.append(
                LogEntry(
                    step.index,
                    pull.name,
                    energy=tuple(float(value) for value in torch.where(pull.seen, watch, torch.nan).cpu()),
                    updated=tuple(bool(value) for value in updated.cpu()),
                    strength=pull.schedule.strength(step),
                )
            )
            pull.active.stopped |= pull.progress.advance(watch)


def _taken(value: Tensor, live: Tensor) -> Tensor:
    """What was computed for the `live` samples alone, for all `[b]`; what the others take counts for nothing, backward too."""
    copies = value[(live.cumsum(dim=0) - 1).clamp(min=0)]
    return torch.where(live.reshape(-1, *[1] * (value.ndim - 1)), copies, copies.detach())


def _shift_noise(prediction: Prediction, shift: Tensor, step: Step) -> Prediction:
    """Classifier guidance (Dhariwal & Nichol 2021, algorithm 2): the noise moves, and z0 with it, so that they make up `z`."""
    if step.alpha_bar == 0:
        raise ConfigError(f"site 'noise' at step {step.index}: z is noise alone there, so it cannot be moved; set from above 0")
    shift = (1 - step.alpha_bar) ** 0.5 * shift
    return Prediction(prediction.eps + shift, prediction.z0 - (1 / step.alpha_bar - 1) ** 0.5 * shift)
