"""One request being made."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from ..config.options import plain
from ..errors import ConfigError
from ..events import Progress, Stepped, StepReport
from ..guidance.contracts import overshoot
from ..guidance.run import GuidanceRun
from ..layout.tokens import check_phrases
from ..protocols import Run
from ..sampling.attention_trace import AttentionTrace
from ..sampling.image_to_image import beginning, entered, to_pil
from ..sampling.loop import sample
from ..sampling.taps import select_layers
from .engine import Engine, Renders
from .events import Prepared
from .preflight import unused_settings
from .report import Report, Result, described
from .request import Request
from .resolving import guidance_of


class Making:
    """A request being made, and what has come of it so far.

    `last`: the report of the last step that was made. `finished`: whether that was the last of all.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.guidance = guidance_of(request.config)
        self.renders = Renders(engine, request)
        self.last: StepReport | None = None
        self.finished = False
        self._clock = _Clock()
        self._made = 0
        self._pull: GuidanceRun | None = None
        self._tracer: AttentionTrace | None = None

    def events(self) -> Generator[Prepared | Progress, None, None]:
        """Everything up to the last step."""
        run = self._begun()
        self._tracer = self._tracer_of(run)
        self._clock.lap("prepare")
        yield Prepared(run.steps, run.size, tuple(self.renders.notices))
        self._pull = yield from self.guidance.start(run)
        with closing(sample(run, self._pull)) as passes:
            for event in passes:
                if isinstance(event, Stepped):
                    self.last, self._made = event.report, self._made + 1
                    self.finished = self._made == len(run.steps)
                yield event
                if isinstance(event, Stepped) and self._tracer is not None:
                    self._tracer(event.report)

    def result(self) -> Result:
        """The images: of the last latent, or, where steps are missing, of the last estimate of the clean one.

        Raises:
            NonFiniteError: values of an image are not finite.
        """
        if self.last is None:
            raise ConfigError("no step was made, so there is no image")
        request, pull, clock = self.request, self._pull, self._clock
        clock.lap("sample")
        images = to_pil(self.engine.decode(self.last.z_next if self.finished else self.last.prediction.z0, request.seeds))
        clock.lap("decode")
        report = Report(
            prompts=request.prompts,
            negatives=request.negatives,
            layouts=request.layouts,
            seeds=request.seeds,
            **described(self.engine.model, self.engine.plugins, replace(request.config, seed=request.seeds[0])),
            size=request.size,
            models=plain(self.renders.models),
            energies=() if pull is None else tuple(pull.log),
            seconds=clock.laps,
            guided_passes=0 if pull is None else pull.passes,
            skipped_updates=0 if pull is None else pull.skipped,
            steps_made=self._made,
            initial=beginning(request.initial, request.strength) if request.initial else {},
        )
        maps = {} if self._tracer is None else self._tracer.maps
        return Result(images, report, maps, self.renders.images, tuple(self.renders.notices), self.finished)

    def _begun(self) -> Run:
        """The run, entered where it starts from images; what there is to warn of is noted."""
        request, pulled = self.request, bool(self.guidance.terms)
        run = self.engine.begin(request, self.renders)
        if request.initial:
            run = entered(run, request.initial, request.strength)
        for table, layout in zip(run.denoiser.tokens, run.layouts, strict=True):
            check_phrases(table, layout.phrases, seen=pulled)
        cfg = self.engine.model.default_cfg if request.config.cfg is None else request.config.cfg
        for sentence in unused_settings(run, request.asked, pulled, request.negatives, cfg):
            self.renders.note(sentence)
        for term in self.guidance.terms:
            if said := overshoot(term.name, term.extractor, term.distance, term.schedule):
                self.renders.note(said)
        return run

    def _tracer_of(self, run: Run) -> AttentionTrace | None:
        layers, shots = run.denoiser.layers, self.request.trace
        if shots < 1 or not layers or not any(layout.phrases for layout in run.layouts):
            return None
        cls = self.engine.plugins.extractor("cross_attention").cls
        extractor = cls(heads="mean", combine="mean", pieces="mean")
        try:
            select_layers(layers, extractor.layers)
        except ConfigError:  # a network of another build: what all of its layers look at
            extractor = replace(extractor, layers=("all",))
        return AttentionTrace(run, extractor, shots)


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
