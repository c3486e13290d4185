"""What the code of a plugin raises, wherever it is called: one error that names the term, the class and its package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from lsregen.framework import ConfigError, Features, PluginError, Run, Term, View
from lsregen.framework.config.options import build
from lsregen.framework.guidance.run import Guidance
from lsregen.framework.plugins.calls import calling
from lsregen.samplers.ddim import DDIM
from tests.toys import LinearDenoiser, Look, Measure, draw, features, make_run, sampled, square

RAISED = [IndexError("index 7"), SystemExit(0), RecursionError("deep"), ZeroDivisionError(), type("Own", (Exception,), {})("x")]


@dataclass(frozen=True)
class Failing(Look):
    """Raises in one of its methods."""

    where: str = ""
    what: Any = None

    def fail(self, where: str) -> None:
        if where == self.where:
            raise self.what

    def prepare(self, run: Run, raster: str) -> Any:
        self.fail("prepare")

    def current(self, view: View, state: Any) -> Features:
        self.fail("current")
        return super().current(view, state)

    def target(self, view: View, state: Any) -> Features | None:
        self.fail("target")
        return super().target(view, state)

    def initial(self, run: Run, state: Any) -> Tensor | None:
        self.fail("initial")
        return None


@dataclass(frozen=True)
class Aimed(Measure):
    needs_target: ClassVar[bool] = True


@dataclass(frozen=True)
class FailingWalk(DDIM):
    where: str = ""
    what: Any = None

    def step(self, z: Any, prediction: Any, step: Any, noise: Any) -> Any:
        if self.where == "step":
            raise self.what
        return super().step(z, prediction, step, noise)

    def invert_step(self, z: Any, prediction: Any, step: Any) -> Any:
        if self.where == "invert_step":
            raise self.what
        return super().invert_step(z, prediction, step)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        raise IndexError("index 7")


def run_with(term: Term) -> None:
    sampled(make_run(LinearDenoiser(), draw(0, 1, 4, 3, 3), count=2), Guidance([term]))


def measured(what: BaseException) -> Callable[[Tensor], Tensor]:
    def fail(_: Tensor) -> Tensor:
        raise what

    return fail


@pytest.mark.parametrize("what", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["prepare", "current", "target", "initial", "distance"])
def test_a_term_whose_plugin_raises_is_named_with_the_class(where: str, what: BaseException) -> None:
    distance = Aimed(measured(what) if where == "distance" else square)
    with pytest.raises(PluginError) as caught:
        run_with(Term(Failing(where=where, what=what), distance, name="mine"))
    assert caught.value.__cause__ is what
    for said in ("'mine'", "Aimed" if where == "distance" else "Failing", type(what).__name__, str(what)):
        assert said in str(caught.value)


def test_a_backward_that_raises_is_told_of_the_term() -> None:
    with pytest.raises(PluginError, match=r"'mine'.*Measure.*IndexError: index 7"):
        run_with(Term(Look(), Measure(lambda maps: Broken.apply(square(maps))), name="mine"))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("where", ["step", "invert_step"])
def test_a_sampler_that_raises_is_named(where: str) -> None:
    z = draw(0, 1, 4, 3, 3)
    run = make_run(LinearDenoiser(), z, count=2, sampler=FailingWalk(where=where, what=IndexError("index 7")))
    with pytest.raises(PluginError, match=rf"{where} of sampler FailingWalk raised IndexError: index 7"):
        sampled(run, Guidance()) if where == "step" else run.invert(z)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA out of memory"), ConfigError("as it is")], ids=repr
)
def test_interruptions_memory_and_own_errors_stay_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, calling("here", "distance", Measure(square)):
        raise error
    assert caught.value is error


@dataclass(frozen=True)
class Exits:
    """Ends the process as soon as it is made."""

    size: int = 1

    def __post_init__(self) -> None:
        raise SystemExit(0)


def test_options_that_cannot_be_made_name_the_class() -> None:
    with pytest.raises(PluginError, match=r"pull\.distance.*Exits raised SystemExit: 0"):
        build(Exits, {"size": 2}, "guidance.pull.distance")


@dataclass(frozen=True)
class Misshapen(Look):
    """Gives features with one thing changed."""

    change: Any = None

    def current(self, view: View, state: Any) -> Features:
        good = features(view.z[:, None], kind=self.kind)
        return Features(**{**vars(good), **self.change(good)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda good: {"kind": "attention"}, "kind is 'attention'"),
        (lambda good: {"maps": (good.maps[0][:, 0],)}, r"maps\[0\] is a Tensor of shape \[2, 4, 3, 3\]"),
        (lambda good: {"maps": (good.maps[0], good.maps[0][:1])}, r"maps\[1\] is a Tensor of shape \[1, "),
        (lambda good: {"maps": good.maps[0]}, "maps are a Tensor"),
        (lambda good: {"maps": ()}, "maps are"),
        (lambda good: {"present": good.present[0]}, "present is"),
        (lambda good: {"present": good.present.float()}, "present is .* of float32"),
        (lambda good: {"present": None}, "present is None"),
        (lambda good: {"group": good.group[:, :2]}, "group is"),
        (lambda good: {"group": good.group.float()}, "group is .* of float32"),
    ],
)
def test_features_of_another_kind_or_shape_are_refused(change: Any, said: str) -> None:
    run = make_run(LinearDenoiser(prompts=("a", "b")), draw(0, 2, 4, 3, 3), count=2)
    with pytest.raises(ConfigError, match=f"'mine'.*Misshapen.*{said}"):
        sampled(run, Guidance([Term(Misshapen(change=change), Measure(square), name="mine")]))


class Detaching(LinearDenoiser):
    def observe(self, z: Any, step: Any, taps: Any) -> View:
        return super().observe(z.detach(), step, taps)


@pytest.mark.parametrize("at", ["probs", "z0"])
def test_a_model_that_detaches_is_blamed_and_not_the_term(at: str) -> None:
    run = make_run(Detaching(), draw(0, 1, 4, 3, 3), count=2)
    with pytest.raises(PluginError, match=r"model 'toy'.*check_model"):
        sampled(run, Guidance([Term(Look(at), Measure(square), name="mine")]))


@pytest.mark.parametrize("given", [None, 3, "steps"])
def test_a_sampler_that_gives_no_latent_is_refused(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(LinearDenoiser(), draw(0, 1, 4, 3, 3), count=2)
    monkeypatch.setattr(DDIM, "step", lambda *_: given)
    with pytest.raises(ConfigError, match="DDIM: step returned"):
        sampled(run, Guidance())
