"""The properties of a model and of the denoisers it binds, and `check_model`."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ..config.arguments import checked
from ..config.constraints import Range
from ..plugins.class_checks import check_instance
from ..protocols import Denoiser, Model
from ..sampling.taps import TAP_KINDS, TapPoint, Taps
from ..types import Latents, NoiseSchedule, Prediction, Step
from .bench import COUNT, EVERY, LAYOUTS, PROMPTS, Bench
from .checks import (
    REPEAT_MEND,
    UNTOUCHED_MEND,
    Conformance,
    Property,
    expect,
    expect_apart,
    expect_close,
    expect_finite,
    expect_refusal,
    expect_repeatable,
    expect_untouched,
    gradients_at,
    meanings,
    places,
    run_checks,
)
from .inputs import even_steps

MEMBERS = ("name", "device", "dtype", "noise_schedule", "default_size", "default_cfg", "factor", "latent_channels")


@dataclass(frozen=True)
class Subject:
    """A model under test, on a bench of its own."""

    model: Model
    bench: Bench

    @property
    def step(self) -> Step:
        return even_steps(self.model.noise_schedule, COUNT)[1]

    @property
    def near(self) -> float:
        """The relative difference that is let pass: batches of other sizes round differently."""
        return max(1e-3, 20 * torch.finfo(self.model.dtype).eps)

    def bind(self, samples: Sequence[int] = EVERY, *, cfg: float = 1.0, prompts: Sequence[str] = PROMPTS) -> Denoiser:
        picked = [LAYOUTS[i] for i in samples]
        return self.model.bind([prompts[i] for i in samples], [""] * len(picked), picked, cfg=cfg, count=COUNT)

    def points(self, denoiser: Denoiser) -> list[TapPoint]:
        """Every kind at every layer."""
        return [TapPoint(layer.name, kind) for layer in denoiser.layers for kind in TAP_KINDS]

    def whole(self, denoiser: Denoiser, z: Latents) -> Prediction:
        """The conditional branch's prediction, from a pass that records nothing."""
        return denoiser.observe(z, self.step, Taps((), full=True)).prediction


def declarations(subject: Subject) -> None:
    """It says its name, device, dtype, noise schedule, default size and guidance scale, factor and latent channels."""
    model: Any = subject.model
    missing = [name for name in MEMBERS if not hasattr(model, name)]
    expect(not missing, "the attributes of the `Model` protocol", f"no {', '.join(missing)}")
    expect(isinstance(model.noise_schedule, NoiseSchedule), "a NoiseSchedule", repr(model.noise_schedule))
    typed = isinstance(model.device, torch.device) and isinstance(model.dtype, torch.dtype)
    expect(typed, "a torch.device and a torch.dtype", f"{model.device!r} and {model.dtype!r}")
    counts = type(model.factor) is int and type(model.latent_channels) is int and min(model.factor, model.latent_channels) >= 1
    expect(counts, "a factor and latent_channels of at least 1", f"{model.factor!r} and {model.latent_channels!r}")
    strength = math.isfinite(model.default_cfg) and model.default_cfg >= 0
    expect(strength, "a finite default_cfg of at least 0", repr(model.default_cfg))
    model.latent_shape(model.default_size)


