"""A run as a stream of events: what it tells, where it can be cancelled, and what a cancelled run gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lsregen.framework import (
    ConfigError,
    Evaluated,
    Event,
    Finished,
    Inverted,
    Layout,
    Model,
    Pipeline,
    Prepared,
    Rendering,
    Request,
    Step,
    Stepped,
)
from lsregen.framework.layout import tokens
from lsregen.framework.plugins.registry import Plugins
from lsregen.framework.sampling.image_to_image import to_pil
from lsregen.models.runtime.latent_diffusion import BoundDenoiser
from tests.near import same_pictures

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
SOURCE: dict[str, Any] = {"model": "shapeworld-gligen", "steps": 2, "size": [32, 32]}
SMALL: dict[str, Any] = {
    "extractor": {"name": "gligen_inversion", "source": SOURCE},
    "distance": "l2",
    "blend": 0.5,
    "until": 0.5,
}
PULL: dict[str, Any] = {
    "extractor": "cross_attention", "distance": "box_energy", "gamma": 3.0, "repeats": 2, "until": 0.5,
}  # fmt: skip
EVERYTHING = {"steps": 3, "guidance": {"small": SMALL, "layout": PULL}}


@pytest.fixture
def everything(pipeline: Pipeline) -> Request:
    """A request whose run renders, inverts, repeats updates and steps."""
    return pipeline.request([PROMPT] * 2, layout=LAYOUT, guidance=EVERYTHING, seed=[1, 2])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every pass through a denoising network, as it is made."""
    made: list[str] = []

    def counted(name: str) -> None:
        original = getattr(BoundDenoiser, name)

        def call(self: BoundDenoiser, z: torch.Tensor, step: Step, *rest: Any) -> Any:
            if name == "predict" or rest[0].wanted or rest[0].full:
                made.append(name)
            return original(self, z, step, *rest)

        monkeypatch.setattr(BoundDenoiser, name, call)

    counted("predict")
    counted("observe")
    return made


def kind(event: Event) -> str:
    inner = f" {kind(event.event)}" if isinstance(event, Rendering) else ""
    return type(event).__name__ + inner


def test_a_run_tells_everything_in_order_and_pauses_between_any_two_passes(
    pipeline: Pipeline, everything: Request, passes: list[str]
) -> None:
    told: list[str] = []
    counts: list[int] = []
    for event in pipeline.stream(everything):
        told.append(kind(event))
        counts.append(len(passes))
    assert told[0] == "Prepared"
    assert told[1:3] == ["Rendering Stepped"] * 2
    assert told[3:6] == ["Inverted"] * 3
    first = ["Evaluated"] * 3 + ["Stepped"]  # `small` is done after one update, `layout` after two
    assert told[6:] == [*first, *first, "Stepped", "Finished"]
    made = np.diff(counts)
    assert made.max() == 1, "never two passes without a pause"
    assert sum(made) == len(passes) == 2 + 3 + 2 * (2 + 1) + 1


POINTS: dict[str, Callable[[Event], bool]] = {
    "before the first pass": lambda event: isinstance(event, Prepared),
    "a render": lambda event: isinstance(event, Rendering),
    "an inversion": lambda event: isinstance(event, Inverted),
    "a repeated update": lambda event: isinstance(event, Evaluated),
    "between steps": lambda event: isinstance(event, Stepped),
}


@pytest.mark.parametrize("point", POINTS)
def test_closing_cancels_there(pipeline: Pipeline, everything: Request, passes: list[str], point: str) -> None:
    events = pipeline.stream(everything)
    while not POINTS[point](next(events)):
        pass
    made = len(passes)
    events.close()
    assert len(passes) == made
    with pytest.raises(StopIteration):
        next(events)
    assert torch.is_grad_enabled()


def test_sending_false_gives_the_estimate_of_the_last_step(pipeline: Pipeline, everything: Request) -> None:
    events = pipeline.stream(everything)
    steps: list[Stepped] = []
    for event in events:
        steps += [event] if isinstance(event, Stepped) else []
        if steps and isinstance(event, Evaluated):
            break
    ended = events.send(False)
    assert isinstance(ended, Finished)
    assert not ended.result.finished
    assert ended.result.report.steps_made == 1
    assert "unfinished" in repr(ended.result)
    with torch.no_grad():
        assert same_pictures(ended.result.images, to_pil(pipeline.model.decode(steps[-1].report.prediction.z0)))
    assert list(events) == []


