"""What no pull can be made of is refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from lsregen.distances.box_energy import BoxEnergy
from lsregen.distances.l2 import L2
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework.errors import ConfigError, NonFiniteError
from lsregen.framework.guidance.contracts import remedies
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.types import Energy, View
from tests.toys import LinearDenoiser, Look, Measure, draw, make_run, square, start


class Constant(Measure):
    def __call__(self, current: Any, target: Any) -> Any:
        return super().__call__(replace(current, maps=(current.maps[0].detach(),)), target)


def test_an_energy_that_does_not_depend_on_the_latent_is_refused_even_beside_one_that_does() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    stuck = Term(Look("z"), Constant(square), name="stuck")
    for terms in ([stuck], [Term(Look("z"), Measure(square), name="fine"), stuck]):
        with pytest.raises(ConfigError, match=r"term 'stuck': its energy does not depend on the latent"):
            start(terms, run).before(run.z_T, run.steps[0])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda e: e.value, "a Tensor of shape [2]"),
        (lambda _: None, "None"),
        (lambda e: Energy.of(e.value.sum()), "an Energy whose value is a Tensor of shape []"),
        (lambda e: replace(e, watch=e.watch[:, None]), "an Energy whose watch is a Tensor of shape [2, 1]"),
        (lambda e: replace(e, watch=0.5), "an Energy whose watch is a float"),
        (lambda e: replace(e, refine=e.value[:1]), "an Energy whose refine is a Tensor of shape [1]"),
    ],
)
def test_a_distance_that_returns_no_energy_of_each_sample_is_refused(returned: Callable[[Energy], Any], said: str) -> None:
    class Mine(Measure):
        def __call__(self, current: Any, target: Any) -> Any:
            return returned(super().__call__(current, target))

    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    with pytest.raises(ConfigError) as caught:
        start(Term(Look("z"), Mine(square), name="mine"), run).before(run.z_T, run.steps[0])
    assert str(caught.value) == (
        f"term 'mine': distance Mine returned {said}; expected an Energy of tensors [b], one value for each sample, here [2]; "
        "lsregen.framework.testing.check_distance(Mine(...)) finds this"
    )


def test_an_extractor_that_returns_no_features_is_refused() -> None:
    class Mine(Look):
        def current(self, view: View, state: Any) -> Any:
            return view.z

    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    expected = (
        r"^term 'mine': current of extractor Mine returned a Tensor of shape \[2, 3, 4, 4\]; expected a Features .*finds this$"
    )
    with pytest.raises(ConfigError, match=expected):
        start(Term(Mine("z"), Measure(square), name="mine"), run).before(run.z_T, run.steps[0])


class Weighed:
    """Of a model, what remedies are chosen by."""

    def __init__(self, dtype: torch.dtype, *broken: str) -> None:
        self.dtype, self.broken = dtype, broken

    def broken_weights(self) -> tuple[str, ...]:
        return self.broken


@pytest.mark.parametrize(("dtype", "said"), [(torch.float16, "try --dtype fp32 or less"), (torch.float32, "try less")])
def test_a_wider_dtype_is_advised_only_where_there_is_one(dtype: torch.dtype, said: str) -> None:
    for model in (Weighed(dtype), type("Silent", (), {"dtype": dtype})()):
        assert remedies(cast("Any", model), "less") == said


def test_a_lower_gamma_is_advised_only_where_something_was_pulled() -> None:
    model: Any = Weighed(torch.float32)
    assert remedies(model, "a lower cfg", "a lower gamma") == "try a lower cfg or a lower gamma"
    assert remedies(model, "a lower cfg", "a lower gamma", pulled=False) == "try a lower cfg"
    assert "network itself" in remedies(model, "a lower gamma", pulled=False)


def test_weights_that_are_not_finite_are_named_first() -> None:
    for dtype in (torch.float32, torch.float16):
        said = remedies(cast("Any", Weighed(dtype, "unet", "vae")), "a lower gamma")
        assert "weights of unet and vae" in said
        assert ("--dtype fp32" in said, "gamma" in said) == (dtype == torch.float16, False)


def test_an_energy_that_is_not_finite_is_refused_by_name_and_step() -> None:
    run = make_run(LinearDenoiser(), draw(1, 2, 3, 4, 4))
    bad = Term(Look("z"), Measure(lambda maps: square(maps) * torch.tensor([1.0, float("nan")])), name="bad")
    for site in ("before", "after"):
        pull = start(replace(bad, schedule=Schedule(site=site)), run)
        with pytest.raises(NonFiniteError, match=r"term 'bad' at step 1 \(t=\d+\): its energy .*nan.* network in torch\.float32"):
            pull.before(run.z_T, run.steps[1]) if site == "before" else pull.predict(run.z_T, run.steps[1])


@pytest.mark.parametrize("normalise", ["none", "linf", "rms"])
def test_a_gradient_that_is_not_finite_is_refused_by_name_and_step(normalise: str) -> None:
    run = make_run(LinearDenoiser(), torch.zeros(1, 3, 2, 2))
    steep = Measure(lambda maps: maps.abs().sqrt().flatten(1).sum(dim=1))  # at 0: an energy of 0, a slope without bound
    with pytest.raises(
        NonFiniteError, match=r"term 'steep' at step 2 .*gradient is not finite, with the network in torch\.float32"
    ):
        start(Term(Look("z"), steep, Schedule(normalise=normalise), name="steep"), run).before(run.z_T, run.steps[2])


def test_a_distance_that_needs_a_target_names_the_extractor_that_has_none() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    pull = start(Term(Look("z", aim=None), L2(), name="pull"), run)
    with pytest.raises(ConfigError, match=r"'pull'.*L2 needs a target.*Look"):
        pull.before(run.z_T, run.steps[0])


PLACED = Region("cat", Box(0, 0, 0.5, 0.5))


@pytest.mark.parametrize(
    ("distance", "bare", "said"),
    [
        (
            BoxEnergy(),
            Layout((Region("cat"),)),
            "BoxEnergy needs a target, and extractor CrossAttention has none for the image of",
        ),
        (MaxToken(), Layout(), "extractor CrossAttention has nothing to look at in the image of"),
    ],
)
def test_what_an_image_lacks_alone_it_lacks_in_a_batch(distance: Any, bare: Layout, said: str) -> None:
    term = Term(CrossAttention(layers=("mid",)), distance, name="pull")
    prompts, z = ("a cat", "a cat"), draw(1, 2, 12, 4, 4)
    run = make_run(LinearDenoiser(prompts=prompts), z, layouts=[Layout((PLACED,)), bare], seed=5)
    with pytest.raises(ConfigError, match=f"term 'pull': .*{said} seed 6; give it"):
        start(term, run).before(z, run.steps[0])
    run = make_run(LinearDenoiser(prompts=prompts), z, layouts=[Layout((PLACED, Region("a"))), Layout((PLACED,))])
    start(term, run).before(z, run.steps[0])  # a phrase without a place beside one that has one is left out


def test_a_distance_that_does_not_accept_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MaxToken accepts features of kind attention, probability.*Look gives latent"):
        Term(Look("z"), MaxToken())


@pytest.mark.parametrize(
    ("extractor", "distance"),
    [(CrossAttention(), BoxEnergy()), (CrossAttention(), L2()), (Look("z"), L2(reduction="mean"))],
    ids=["no square", "no latents", "a mean"],
)
def test_a_blend_of_what_does_not_blend_is_refused(extractor: Any, distance: Any) -> None:
    with pytest.raises(ConfigError, match=r"term pull: blend 0.5: only a squared distance between latents"):
        Term(extractor, distance, Schedule(blend=0.5), "pull")


@pytest.mark.parametrize(
    ("looks", "site", "right"),
    [("z", "after", "before"), ("z", "noise", "before"), ("z0", "before", "z0"), ("z0", "noise", "z0")],
)
def test_a_blend_where_it_would_not_be_the_share_that_is_moved_is_refused(looks: str, site: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"term pull: blend 0.5 at site '{site}': .* only at site '{right}'"):
        Term(Look(looks), L2(), Schedule(blend=0.5, site=site), "pull")
    Term(Look(looks), L2(), Schedule(blend=0.5, site=right), "pull")


def test_a_pull_of_the_clean_estimate_by_what_looks_at_z_alone_is_refused_before_it_runs() -> None:
    with pytest.raises(ConfigError, match="term pull: extractor Look looks at z alone"):
        Term(Look("z"), L2(), Schedule(site="z0"), "pull")


def test_a_raster_rule_that_does_not_exist_is_refused_when_the_term_is_made() -> None:
    with pytest.raises(ConfigError, match=r"term pull: distance Measure: raster: 'aera' is not one of area"):
        Term(Look("z"), Measure(square, raster="aera"), name="pull")


def test_asking_a_view_for_what_the_pass_did_not_make_says_how_to_declare_it() -> None:
    run = make_run(LinearDenoiser(), draw(1, 1, 3, 4, 4))
    view = View(run.z_T, run.steps[0], run.denoiser.observe(run.z_T, run.steps[0], pull_nothing()).taps)
    with pytest.raises(ConfigError, match="prediction=True"):
        _ = view.eps
    with pytest.raises(ConfigError, match="image=True"):
        view.image()


def pull_nothing() -> Any:
    from lsregen.framework.sampling.taps import Taps

    return Taps(())


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((L2(), Look("z")), "extractor: L2 is no extractor; the extractor comes first: Term(extractor, distance)"),
        (
            (CrossAttention, BoxEnergy),
            "extractor: the class CrossAttention is no extractor; write CrossAttention(...)",
        ),
        ((CrossAttention(), BoxEnergy), "distance: the class BoxEnergy is no distance; write BoxEnergy(...)"),
        (("cross_attention", L2()), "extractor: str is no extractor"),
        ((Look("z"), L2(), 3.0), "schedule: 3.0 is no schedule; write Schedule(gamma=...)"),
    ],
)
def test_what_no_term_is_made_of_is_refused(parts: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Term(*parts)
    assert str(caught.value) == f"term ?: {said}"


def test_what_is_no_guidance_is_not_added() -> None:
    one: Any = Guidance(Term(Look("z"), L2()))
    expected = (
        r"guidance: 'layout-guidance' is no term; expected Term\(extractor, distance\), or a list of them; a preset's: pipeline"
    )
    with pytest.raises(ConfigError, match=expected):
        _ = one + "layout-guidance"
    with pytest.raises(ConfigError, match=r"guidance: 3 is no term; expected Term\(extractor, distance\), or a list of them$"):
        one.__add__([*one.terms, 3])
