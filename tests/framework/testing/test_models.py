"""Every embedded model conforms, and for every property there is one that lacks just that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import ConfigError, discover
from lsregen.framework.sampling.taps import TapPoint
from lsregen.framework.testing import MODEL_PROPERTIES, check_model
from lsregen.framework.testing.toys import CHANNELS, LAYERS, ToyDenoiser, ToyModel, ToyNetwork
from lsregen.framework.types import Prediction, View
from tests.framework.testing.broken import assert_lacks_only, refuse

pytestmark = pytest.mark.slow

PLUGINS = discover(only=())


def test_the_built_ins_are_looked_at() -> None:
    assert "shapeworld-base" in PLUGINS.embedded_models()


@pytest.mark.parametrize("name", PLUGINS.embedded_models())
def test_every_embedded_model_conforms(name: str) -> None:
    conformance = check_model(PLUGINS.load_model(name, device="cpu", dtype="fp32"))
    assert {*conformance.held, *conformance.skipped} == set(MODEL_PROPERTIES)


def test_the_toy_model_conforms() -> None:
    assert check_model(ToyModel()).held == tuple(MODEL_PROPERTIES)


def test_the_toy_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="word pieces"):
        ToyModel().tokens("a " * 20)
    with pytest.raises(ConfigError, match="multiples of 2"):
        ToyModel().latent_shape((3, 4))
    assert TapPoint(LAYERS[0].name, "hidden").layer == "down_blocks.0.attentions.0.transformer_blocks.0"


class Denoiser(ToyDenoiser):
    """What a model's denoisers do differently: `predicting` and `observing` change what is right."""

    predicting: Callable[..., Prediction] = staticmethod(lambda p, **_: p)
    observing: Callable[..., View] = staticmethod(lambda view, **_: view)

    def predict(self, z: Tensor, step: Any, conditional: Prediction | None = None) -> Prediction:
        found = super().predict(z, step, conditional)
        return self.predicting(found, denoiser=self, z=z, step=step, conditional=conditional)

    def observe(self, z: Tensor, step: Any, taps: Any) -> View:
        with torch.enable_grad():
            return self.observing(super().observe(z, step, taps), denoiser=self, z=z, taps=taps)


def model(**changes: Any) -> Any:
    """A toy model with other members; `predicting` and `observing` change its denoisers, `bound` them as a whole."""
    own = {name: staticmethod(changes.pop(name)) for name in ("predicting", "observing") if name in changes}
    denoiser, bound = type("Changed", (Denoiser,), own), changes.pop("bound", lambda d: None)

    def bind(self: Any, prompts: Any, negatives: Any, layouts: Any, *, cfg: float, count: int) -> Any:
        made = denoiser(self, prompts, tuple(negatives), cfg)
        bound(made)
        return made

    return type("Broken", (ToyModel,), {"bind": bind, **changes})()


class Neighbourly(ToyNetwork):
    def forward(self, z: Tensor, t: int, context: Tensor, taps: Any) -> Tensor:
        return super().forward(z, t, context, taps) + 0.05 * z.mean(dim=0, keepdim=True)


def with_network(network: ToyNetwork, frozen: bool = True) -> Any:
    made = ToyModel()
    with torch.no_grad():
        for own, new in zip(made.network.parameters(), network.requires_grad_(not frozen).parameters(), strict=True):
            new.copy_(own)
    made.network = network
    return made


def shown(view: View, prediction: Prediction | None = None, decode: Any = None) -> View:
    """A full view with another prediction or decoder."""
    model_decode = decode or view._decode  # type: ignore[reportPrivateUsage]
    return View(view.z, view.step, view.taps, view.layers, prediction or view.prediction, model_decode)


def louder_when_tapped(view: View, taps: Any, **_: Any) -> View:
    p = view.prediction if taps.full else None
    return shown(view, Prediction.from_eps(view.z, 1.01 * p.eps, view.step)) if p and taps.wanted else view


def louder_when_partial(view: View, taps: Any, **_: Any) -> View:
    for point in () if taps.full else [p for p in taps.wanted if p.kind == "hidden"]:
        taps.record(point.layer, point.kind, 1.01 * taps[point])
    return view


def one_text(denoiser: Any) -> None:
    denoiser.context = denoiser.model.embed("a red circle").expand_as(denoiser.context)


def one_scale(denoiser: Any) -> None:
    """The scale of the model's last denoiser, for all of them."""
    denoiser.model.cfg = denoiser.cfg
    type(denoiser).cfg = property(lambda self: self.model.cfg, lambda self, value: setattr(self.model, "cfg", value))
    denoiser.__dict__.pop("cfg", None)


def only_square_latents(p: Prediction, z: Tensor, **_: Any) -> Prediction:
    refuse(z.shape[-1] == z.shape[-2])
    return p


BROKEN: dict[str, Callable[[], Any]] = {
    "declarations": lambda: model(default_cfg=math.nan),
    "latent_shape": lambda: model(latent_shape=lambda self, size: (CHANNELS, size[0] // 2, size[1] // 2)),
    "bad_sizes_refused": lambda: model(latent_shape=lambda self, size: (CHANNELS, size[1] // 2, size[0] // 2)),
    "predict_shape": lambda: model(predicting=lambda p, **_: Prediction(p.eps.double(), p.z0)),
    "predict_pair": lambda: model(
        observing=lambda view, taps, **_: shown(view, Prediction(view.eps, 1.1 * view.z0)) if taps.full else view
    ),
    "text_matters": lambda: model(bound=one_text),
    "cfg_matters": lambda: model(bound=lambda d: setattr(d, "cfg", 1.0)),
    "conditional_reused": lambda: model(
        predicting=lambda p, conditional, **_: p if conditional is None else Prediction(1.01 * p.eps, p.z0)
    ),
    "taps_recorded": lambda: model(bound=lambda d: setattr(d, "layers", tuple(replace(layer, heads=8) for layer in LAYERS))),
    "tapped_equals_untapped": lambda: model(observing=louder_when_tapped),
    "partial_equals_full": lambda: model(observing=louder_when_partial),
    "gradient_reaches_z": lambda: model(
        observing=lambda view, taps, denoiser, **_: (
            shown(view, decode=lambda z: denoiser.model.decode(z.detach())) if taps.full else view
        )
    ),
    "parameters_frozen": lambda: with_network(ToyNetwork(), frozen=False),
    "per_sample_independence": lambda: with_network(Neighbourly()),
    "selects_samples": lambda: model(bound=lambda d: setattr(d, "select", lambda some: ToyDenoiser.select(d, sorted(some)))),
    "deterministic": lambda: model(predicting=lambda p, **_: Prediction(p.eps + 1e-6 * torch.rand(()), p.z0)),
    "denoisers_do_not_interfere": lambda: model(bound=one_scale),
    "inputs_untouched": lambda: model(encode_image=lambda self, images: ToyModel().encode_image(images.clamp_(0.4, 0.6))),
    "autoencoder": lambda: model(decode=lambda self, z: 2 * ToyModel().decode(z)),
    "tokens": lambda: model(bound=lambda d: setattr(d, "prompts", tuple(p.upper() for p in d.prompts))),
    "describe": lambda: model(describe=lambda self: {"name": "toy", "dtype": torch.float32}),
    "non_square": lambda: model(predicting=only_square_latents),
}


def test_there_is_a_broken_model_for_every_property() -> None:
    assert set(BROKEN) == set(MODEL_PROPERTIES)
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_lacks_a_property_fails_that_one_alone(name: str) -> None:
    assert_lacks_only(check_model, BROKEN[name], name)