def test_sending_false_before_the_first_step_gives_nothing(pipeline: Pipeline, everything: Request, passes: list[str]) -> None:
    events = pipeline.stream(everything)
    next(events)
    with pytest.raises(StopIteration):
        events.send(False)
    assert passes == []


def test_gradients_of_the_caller_are_as_they_were_at_every_pause(pipeline: Pipeline, everything: Request) -> None:
    for event in pipeline.stream(everything):
        assert torch.is_grad_enabled(), event
        assert not isinstance(event, Stepped) or not event.report.z_next.requires_grad


@pytest.mark.same_request
def test_a_call_is_the_drained_stream(pipeline: Pipeline) -> None:
    options: dict[str, Any] = {"layout": LAYOUT, "guidance": "layout-guidance", "steps": 3, "seed": 4}
    *_, last = pipeline.stream(pipeline.request(PROMPT, **options))
    assert isinstance(last, Finished)
    called = pipeline(PROMPT, **options)
    assert called.finished
    assert last.result.image.tobytes() == called.image.tobytes()
    assert last.result.report.energies == called.report.energies
    assert pipeline(pipeline.request(PROMPT, **options)).report.config == called.report.config
    with pytest.raises(ConfigError, match="seed: beside a request"):
        pipeline(pipeline.request(PROMPT), seed=1)


def test_a_source_is_loaded_once_for_all_batches_and_terms(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, Any]]] = []
    load = Plugins.load_model

    def watched(plugins: Plugins, model: str, **options: Any) -> Model:
        loaded.append((model, options))
        return load(plugins, model, **options)

    monkeypatch.setattr(Plugins, "load_model", watched)
    fresh = Pipeline(pipeline.model, pipeline.plugins, {"memory": "low", "vae": "mine"})
    twice = {"steps": 1, "guidance": {"one": {**SMALL, "until": 1}, "two": {**SMALL, "until": 1}}}
    results = [fresh(PROMPT, layout=LAYOUT, guidance=twice, seed=seed) for seed in (1, 2)]
    assert [name for name, _ in loaded] == ["shapeworld-gligen"]
    assert loaded[0][1]["wherever_taken"] == {"memory": "low"}, "what is about the machine is taken over, the vae is not"
    assert [len(result.renders) for result in results] == [1, 1]
    own = {"guidance.one.extractor.source.memory": ["balanced"], "guidance.two.extractor.source.tiling": ["on"]}
    fresh.sweep(fresh.request(PROMPT, layout=LAYOUT, guidance=twice), own)
    assert [(options.get("memory"), options.get("tiling")) for _, options in loaded[1:]] == [("balanced", None), (None, "on")]


def test_a_phrase_is_located_once_a_run(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    located: list[str] = []
    find = tokens.occurrences

    def counted(name: str, prompt: str) -> Any:
        located.append(name)
        return find(name, prompt)

    monkeypatch.setattr(tokens, "occurrences", counted)
    pipeline(PROMPT, layout=LAYOUT, guidance={"guidance": {"one": PULL, "two": PULL}}, steps=1, trace=1)
    assert sorted(located) == ["blue square", "red circle"]


def test_warnings_are_values_of_the_result(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    request = pipeline.request(PROMPT, layout=LAYOUT, negative="a star", cfg=1, steps=1)
    prepared, *_, last = pipeline.stream(request)
    assert isinstance(prepared, Prepared)
    assert isinstance(last, Finished)
    assert len(last.result.notices) == 2
    assert list(prepared.notices) == list(last.result.notices) == caplog.messages
    assert "2 notices" in repr(last.result)
    assert pipeline(PROMPT, steps=1).notices == ()


def test_a_request_keeps_its_configuration(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    request = pipeline.request(PROMPT, layout=LAYOUT, guidance="layout-guidance", steps=1)
    monkeypatch.setattr("lsregen.framework.pipeline.resolving.validate", None)  # whoever resolves again fails
    assert pipeline(request).report.config["steps"] == 1
    again = pipeline.request(PROMPT, layout=LAYOUT, guidance=request.config)
    assert again == request
    with pytest.raises(ConfigError, match="steps: beside a resolved configuration"):
        pipeline.request(PROMPT, guidance=request.config, steps=2)
