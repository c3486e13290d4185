"""A plan made of a source and methods: sizes, seeds and batches chosen, and all checked that can be before pictures are made."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...framework.config.options import build, convert, option, plain
from ...framework.errors import ConfigError, LayoutError, PhraseError, told_of
from ...framework.layout.tokens import check_phrases
from ...framework.layout_files.item import DRAWN_SEEDS, LEAVE_OUT, Dropped, Item, Size
from ..sources import Entry, Source
from .jobs import Job, LazyJobs, check_names
from .plan import Method, Plan

if TYPE_CHECKING:
    from ...framework.config.resolve import ResolvedConfig
    from ...framework.pipeline.pipeline import Pipeline
    from ...framework.protocols import Model

POLICIES = "model, own, xFACTOR or WIDTHxHEIGHT"
FIXED = re.compile(r"(\d{1,5})x(\d{1,5})")
SIZES = ("size", "enlarged")
MOST_JOBS = 10_000_000
"""Of a plan: ten million lines have 4 GB."""


@dataclass(frozen=True)
class MethodSpec:
    """A method as it is asked for.

    `size`: `model` for the model's own size, `own` for that of each item (the model's where it has none), `x3` for three times
    the item's, rounded to what the model makes, or width and height, `512x768`; None for the source's policy.
    """

    guidance: str = option("none", "a preset, a YAML file or none")
    model: str | None = option(None, "the model of the images; that of the guidance, or the default one")
    size: str | None = option(None, f"{POLICIES}; the source's own policy by default")
    steps: int | None = option(None, "sampling steps; the guidance's by default")
    cfg: float | None = option(None, "strength of classifier-free guidance; the guidance's or the model's by default")
    sets: tuple[str, ...] = option((), "further settings, such as guidance.layout.gamma=40")
    dtype: str = option("fp32", "fp32, fp16 or bf16")
    enlarged: str | None = option(None, "WIDTHxHEIGHT that finished images are enlarged to, before they are judged")

    def __post_init__(self) -> None:
        if self.dtype not in ("fp32", "fp16", "bf16"):
            raise ConfigError(f"dtype: {self.dtype!r}; expected fp32, fp16 or bf16: a plan does not leave it to the machine")
        for name, value in (("guidance", self.guidance), ("model", self.model), ("size", self.size)):
            if value is not None and not value.strip():
                raise ConfigError(f"{name}: {value!r} is empty; give a name, or leave it out")
        if self.enlarged is not None and not FIXED.fullmatch(self.enlarged):
            raise ConfigError(f"enlarged: {self.enlarged!r}; expected WIDTHxHEIGHT, such as 512x768")
        if self.cfg is not None and self.cfg < 0:
            raise ConfigError(f"cfg: {self.cfg:g}; expected a number of at least 0, such as 4; 1 is off")


S = TypeVar("S", bound=MethodSpec)


@dataclass(frozen=True)
class _Fitted:
    """A method, the size that it makes each entry in, and the entries that it cannot make, with why."""

    method: Method
    sizes: tuple[Size, ...]
    faults: Mapping[int, str]


def read_methods(path: Path) -> dict[str, MethodSpec]:
    """The methods of a YAML file, `methods`: a mapping from names to what `MethodSpec` has, and `vary`; see `read_specs`."""
    return read_specs(path, "methods", MethodSpec)


def read_specs(path: Path, key: str, kind: type[S]) -> dict[str, S]:
    """The mapping `key` of a YAML file, from names to specifications.

    One may `vary` settings: a mapping from settings to lists of values. It then stands for one of each value; see `varied`.

    Raises:
        ConfigError: no such file, or what it holds is something else; says everything that is wrong.
    """
    from ...framework.config.yaml_text import load_yaml

    known = f"{', '.join(each.name for each in fields(kind))} and vary"
    values = load_yaml(path)
    given: object = values.get(key)
    if not isinstance(given, Mapping) or not given or len(values) > 1:
        other = next((f"{name!r}: no such key; " for name in values if name != key), "")
        raise ConfigError(f"{path}: {other}expected a mapping {key!r} alone, from names to {known}")
    found, problems = dict[str, S](), list[str]()
    for name, each in cast("Mapping[Any, Any]", given).items():
        where = f"{key}.{name}"
        try:
            if not isinstance(each, Mapping):
                raise ConfigError(f"{where}: {each!r} is not a mapping with {known}")
            own = {
                field: _as_text(value) if field in SIZES else value for field, value in cast("Mapping[str, Any]", each).items()
            }
            vary = convert(own.pop("vary", {}), dict[str, tuple[Any, ...]], f"{where}.vary")
            made = varied({str(name): build(kind, own, where, "a method")}, vary)
            if twice := next((other for other in made if other in found), None):
                raise ConfigError(f"{where}: {twice!r} stands twice")
            found |= made
        except ConfigError as error:
            problems += str(error).split("\n")
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def _as_text(size: Any) -> Any:
    """A size that a file has as `[512, 768]`."""
    return "x".join(map(str, cast("list[Any]", size))) if isinstance(size, list) else size


def varied(specs: Mapping[str, S], vary: Mapping[str, Sequence[Any]]) -> dict[str, S]:
    """Each specification with every value of the settings, called `NAME VALUE`: an ablation.

    Settings of terms leave `none`, which has no terms, as it is.
    """
    of_terms = bool(vary) and all(key.startswith("guidance.") for key in vary)
    found = dict[str, S]()
    for name, spec in specs.items():
        for values in [()] if of_terms and spec.guidance == "none" else product(*vary.values()):
            texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
            sets = (f"{key}={text}" for key, text in zip(vary, texts, strict=False))
            found[" ".join([name, *texts])] = replace(spec, sets=(*spec.sets, *sets))
    return found


def make_plan(
    source: Source,
    specs: Mapping[str, MethodSpec],
    *,
    seeds: int = 1,
    seed: int = 0,
    batch: int = 8,
    device: str = "auto",
) -> tuple[Plan, list[Dropped]]:
    """The plan, and everything that was left out of it.

    Items of which a phrase is not in the prompt, or in a part that a model does not see, or without a box where a method needs
    one, are errors, or left out of all methods (the source's `on_bad_box`).

    Args:
        seeds: images of each item. The first has the seed that the item states; its other seeds come from that and its name.
        seed: with the item's name it decides the seeds of an item that states none, so that a part of the items keeps its seeds.
        batch: the most images made at once.

    Raises:
        ConfigError, LayoutError: a method, model, size or item cannot be used.
    """
    if not specs:
        raise ConfigError("no methods; expected at least one, such as none")
    if min(seeds, batch) < 1:
        raise ConfigError(f"seeds {seeds}, batch {batch}: expected at least 1 of each")
    check_names(specs)
    if (total := len(source.entries) * seeds * len(specs)) > MOST_JOBS:
        raise ConfigError(
            f"{len(source.entries)} items, {seeds} seeds and {len(specs)} methods: {total:,} images; a plan has at most "
            f"{MOST_JOBS:,}; plan a part of them (--limit, --seeds)"
        )
    fitted = _fit_all(source, specs, device)
    dropped, faulty = list(source.dropped), dict[int, str]()
    for name, each in fitted.items():
        for i, why in each.faults.items():
            if source.origin.options.get("on_bad_box") != "drop":
                many = f"{len(each.faults)} of {len(source.entries)} items"
                raise LayoutError(f"item {source.entries[i].id}: {why} (method {name!r} cannot make {many}); or {LEAVE_OUT}")
            faulty.setdefault(i, why)
    dropped += [Dropped(source.entries[i].id, "item", why) for i, why in sorted(faulty.items())]
    kept = [i for i in range(len(source.entries)) if i not in faulty]
    if not kept:
        raise LayoutError(f"no item is left: {len(faulty)} cannot be made, the first is {dropped[-len(faulty)]}")
    counts = Counter(source.origin.dropped) + Counter({"item that a method cannot make": len(faulty)})
    origin = replace(source.origin, items=len(kept), dropped=dict(counts))
    jobs = _Planned(source.entries, fitted, kept, seeds, seed, batch)
    methods = {name: each.method for name, each in fitted.items()}
    return Plan.of(origin, methods, batch, jobs, seeds=seeds, seed=seed), dropped


class _Planned(LazyJobs):
    """The jobs of a new plan: of each, the number of its batch is kept, and `i * seeds + k` for the k-th image of item i."""

    def __init__(
        self,
        entries: Sequence[Entry],
        fitted: Mapping[str, _Fitted],
        kept: Sequence[int],
        seeds: int,
        seed: int,
        batch: int,
    ) -> None:
        self._entries, self._fitted, self._seeds, self._seed = entries, list(fitted.items()), seeds, seed
        self._images, self._batches = array("Q"), array("Q")
        groups = (group for _, each in self._fitted for group in _batches(kept, each.sizes, seeds, batch))
        for number, group in enumerate(groups):
            self._images.extend(group)
            self._batches.extend([number] * len(group))

    def __len__(self) -> int:
        return len(self._images)

    def job(self, number: int) -> Job:
        i, k = divmod(self._images[number], self._seeds)
        name, each = self._fitted[number * len(self._fitted) // len(self)]  # every method makes as many
        return _job(number, self._batches[number], name, self._entries[i], each.sizes[i], k, self._seed)


def _fit_all(source: Source, specs: Mapping[str, MethodSpec], device: str) -> dict[str, _Fitted]:
    """Every method by its name; models are loaded one after another, each once, and first those that are not the main ones."""
    from ...framework.config.described_models import with_described
    from ...framework.config.merging import apply_sets
    from ...framework.config.resolve import load_guidance, validate
    from ...framework.pipeline.pipeline import DEFAULT_MODEL, Pipeline
    from ...framework.plugins.registry import discover

    plugins, known, configs = discover(), dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
    for name, spec in specs.items():
        with told_of(f"method {name!r}"):
            configs[name] = apply_sets(load_guidance(spec.guidance, plugins), spec.sets)
    others: dict[str, dict[str, dict[str, Any]]] = {}
    for name, config in configs.items():
        with told_of(f"method {name!r}"):
            whole, others[name] = with_described(validate(config, plugins).as_dict(), plugins, known)
        configs[name] = {**config, "guidance": whole["guidance"]}
    models = {
        name: spec.model or convert(configs[name].get("model"), str | None, "model") or DEFAULT_MODEL
        for name, spec in specs.items()
    }
    fitted: dict[str, _Fitted] = {}
    for model, dtype in dict.fromkeys((models[name], spec.dtype) for name, spec in specs.items()):
        users = [name for name, spec in specs.items() if (models[name], spec.dtype) == (model, dtype)]
        with told_of(f"method {users[0]!r}"):
            pipeline = Pipeline.load(model, device=device, dtype=dtype)
        for name in users:
            with told_of(f"method {name!r}"):
                fitted[name] = _fit(source, specs[name], configs[name], model, others[name], pipeline)
        del pipeline  # two models at once may be more than a device holds
    return {name: fitted[name] for name in specs}


def _fit(
    source: Source,
    spec: MethodSpec,
    config: Mapping[str, Any],
    model: str,
    others: dict[str, dict[str, Any]],
    pipeline: Pipeline,
) -> _Fitted:
    from ...framework.pipeline.preflight import check_seen

    resolved, _ = pipeline.resolve(config, steps=spec.steps, cfg=spec.cfg)
    resolved.sampler.schedule(pipeline.model.noise_schedule, resolved.steps)  # steps that it cannot take are found here
    settings = {key: value for key, value in resolved.as_dict().items() if key not in ("seed", "model")}
    policy = spec.size or source.size
    if not resolved.terms:
        check_seen(pipeline.model, spec.guidance)
    described, enlarged = plain(pipeline.model.describe()), pixels(spec.enlarged)
    method = Method(spec.guidance, model, described, plain(settings), policy, spec.dtype, others, enlarged)
    sizes = tuple(size_for(policy, entry.item, pipeline.model) for entry in source.entries)
    for size in dict.fromkeys(sizes):
        pipeline.model.latent_shape(size)
        if enlarged is not None and (enlarged[0] < size[0] or enlarged[1] < size[1]):
            made = f"the images that are made, {size[0]}x{size[1]}"
            raise ConfigError(f"enlarged: {spec.enlarged} is smaller than {made}")
    found = ((i, _fault(entry.item, resolved, pipeline.model)) for i, entry in enumerate(source.entries))
    return _Fitted(method, sizes, {i: why for i, why in found if why})


def pixels(text: str | None) -> Size | None:
    """Width and height of a text, `512x768`; None if it says something else."""
    fixed = FIXED.fullmatch(text or "")
    return (int(fixed[1]), int(fixed[2])) if fixed else None


def size_for(policy: str, item: Item, model: Model) -> Size:
    """The size of an item's image by a policy; see `MethodSpec`.

    Raises:
        ConfigError: no such policy, or one that needs the size of an item that has none.
    """
    if policy == "model":
        return model.default_size
    if policy == "own":
        return item.size or model.default_size
    if fixed := pixels(policy):
        return fixed
    factor = re.fullmatch(r"x(\d+(?:\.\d+)?)", policy)
    if factor is None or not float(factor[1]):
        raise ConfigError(f"size {policy!r}: expected {POLICIES}, such as x3 or 512x768")
    if item.size is None:
        raise ConfigError(f"size {policy!r}: the item {item.name or item.prompt!r} has no size of its own to be multiplied")
    width, height = (max(1, round(side * float(factor[1]) / model.factor)) * model.factor for side in item.size)
    return width, height


def _fault(item: Item, config: ResolvedConfig, model: Model) -> str | None:
    """Why a method cannot make an item; None if it can, as far as that is known before."""
    table = model.tokens(item.prompt)
    try:
        if not item.prompt.strip():
            return "an empty prompt"
        check_phrases(table, item.layout.phrases, seen=bool(config.terms))
    except PhraseError as error:
        return str(error).split("\n")[0]
    if not item.layout.boxed and any(term.distance.needs_target for term in config.terms):
        return "no box, and its guidance needs one"
    return None


def _batches(kept: Sequence[int], sizes: Sequence[Size], seeds: int, batch: int) -> Iterator[array[int]]:
    """The images of the items, each as `i * seeds + k`, in batches of one size; sizes in the order in which they come first."""
    groups: dict[Size, array[int]] = {}
    for i in kept:
        groups.setdefault(sizes[i], array("Q")).extend(range(i * seeds, (i + 1) * seeds))
    for group in groups.values():
        for start in range(0, len(group), batch):
            yield group[start : start + batch]


def _job(number: int, batch: int, method: str, entry: Entry, size: Size, k: int, seed: int) -> Job:
    item = entry.item
    # The seeds that follow the stated one may be those of other items.
    own = item.seed if item.seed is not None and k == 0 else seed_of(entry.id, k, seed if item.seed is None else item.seed)
    return Job(number, batch, method, entry.id, own, item.prompt, item.negative, item.layout, size, entry.expects)


def seed_of(item: str, k: int, seed: int = 0) -> int:
    """The seed of the k-th image of an item, by its name and a seed of the plan's or its own, whatever else is in the plan."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item}/{k}".encode()).digest()[:8]) % DRAWN_SEEDS
