"""The update rule, once: `z~ = z - gamma * grad_z D(feat(z), ideal_feat(z, control, text))`, for any number of terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..events import Evaluated, LogEntry, Passes
from ..protocols import Run
from ..types import Latents, Prediction, Step
from .contracts import check_window
from .descent import Descent
from .observing import Observation, Observer, Pending
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

    @torch.no_grad()
    def start(self, run: Run) -> Passes[GuidanceRun]:
        """The mutable side of one run. The extractors prepare here, for which other models may render.

        Raises:
            ConfigError: a term pulls at none of the steps, or an extractor cannot prepare.
        """
        for term in self.terms:  # first: what prepares may render for a minute
            check_window(term.name, term.schedule, run.steps)
        terms: list[ActiveTerm] = []
        for term in self.terms:
            terms.append((yield from ActiveTerm.prepared(term, run)))
        return GuidanceRun(run, terms)


class GuidanceRun:
    """Guidance within one run: prepared terms, and what they have done so far.

    `before` and `predict` are generators of events, which pause between any two passes.
    """

    def __init__(self, run: Run, terms: Sequence[ActiveTerm]) -> None:
        self.run, self.terms = run, tuple(terms)
        self._observer, self._descent = Observer(run), Descent(run)
        self._shift_after: Tensor | None = None

    @property
    def log(self) -> Sequence[LogEntry]:
        """Every evaluation of every term, in order."""
        return self._descent.log

    @property
    def energies(self) -> Mapping[str, Tensor]:
        """The last watched energy `[b]` of every term, on the CPU."""
        return self._descent.energies

    @property
    def passes(self) -> int:
        """How many guided passes were made."""
        return self._observer.passes

    @property
    def skipped(self) -> int:
        """How many updates of samples were left out, because their gradient was not finite."""
        return self._descent.skipped

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

    @torch.no_grad()
    def before(self, z: Latents, step: Step) -> Passes[Latents]:
        """Pull `z` ahead of the denoising pass, as often as the schedules say."""
        observe = self._observer.observe
        return (yield from self._descend(z, step, self._due(step, "before"), lambda leaf, some: observe(leaf, step, some)))

    @torch.no_grad()
    def predict(self, z: Latents, step: Step) -> Passes[Prediction]:
        """The denoiser's prediction, shifted by the terms that act on the noise or on z0; one pass serves both."""
        due = self._due(step, "after", "noise", "z0")
        shared, direct = [t for t in due if t.shares_pass], [t for t in due if not t.shares_pass]
        prediction = (yield from self._predict_with(z, step, shared)) if shared else self.run.denoiser.predict(z, step)
        if direct:  # their gradient is taken at z0
            eps, known = prediction.eps, self._observer.of_estimate
            z0 = yield from self._descend(prediction.z0, step, direct, lambda leaf, _: known(z, step, Prediction(eps, leaf)))
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

    def _descend(
        self, variable: Tensor, step: Step, terms: list[ActiveTerm], observe: Callable[[Tensor, list[Pending]], Observation]
    ) -> Passes[Tensor]:
        """Repeat `variable -= sum_i gamma_i * g_i` until every term is done with every sample."""
        pending = [(t, TermStep(t.term.schedule, step, t.stopped)) for t in terms]
        while pending := [(t, progress) for t, progress in pending if progress.live]:
            shift, entries = self._shift(variable, step, pending, observe)
            variable = variable - shift
            for entry in entries:
                yield Evaluated(entry)
        return variable

    def _shift(
        self, variable: Tensor, step: Step, pending: list[Pending], observe: Callable[[Tensor, list[Pending]], Observation]
    ) -> tuple[Tensor, list[LogEntry]]:
        """One evaluation. Its graph dies with this call, before anybody hears of it."""
        leaf = variable.detach().requires_grad_()
        with torch.enable_grad():
            pulls = self._descent.pulls(observe(leaf, pending), pending)  # what was seen is not kept during the backward
        shifts, entries = self._descent.evaluated(pulls, leaf, step)
        (shift,) = shifts.values()
        return shift, entries

    def _predict_with(self, z: Latents, step: Step, terms: list[ActiveTerm]) -> Passes[Prediction]:
        """The prediction, and the pulls of terms that share its pass."""
        conditional, shifts, entries = self._shared_pass(z, step, terms)  # its graph is gone before the other branch runs
        for entry in entries:
            yield Evaluated(entry)
        prediction = self.run.denoiser.predict(z, step, conditional)
        if "noise" in shifts:
            prediction = _shift_noise(prediction, shifts["noise"], step)
        if "z0" in shifts:
            prediction = Prediction(prediction.eps, prediction.z0 - shifts["z0"])
        self._shift_after = shifts.get("after")
        return prediction

    def _shared_pass(
        self, z: Latents, step: Step, terms: list[ActiveTerm]
    ) -> tuple[Prediction, dict[str, Tensor], list[LogEntry]]:
        """One differentiable pass gives the conditional prediction and the shifts of all the terms, by site."""
        leaf = z.detach().requires_grad_()
        pending = [(t, TermStep(t.term.schedule, step, t.stopped)) for t in terms]
        with torch.enable_grad():
            seen = self._observer.observe(leaf, step, pending, shared=True)
            pulls = self._descent.pulls(seen, pending)
        shifts, entries = self._descent.evaluated(pulls, leaf, step)
        return Prediction(seen.view.eps.detach(), seen.view.z0.detach()), shifts, entries


def _shift_noise(prediction: Prediction, shift: Tensor, step: Step) -> Prediction:
    """Classifier guidance (Dhariwal & Nichol 2021, algorithm 2): the noise moves, and z0 with it, so that they make up `z`."""
    if step.alpha_bar == 0:
        raise ConfigError(f"site 'noise' at step {step.index}: z is noise alone there, so it cannot be moved; set from above 0")
    shift = (1 - step.alpha_bar) ** 0.5 * shift
    return Prediction(prediction.eps + shift, prediction.z0 - (1 / step.alpha_bar - 1) ** 0.5 * shift)
