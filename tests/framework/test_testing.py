"""The conformance kit: every built-in passes it, and for every property there is a plugin that lacks just that one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import ConfigError, Pipeline, discover, load_preset, presets
from lsregen.framework.config import validate
from lsregen.framework.taps import TapPoint
from lsregen.framework.testing import (
    DISTANCE_PROPERTIES,
    EXTRACTOR_PROPERTIES,
    MODEL_PROPERTIES,
    SAMPLER_PROPERTIES,
    ConformanceError,
    check_distance,
    check_extractor,
    check_model,
    check_sampler,
)
from lsregen.framework.testing.inputs import alpha_bars
from lsregen.framework.testing.toys import CHANNELS, LAYERS, ToyDenoiser, ToyModel, ToyNetwork
from lsregen.framework.types import Energy, Features, Needs, NoiseSchedule, Prediction, TapRequest, View
from lsregen.samplers.ddim import DDIM
from lsregen.samplers.ddpm import DDPM
from lsregen.samplers.schedule import alpha_bars as published_alpha_bars

from ..toys import Look, Measure, mean_square

PLUGINS = discover(only=())
CHECKS: Mapping[str, tuple[Callable[..., Any], Mapping[str, str]]] = {
    "distance": (check_distance, DISTANCE_PROPERTIES),
    "sampler": (check_sampler, SAMPLER_PROPERTIES),
    "extractor": (check_extractor, EXTRACTOR_PROPERTIES),
    "model": (check_model, MODEL_PROPERTIES),
}


def of_presets() -> dict[str, Any]:
    """The extractors and distances of the published methods, with the options they are published with."""
    terms = {f"{name}: {t.name}": t for name in presets() for t in validate(load_preset(name), PLUGINS).terms}
    return {name: term.extractor for name, term in terms.items()}


# ---- the built-ins ----


@pytest.mark.parametrize("name", PLUGINS.distances)
def test_every_distance_conforms(name: str) -> None:
    conformance = check_distance(PLUGINS.distance(name).cls())
    assert {*conformance.held, *conformance.skipped} == set(DISTANCE_PROPERTIES)


def test_a_distance_that_averages_conforms() -> None:
    check_distance(L2(reduction="mean"))


@pytest.mark.parametrize("name", PLUGINS.samplers)
def test_every_sampler_conforms(name: str) -> None:
    conformance = check_sampler(PLUGINS.sampler(name).cls())
    assert conformance.held == tuple(SAMPLER_PROPERTIES)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_sampler_conforms_with_noise(eta: float) -> None:
    check_sampler(DDIM(eta=eta))


@pytest.mark.parametrize("name", PLUGINS.extractors)
def test_every_extractor_conforms(name: str) -> None:
    conformance = check_extractor(PLUGINS.extractor(name).cls())
    assert {*conformance.held, *conformance.skipped} == set(EXTRACTOR_PROPERTIES)


@pytest.mark.parametrize(("name", "extractor"), of_presets().items(), ids=list(of_presets()))
def test_the_extractors_of_presets_conform(name: str, extractor: Any) -> None:
    check_extractor(extractor)


def test_an_extractor_conforms_on_a_pipeline_of_its_users() -> None:
    check_extractor(CrossAttention(layers=("up_blocks.0.*",)), pipeline=Pipeline.load("shapeworld-base", device="cpu"))


@pytest.mark.parametrize("name", PLUGINS.embedded_models())
def test_every_embedded_model_conforms(name: str) -> None:
    conformance = check_model(PLUGINS.load_model(name, device="cpu", dtype="fp32"))
    assert {*conformance.held, *conformance.skipped} == set(MODEL_PROPERTIES)


def test_the_built_ins_are_all_looked_at() -> None:
    assert {"box_energy", "l2", "max_token"} <= set(PLUGINS.distances)
    assert {"ddim", "ddpm"} <= set(PLUGINS.samplers)
    assert "cross_attention" in PLUGINS.extractors
    assert "shapeworld-base" in PLUGINS.embedded_models()
    assert len(of_presets()) >= 4


def test_the_toy_model_conforms() -> None:
    assert check_model(ToyModel()).held == tuple(MODEL_PROPERTIES)


@pytest.mark.parametrize("noise", [NoiseSchedule(), NoiseSchedule(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)])
def test_the_levels_of_the_kit_are_the_published_ones(noise: NoiseSchedule) -> None:
    assert torch.allclose(alpha_bars(noise), published_alpha_bars(noise), rtol=1e-4)


# ---- the broken: one for each property ----


def variant(base: type, changes: Mapping[str, Any], **options: Any) -> Any:
    """An instance of `base` with other members. `call` stands for `__call__`."""
    members = {"__call__" if name == "call" else name: change for name, change in changes.items()}
    return dataclass(frozen=True)(type("Broken", (base,), {"__doc__": "Broken.", **members}))(**options)


@dataclass(frozen=True)
class Unexplained:
    """An option without help."""

    power: int = 2


def distance(changed: Callable[[Tensor, Features, Any], Tensor], base: type = BoxEnergy, **attributes: Any) -> Any:
    """A distance whose value is changed, given the right one and the features."""

    def call(self: Any, current: Features, target: Any) -> Energy:
        return Energy.of(changed(base.__call__(self, current, target), current, target))

    def bare(self: Any, current: Features, target: Any) -> Energy:
        return Energy(changed(base()(current, target).value, current, target), torch.zeros(len(current.present)))

    del call
    return variant(base, {"call": lambda self, c, t: Energy.of(bare(self, c, t).value), **attributes})


def seeing(change: Callable[[Features, Any], tuple[Features, Any]], base: type = BoxEnergy, **attributes: Any) -> Any:
    """A distance that measures other features than it is given."""
    return variant(base, {"call": lambda self, c, t: base()(*change(c, t)), **attributes})


def refuse(holds: bool) -> None:
    if not holds:
        raise ValueError("not prepared for this")


def only_square(value: Tensor, current: Features, target: Any) -> Tensor:
    refuse(all(m.shape[-1] == m.shape[-2] for m in current.maps))
    return value


def only_attention(value: Tensor, current: Features, target: Any) -> Tensor:
    refuse(current.kind == "attention")
    return value


def clamped_in_place(current: Features, target: Any) -> tuple[Features, Any]:
    target.maps[0].clamp_(max=0.999)
    return current, target


def first_of(features: Any) -> Any:
    return replace(features, maps=features.maps[:1])


DISTANCES: dict[str, Callable[[], Any]] = {
    "declarations": lambda: BoxEnergy(raster="diagonal"),
    "shape": lambda: distance(lambda v, c, t: v.mean()),
    "finite": lambda: distance(lambda v, c, t: v + 0 * c.maps[0].sum() / c.maps[0].sum()),
    "extreme_boxes": lambda: distance(
        lambda v, c, t: v + 0 * (1 / t.maps[0].sum(dim=(1, 3, 4))).nan_to_num(posinf=torch.nan)[:, 0]
    ),
    "differentiable": lambda: distance(lambda v, c, t: v.detach()),
    "energy_falls": lambda: distance(lambda v, c, t: 2 * v.detach() - v),
    "target_met": lambda: distance(lambda v, c, t: v + 0.3 * c.present.any(dim=1)),
    "target_declared": lambda: seeing(
        lambda c, t: (replace(c, present=c.present & t.present), None), MaxToken, needs_target=True
    ),
    "per_sample_independence": lambda: distance(lambda v, c, t: v * (1 + v.detach().mean())),
    "absent_ignored": lambda: distance(lambda v, c, t: v * c.present.to(v).mean(dim=1)),
    "unplaced_ignored": lambda: seeing(lambda c, t: (c, replace(t, present=c.present))),
    "dtype_and_device": lambda: distance(lambda v, c, t: v.float()),
    "deterministic": lambda: distance(lambda v, c, t: v * (1 + 1e-5 * torch.rand(()))),
    "inputs_untouched": lambda: seeing(clamped_in_place),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, BoxEnergy), {}), {}),
    "every_kind": lambda: distance(only_attention),
    "non_square": lambda: distance(only_square),
    "several_maps": lambda: seeing(lambda c, t: (first_of(c), first_of(t))),
}


def schedule(change: Callable[[list[Any]], Any]) -> Any:
    """A sampler whose schedule is changed."""
    return variant(DDIM, {"schedule": lambda self, noise, count: change(list(DDIM().schedule(noise, count)))})


def step(change: Callable[[Tensor, Tensor, Prediction, Any], Tensor], base: type = DDIM, **attributes: Any) -> Any:
    """A sampler whose step is changed, given the right result and its arguments."""
    changed = {"step": lambda self, z, p, s, noise: change(base().step(z, p, s, noise), z, p, s)}
    return variant(base, {**changed, **attributes})


def swapped(steps: list[Any]) -> tuple[Any, ...]:
    """Two steps in the middle of a long schedule, the wrong way round."""
    if len(steps) == 50:
        steps[20], steps[21] = replace(steps[21], index=20), replace(steps[20], index=21)
    return tuple(steps)


def tilted(bar: float) -> float:
    return bar**1.05 if bar < 0.99 else bar


def apart(steps: list[Any]) -> tuple[Any, ...]:
    """Every step but the last stops half way."""
    return (*(replace(s, alpha_bar_prev=(s.alpha_bar + s.alpha_bar_prev) / 2) for s in steps[:-1]), steps[-1])


def unfinished(steps: list[Any]) -> tuple[Any, ...]:
    last = steps[-1]
    return (*steps[:-1], replace(last, alpha_bar_prev=(last.alpha_bar + last.alpha_bar_prev) / 2))


def spared(z: Tensor) -> Tensor:
    refuse(z.shape[-1] == z.shape[-2])
    return z


def known_spacing(self: Any, noise: NoiseSchedule, count: int) -> Any:
    refuse(noise.spacing != "linspace")
    return DDIM().schedule(noise, count)


SAMPLERS: dict[str, Callable[[], Any]] = {
    "declarations": lambda: variant(DDIM, {"stochastic": "perhaps"}),
    "schedule_count": lambda: schedule(lambda steps: steps),
    "schedule_descends": lambda: schedule(swapped),
    "schedule_levels": lambda: schedule(
        lambda steps: tuple(replace(s, alpha_bar=tilted(s.alpha_bar), alpha_bar_prev=tilted(s.alpha_bar_prev)) for s in steps)
    ),
    "schedule_joins": lambda: schedule(apart),
    "schedule_ends_clean": lambda: schedule(unfinished),
    "schedule_refuses": lambda: variant(
        DDIM, {"schedule": lambda self, noise, count: DDIM().schedule(noise, min(max(count, 1), 500))}
    ),
    "step_shape": lambda: step(lambda r, z, p, s: r[:, :2]),
    "leads_to_z0": lambda: step(lambda r, z, p, s: r + 0.1 * (s.index == s.count - 1)),
    "noise_level": lambda: step(lambda r, z, p, s: r + 0.2 * (1 - s.alpha_bar_prev) ** 0.5 * p.eps),
    "stochastic_declared": lambda: variant(
        DDIM, {"step": lambda self, z, p, s, noise: DDIM().step(z, p, s, None) + (0 if noise is None else 0.1 * noise)}
    ),
    "per_sample_independence": lambda: step(lambda r, z, p, s: r + 1e-3 * z.mean(dim=0)),
    "inverts": lambda: variant(DDIM, {"invert_step": lambda self, z, p, s: z}),
    "dtype_and_device": lambda: step(lambda r, z, p, s: r.float()),
    "deterministic": lambda: step(lambda r, z, p, s: r + 1e-5 * torch.rand(()), DDPM),
    "inputs_untouched": lambda: step(lambda r, z, p, s: r + 0 * p.z0.clamp_(-1, 1)),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, DDIM), {}), {}),
    "every_shape": lambda: step(lambda r, z, p, s: spared(r)),
    "every_noise_schedule": lambda: variant(DDIM, {"schedule": known_spacing}),
}


def features(change: Callable[[Features, View, Any], Features], **options: Any) -> Any:
    """An extractor whose current features are changed."""
    call = CrossAttention.current
    return variant(CrossAttention, {"current": lambda self, view, state: change(call(self, view, state), view, state)}, **options)


def maps(change: Callable[[Tensor, View, Any], Tensor]) -> Any:
    """An extractor whose maps are changed, one by one."""
    return features(lambda f, view, state: replace(f, maps=tuple(change(m, view, state) for m in f.maps)))


def target(change: Callable[[Features, View, Any], Features]) -> Any:
    call = CrossAttention.target
    return variant(CrossAttention, {"target": lambda self, view, state: change(call(self, view, state), view, state)})


def needing(*requests: TapRequest) -> Any:
    return variant(CrossAttention, {"needs": Needs(taps=requests)})


def remembered(m: Tensor, view: View, state: Any) -> Tensor:
    """Changed from the second step on that a state is used at."""
    state.last = getattr(state, "last", view.step.index)
    state.moved = getattr(state, "moved", False) or state.last != view.step.index
    return 1.5 * m if state.moved else m


def dimmed(f: Features, view: View, state: Any) -> Features:
    view.z.mul_(0.99)
    return f


def never_nobody(f: Features, view: View, state: Any) -> Features:
    return replace(f, present=f.present | ~f.present.any(dim=1, keepdim=True))


EXTRACTORS: dict[str, Callable[[], Any]] = {
    "declarations": lambda: CrossAttention(layers=("up_blocks.9.*",)),
    "shape": lambda: maps(lambda m, view, state: m[:, 0]),
    "needs_sufficient": lambda: needing(TapRequest("cross_probs", ("mid",))),
    "needs_necessary": lambda: needing(TapRequest("cross_probs", ("mid", "first_up")), TapRequest("self_probs", ("mid",))),
    "finite": lambda: maps(lambda m, view, state: m / (view.step.index != view.step.count - 1)),
    "gradient_reaches_z": lambda: features(lambda f, view, state: replace(f, maps=(f.maps[0], f.maps[1].detach()))),
    "energy_falls": lambda: maps(lambda m, view, state: 2 * m.detach() - m),
    "others_taps_ignored": lambda: maps(lambda m, view, state: m * len(view.taps.wanted) / len(state.points)),
    "steps_do_not_interfere": lambda: maps(remembered),
    "per_sample_independence": lambda: maps(lambda m, view, state: m * (1 + view.z.mean())),
    "absent_phrases": lambda: features(never_nobody),
    "unplaced_left_out": lambda: target(lambda f, view, state: replace(f, present=state.present)),
    "dtype_and_device": lambda: target(lambda f, view, state: replace(f, maps=tuple(m.double() for m in f.maps))),
    "deterministic": lambda: maps(lambda m, view, state: m * (1 + 1e-5 * torch.rand(()))),
    "inputs_untouched": lambda: target(dimmed),
    "options_round_trip": lambda: variant(type("Base", (Unexplained, CrossAttention), {}), {}),
    "non_square": lambda: maps(lambda m, view, state: m if m.shape[-1] == m.shape[-2] else m.transpose(-1, -2)),
}


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


MODELS: dict[str, Callable[[], Any]] = {
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
    "deterministic": lambda: model(predicting=lambda p, **_: Prediction(p.eps + 1e-6 * torch.rand(()), p.z0)),
    "denoisers_do_not_interfere": lambda: model(bound=one_scale),
    "inputs_untouched": lambda: model(encode_image=lambda self, images: ToyModel().encode_image(images.clamp_(0.4, 0.6))),
    "autoencoder": lambda: model(decode=lambda self, z: 2 * ToyModel().decode(z)),
    "tokens": lambda: model(bound=lambda d: setattr(d, "prompts", tuple(p.upper() for p in d.prompts))),
    "describe": lambda: model(describe=lambda self: {"name": "toy", "dtype": torch.float32}),
    "non_square": lambda: model(predicting=only_square_latents),
}

BROKEN = {"distance": DISTANCES, "sampler": SAMPLERS, "extractor": EXTRACTORS, "model": MODELS}
CASES = [(kind, name) for kind, table in BROKEN.items() for name in table]


@pytest.mark.parametrize("kind", BROKEN)
def test_there_is_a_broken_plugin_for_every_property(kind: str) -> None:
    assert set(BROKEN[kind]) == set(CHECKS[kind][1])
    assert len(BROKEN[kind]) >= 12


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_plugin_that_lacks_a_property_fails_that_one_alone(kind: str, name: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        CHECKS[kind][0](BROKEN[kind][name]())
    assert list(caught.value.failed) == [name], str(caught.value)
    line = caught.value.failed[name]
    assert line.startswith("expected ")
    assert "; saw " in line
    assert "; mend: " in line
    assert "\n" not in line


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_it_fails_too_when_that_property_alone_is_asked_for(kind: str, name: str) -> None:
    with pytest.raises(ConformanceError, match=f"  {name}: expected "):
        CHECKS[kind][0](BROKEN[kind][name](), only=[name])


# ---- how it reports ----


def test_one_error_names_all_that_is_wrong_and_what_was_not_tried() -> None:
    broken = distance(lambda v, c, t: v.detach() + 0.3 * c.present.any(dim=1))
    with pytest.raises(ConformanceError) as caught:
        check_distance(broken)
    assert list(caught.value.failed) == ["differentiable", "target_met"]
    assert caught.value.not_tried == ("energy_falls", "several_maps")
    first, *lines, last = str(caught.value).splitlines()
    assert first == "distance Broken lacks 2 properties:"
    assert [line.split(":")[0].strip() for line in lines] == ["differentiable", "target_met"]
    assert last == "  not tried, since they build on these: energy_falls, several_maps"


def test_whatever_a_plugin_raises_is_reported_in_one_line() -> None:
    def crash(value: Tensor, current: Features, target: Any) -> Tensor:
        raise RuntimeError("two\nlines")

    with pytest.raises(ConformanceError, match=r"saw RuntimeError: two lines; mend: ") as caught:
        check_distance(distance(crash))
    assert list(caught.value.failed) == ["shape"]


def test_what_does_not_apply_is_skipped_with_the_reason() -> None:
    conformance = check_distance(MaxToken())
    assert set(conformance.skipped) == {"target_met", "target_declared", "unplaced_ignored"}
    assert all("needs_target = False" in reason for reason in conformance.skipped.values())
    assert not set(conformance.held) & set(conformance.skipped)


def test_a_distance_between_latents_is_not_asked_about_phrases() -> None:
    conformance = check_distance(Measure(mean_square), only=["absent_ignored", "every_kind"])
    assert conformance.held == ("declarations", "shape")
    assert set(conformance.skipped) == {"absent_ignored", "every_kind"}


def test_an_extractor_that_looks_at_z_alone_needs_no_network() -> None:
    held = check_extractor(Look("z"), only=["gradient_reaches_z", "needs_necessary", "energy_falls"]).held
    assert {"gradient_reaches_z", "needs_necessary", "energy_falls"} <= set(held)


@pytest.mark.parametrize("at", ["z0", "image"])
def test_an_extractor_gets_the_prediction_and_the_image_it_declares(at: str) -> None:
    assert "needs_necessary" in check_extractor(Look(at), only=["gradient_reaches_z", "needs_necessary"]).held


@pytest.mark.parametrize(("kind", "build"), [("distance", BoxEnergy), ("sampler", DDIM), ("extractor", CrossAttention)])
def test_properties_can_be_chosen_by_name(kind: str, build: Callable[[], Any]) -> None:
    check, properties = CHECKS[kind]
    assert check(build(), only=["options_round_trip"]).held == ("declarations", "options_round_trip")
    assert all(meaning and "\n" not in meaning for meaning in properties.values())


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (["per_sample_independance"], "did you mean 'per_sample_independence'"),
        (["beauty"], "no property is called 'beauty'; there are declarations, shape"),
        ("shape", "expected a list"),
        ([], "expected a list"),
    ],
)
def test_a_property_that_does_not_exist_is_refused(only: Collection[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_distance(BoxEnergy(), only=only)


def test_checking_leaves_the_global_random_stream_alone() -> None:
    before = torch.get_rng_state()
    check_distance(BoxEnergy())
    check_sampler(DDPM())
    check_model(ToyModel(), only=["deterministic"])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_toy_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="word pieces"):
        ToyModel().tokens("a " * 20)
    with pytest.raises(ConfigError, match="multiples of 2"):
        ToyModel().latent_shape((3, 4))
    assert TapPoint(LAYERS[0].name, "hidden").layer == "down_blocks.0.attentions.0.transformer_blocks.0"