def latent_shape(subject: Subject) -> None:
    """Latents have the model's channels, and an image's height and width divided by its factor."""
    model = subject.model
    for shape in ("square", "wide", "tall"):
        width, height = subject.bench.size(shape)
        wanted = (model.latent_channels, height // model.factor, width // model.factor)
        seen = tuple(model.latent_shape((width, height)))
        expect(seen == wanted, f"{wanted}, channels, height and width, for an image of {width}x{height}", seen)


def bad_sizes_refused(subject: Subject) -> None:
    """Sizes that are not positive, or no multiple of the factor, are refused with an error for people."""
    width, height = subject.bench.size()
    sizes = [(0, height), (width, -height)]
    sizes += [(width + 1, height), (width, height + subject.model.factor - 1)] if subject.model.factor > 1 else []
    for size in sizes:
        expect_refusal(lambda size=size: subject.model.latent_shape(size), f"latent_shape({size})")


def predict_shape(subject: Subject) -> None:
    """It predicts finite noise and clean latents, in single precision, on its device and of the latent's shape."""
    _expect_predicts(subject, "square")


def predict_pair(subject: Subject) -> None:
    """The predicted noise and clean latent make up z: sqrt(alpha_bar) z0 + sqrt(1 - alpha_bar) eps."""
    z, step = subject.bench.latent(1), subject.step
    prediction = subject.whole(subject.bind(), z)
    made = step.alpha_bar**0.5 * prediction.z0 + (1 - step.alpha_bar) ** 0.5 * prediction.eps
    expect_close(made, z, "z again from the pair", rtol=subject.near)


def text_matters(subject: Subject) -> None:
    """Another prompt gives another prediction."""
    z = subject.bench.latent(1, (0, 0))
    eps = subject.whole(subject.bind((0, 1)), z).eps
    expect_apart(eps[0], eps[1], "other noise for another prompt", "the same")


def cfg_matters(subject: Subject) -> None:
    """At a guidance scale of 1 it predicts what the conditional branch says, at others something else."""
    z = subject.bench.latent(1)
    plain = subject.bind(cfg=1.0).predict(z, subject.step)
    guided = subject.bind(cfg=4.0).predict(z, subject.step)
    conditional = subject.whole(subject.bind(cfg=4.0), z)
    expect_close(plain.eps, conditional.eps, "the conditional branch's noise at a scale of 1", rtol=subject.near)
    expect_apart(guided.eps, plain.eps, "other noise at a scale of 4", "that of a scale of 1")


def conditional_reused(subject: Subject) -> None:
    """Given the conditional branch's prediction it predicts what it would have predicted without."""
    z = subject.bench.latent(1)
    for cfg in (1.0, 4.0):
        denoiser = subject.bind(cfg=cfg)
        seen = denoiser.predict(z, subject.step, subject.whole(denoiser, z))
        wanted = denoiser.predict(z, subject.step)
        expect_close(seen.eps, wanted.eps, f"the same noise at a scale of {cfg:g}", rtol=subject.near)
        expect_close(seen.z0, wanted.z0, f"the same clean latent at a scale of {cfg:g}", rtol=subject.near)


def taps_recorded(subject: Subject) -> None:
    """Every layer records every kind, on a grid of the latent's divided by its downscale; probabilities add up to 1."""
    names = [layer.name for layer in subject.bind().layers]
    expect(len(set(names)) == len(names) > 0, "layers with names of their own", names)
    _expect_taps(subject, "square")


def tapped_equals_untapped(subject: Subject) -> None:
    """Recording does not change what is predicted."""
    denoiser, z = subject.bind(), subject.bench.latent(1)
    tapped = denoiser.observe(z, subject.step, Taps(subject.points(denoiser), full=True)).prediction
    untapped = subject.whole(denoiser, z)
    expect_close(tapped.eps, untapped.eps, "the noise that is predicted without recording", rtol=subject.near)


def partial_equals_full(subject: Subject) -> None:
    """A pass that ends at its last tap point records what a full pass does."""
    denoiser, z = subject.bind(), subject.bench.latent(1)
    full = denoiser.observe(z, subject.step, Taps(subject.points(denoiser), full=True))
    for point in subject.points(denoiser):
        seen = denoiser.observe(z, subject.step, Taps((point,)))[point]
        expect_close(seen, full[point], f"{point} as in a full pass", rtol=subject.near)


def gradient_reaches_z(subject: Subject) -> None:
    """Taps, the prediction and the decoded image have finite gradients at z, also where gradients are switched off around."""
    denoiser, z = subject.bind(), subject.bench.latent(1).requires_grad_()
    points = [TapPoint(layer.name, "cross_probs") for layer in denoiser.layers]
    with torch.no_grad():
        view = denoiser.observe(z, subject.step, Taps(points, full=True))
    looked: list[tuple[str, Tensor]] = [(str(point), view[point]) for point in points]
    looked += [("eps", view.eps), ("z0", view.z0), ("image", view.image())]
    for name, value in looked:
        expect(value.requires_grad, f"a gradient from {name} to z", "none")
        (gradient,) = gradients_at(value.square().sum(), [z])
        lacking = places(~gradient.flatten(1).any(dim=1))
        expect(not lacking, f"a gradient from {name} to the z of every sample", f"zero for samples {lacking}")
        expect_finite(gradient, "the gradient", f"from {name} to z")


def parameters_frozen(subject: Subject) -> None:
    """Nothing but z asks for gradients: weights and embeddings are frozen."""
    denoiser, z = subject.bind(), subject.bench.latent(1)
    view = denoiser.observe(z, subject.step, Taps(subject.points(denoiser), full=True))
    looked = {"eps": view.eps, "image": view.image(), "encode_image": subject.model.encode_image(subject.bench.images())}
    looked |= {str(point): view[point] for point in subject.points(denoiser)}
    asking = [name for name, value in looked.items() if value.requires_grad]
    expect(not asking, "no gradient where the latent asks for none", f"one from {', '.join(asking[:3])}")


def per_sample_independence(subject: Subject) -> None:
    """A sample's prediction is what it would be without its neighbours, and its gradient stays its own."""
    z = subject.bench.latent(1)
    whole = subject.bind(cfg=4.0).predict(z, subject.step)
    for i in EVERY:
        alone = subject.bind((i,), cfg=4.0).predict(z[i : i + 1], subject.step)
        expect_close(whole.eps[i : i + 1], alone.eps, f"the noise of sample {i} as in a batch of its own", rtol=subject.near)
    leaf = z.requires_grad_()
    eps = subject.whole(subject.bind(), leaf).eps
    (gradient,) = gradients_at(eps[0].square().sum(), [leaf])
    crossed = [j for j in EVERY if j and bool(gradient[j].any())]
    expect(not crossed, "the noise of sample 0 to depend on its own z alone", f"a gradient at samples {crossed}")


def selects_samples(subject: Subject) -> None:
    """Its denoiser for some samples, in the order they are asked for in, says of them what the whole one does."""
    chosen = [2, 0]
    z, whole = subject.bench.latent(1), subject.bind(cfg=4.0)
    some = whole.select(chosen)
    for name, seen, all_of_them in (("prompts", some.prompts, whole.prompts), ("tokens", some.tokens, whole.tokens)):
        expect(list(seen) == [all_of_them[i] for i in chosen], f"the {name} of samples {chosen}", f"others, {len(seen)} of them")
    seen, wanted = some.predict(z[chosen], subject.step), whole.predict(z, subject.step)
    expect_close(seen.eps, wanted.eps[chosen], f"the noise of samples {chosen}", rtol=subject.near)
    parts, everyone = (d.observe(at, subject.step, Taps(subject.points(d))) for d, at in ((some, z[chosen]), (whole, z)))
    for point in subject.points(whole):
        expect_close(parts[point], everyone[point][chosen], f"{point} of samples {chosen}", rtol=subject.near)


def deterministic(subject: Subject) -> None:
    """The same latent and prompts give the same prediction and image, whatever the state of the global random stream."""
    z = subject.bench.latent(1)
    expect_repeatable(lambda: [subject.bind().predict(z, subject.step).eps, subject.model.decode(z)])


def denoisers_do_not_interfere(subject: Subject) -> None:
    """A denoiser is not changed by binding other prompts, or by another one's use."""
    z = subject.bench.latent(1)
    first = subject.bind(cfg=4.0)
    before = first.predict(z, subject.step).eps
    other = subject.bind(cfg=2.0, prompts=PROMPTS[::-1])
    other.observe(z, subject.step, Taps(subject.points(other)))
    expect_close(first.predict(z, subject.step).eps, before, "the same noise after another denoiser was used", rtol=1e-5)


def inputs_untouched(subject: Subject) -> None:
    """It changes neither latents nor images that it is given."""
    z, images, denoiser = subject.bench.latent(1), subject.bench.images(), subject.bind(cfg=4.0)
    calls = {
        "predict": lambda: denoiser.predict(z, subject.step),
        "observe": lambda: denoiser.observe(z, subject.step, Taps(subject.points(denoiser), full=True)),
        "decode": lambda: subject.model.decode(z),
        "encode_image": lambda: subject.model.encode_image(images),
    }
    with torch.no_grad():
        for call in calls.values():
            expect_untouched({"z": z, "images": images}, call)


def autoencoder(subject: Subject) -> None:
    """Images become latents and latents images, in [0, 1] and single precision, of the sizes that `latent_shape` says."""
    for form in ("square", "wide"):
        images, z = subject.bench.images(form), subject.bench.latent(1, shape=form)
        encoded, decoded = subject.model.encode_image(images), subject.model.decode(z)
        for name, seen, like in (("encode_image", encoded, z), ("decode", decoded, images)):
            fits = seen.shape == like.shape and seen.dtype == torch.float32
            expect(fits, f"{name} to give {list(like.shape)} in single precision", f"{list(seen.shape)} in {seen.dtype}")
            expect_finite(seen, name, f"for a {form} image")
        low, high = float(decoded.detach().min()), float(decoded.detach().max())
        expect(low >= 0 and high <= 1, "decoded values in [0, 1]", f"{low:.3g} to {high:.3g}")


def tokens(subject: Subject) -> None:
    """A denoiser knows its prompts and their tokens, as the model tells them; every word has a span."""
    denoiser = subject.bind()
    expect(tuple(denoiser.prompts) == PROMPTS, f"denoiser.prompts {PROMPTS}", denoiser.prompts)
    tables = tuple(subject.model.tokens(prompt) for prompt in PROMPTS)
    expect(tuple(denoiser.tokens) == tables, "denoiser.tokens to be model.tokens of each prompt", "other tables")
    for prompt, table in zip(PROMPTS, tables, strict=True):
        expect(table.prompt == prompt, f"a token table of {prompt!r}", repr(table.prompt))
        expect(table.length == tables[0].length, f"{tables[0].length} tokens, padding included, for every prompt", table.length)
        spans = [table.span(word) for word in prompt.split() if prompt.split().count(word) == 1]
        expect(len(set(spans)) == len(spans), f"tokens of its own for every word of {prompt!r}", spans)


def describe(subject: Subject) -> None:
    """What a report records of it is plain data, and says its name."""
    described = subject.model.describe()
    expect(described.get("name") == subject.model.name, f"the name {subject.model.name!r}", repr(described.get("name")))
    text = json.dumps(dict(described), allow_nan=False)
    expect(json.loads(text) == described, "values that JSON gives back as they were", text)


def non_square(subject: Subject) -> None:
    """Wide and tall latents give predictions and maps of their shape."""
    for form in ("wide", "tall"):
        _expect_predicts(subject, form)
        _expect_taps(subject, form)


def _expect_taps(subject: Subject, form: str) -> None:
    denoiser, z = subject.bind(), subject.bench.latent(1, shape=form)
    view = denoiser.observe(z, subject.step, Taps(subject.points(denoiser)))
    tokens = denoiser.tokens[0].length
    for layer in denoiser.layers:
        h, w = (math.ceil(side / layer.downscale) for side in z.shape[-2:])
        things = {"cross_probs": tokens, "cross_logits": tokens, "self_probs": h * w}
        for kind in TAP_KINDS:
            point = TapPoint(layer.name, kind)
            maps = view[point]
            wanted = (len(z), 1 if kind == "hidden" else layer.heads, things.get(kind, maps.shape[2]), h, w)
            expect(tuple(maps.shape) == wanted, f"{point} as {list(wanted)}", list(maps.shape))
            if kind.endswith("probs"):
                expect(maps.dtype == torch.float32, f"{point} in single precision", maps.dtype)
                expect_close(maps.sum(dim=2), torch.ones_like(maps[:, :, 0]), f"{point} to add up to 1", rtol=subject.near)


def _expect_predicts(subject: Subject, form: str) -> None:
    z = subject.bench.latent(1, shape=form)
    found = {"predict": subject.bind(cfg=4.0).predict(z, subject.step), "observe": subject.whole(subject.bind(), z)}
    for name, prediction in found.items():
        for part, value in (("eps", prediction.eps), ("z0", prediction.z0)):
            fits = value.shape == z.shape and value.dtype == torch.float32 and value.device == z.device
            expected = f"{name} to give {part} {list(z.shape)} in single precision on {z.device}"
            expect(fits, expected, f"{list(value.shape)} in {value.dtype} on {value.device}")
            expect_finite(value, part, f"from {name}")


FIRST = ("declarations", "latent_shape")
SOUND = (*FIRST, "predict_shape")
TAPPED = (*SOUND, "taps_recorded")
ALONE = (*TAPPED, "per_sample_independence")
PROPERTIES: tuple[Property[Subject], ...] = (
    Property(declarations, "see the attributes of the `Model` protocol"),
    Property(latent_shape, "sizes are (width, height), shapes (channels, height, width)", FIRST[:1]),
    Property(bad_sizes_refused, "raise a ConfigError that names the nearest size", FIRST),
    Property(predict_shape, "cast what the networks give to float32", FIRST),
    Property(predict_pair, "make the pair with Prediction.from_eps or from_v, at the step's alpha_bar", SOUND),
    Property(text_matters, "give every sample's text to the network", SOUND),
    Property(cfg_matters, "eps = unconditional + cfg * (conditional - unconditional)", SOUND),
    Property(conditional_reused, "use `conditional` as the conditional branch, unscaled", SOUND),
    Property(taps_recorded, "record in every layer of `layers`, in the layout of `Taps`", SOUND),
    Property(tapped_equals_untapped, "compute the same attention whether it is recorded or not", TAPPED),
    Property(partial_equals_full, "let EverythingRecorded end the pass, and record before it is raised", TAPPED),
    Property(gradient_reaches_z, "run `observe` under torch.enable_grad(), and detach nothing", TAPPED),
    Property(parameters_frozen, "call requires_grad_(False) on every network, and encode texts under no_grad", TAPPED),
    Property(per_sample_independence, "normalise no batch, and give each sample its own text", SOUND),
    Property(selects_samples, "index whatever the denoiser holds for each sample by the places that are given", ALONE),
    Property(deterministic, f"put networks in eval mode; {REPEAT_MEND}", SOUND),
    Property(denoisers_do_not_interfere, "keep prompts and scale in the denoiser, not in the model", TAPPED),
    Property(inputs_untouched, UNTOUCHED_MEND, TAPPED),
    Property(autoencoder, "map latents to [0, 1] and images from it, and clamp", FIRST),
    Property(tokens, "pad to one length, and take characters from the tokenizer's offsets", SOUND),
    Property(describe, "return numbers, texts, lists and mappings", FIRST[:1]),
    Property(non_square, "take h and w from the latent", TAPPED),
)
MODEL_PROPERTIES = meanings(PROPERTIES)


@checked
def check_model(model: Model, *, only: Collection[str] | None = None, cells: Annotated[int, Range(2, 1024)] = 8) -> Conformance:
    """Check that a loaded model, and the denoisers it binds, work with every extractor and sampler.

    Args:
        only: names out of `MODEL_PROPERTIES`; all of them by default.
        cells: sides of the latents it is tried on, this long and twice as long; more for a network that halves them often.

    Raises:
        ConformanceError: it lacks some of the properties; a line for each.
        ConfigError: `only` names a property that does not exist.
    """
    check_instance("model", model)
    return run_checks("model", model, Subject(model, Bench(model, cells)), PROPERTIES, only)
