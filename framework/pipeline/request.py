"""What is asked of a pipeline: its arguments, checked before anything is computed, and spread over the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypedDict, cast

from PIL import Image

from ..config.constraints import Range
from ..config.options import convert
from ..config.resolve import ResolvedConfig
from ..config.values import MOST_STEPS, as_list
from ..errors import ConfigError, LayoutError, shown, told_of
from ..layout.regions import Layout
from ..layout_files.item import SEEDS, STRENGTH
from ..protocols import Model
from ..sampling.image_to_image import checked_strength, pictures_of
from .preflight import check_seen
from .resolving import GuidanceLike, SamplerLike
from .sizes import check_proportions, checked_size

MOST_IMAGES = 100_000
Seed: TypeAlias = Annotated[int, Range(0, SEEDS - 1)]


@dataclass(frozen=True)
class Batch:
    """What a batch is made of: everything has one entry per image."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    layouts: tuple[Layout, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Request(Batch):
    """A batch and its resolved configuration: all that a run needs besides a model.

    Made once, by `Pipeline.request`; `dataclasses.replace` makes a changed copy, such as one with other seeds.

    `size`: width and height in pixels. `initial`: the images that the run starts from instead of from noise, one for each sample,
    or none; `strength`: the share of the steps that is made then. `trace`: at how many steps attention is recorded. `asked`: the
    guidance as it was given, which decides what there is to warn of.
    """

    size: tuple[int, int]
    config: ResolvedConfig
    initial: tuple[Image.Image, ...] = ()
    strength: float = STRENGTH
    trace: int = 0
    asked: Any = field(default=None, repr=False, compare=False)


class Settings(TypedDict, total=False):
    """What `Pipeline.request` takes besides a prompt."""

    layout: Layout | Iterable[Layout | None] | None
    negative: str | Iterable[str]
    guidance: GuidanceLike
    steps: int | None
    cfg: float | None
    sampler: SamplerLike
    seed: int | Iterable[int] | None
    count: int
    size: tuple[int, int] | None
    init_image: Image.Image | Iterable[Image.Image] | None
    strength: float | None
    sets: Iterable[str]
    trace: int


def make_request(
    model: Model,
    config: ResolvedConfig,
    batch: Batch,
    *,
    size: tuple[int, int] | None,
    init_image: Image.Image | Iterable[Image.Image] | None,
    strength: float | None,
    trace: int,
    asked: GuidanceLike,
) -> Request:
    """A request that a model can fulfil. Arguments are as `Pipeline.request` takes them; `asked`: its guidance.

    Raises:
        ConfigError, LayoutError, PhraseError: something cannot be used.
    """
    trace = convert(trace, Annotated[int, Range(0, MOST_STEPS)], "trace")
    size = None if size is None else checked_size(size)
    pictures = None if init_image is None else pictures_of(init_image, len(batch.prompts))
    share = checked_strength(strength, pictures, config.steps)
    if not config.terms and any(layout.boxed for layout in batch.layouts):
        check_seen(model, str(asked))
    if size is None and pictures:
        size = pictures[0].size
        with told_of("init_image"):
            model.latent_shape(size)
    size = size or model.default_size
    model.latent_shape(size)
    for layout in batch.layouts:
        check_proportions(layout, size)
    return Request(**vars(batch), size=size, config=config, initial=pictures or (), strength=share, trace=trace, asked=asked)


def make_batch(
    prompt: str | Iterable[str],
    negative: str | Iterable[str],
    layout: Layout | Iterable[Layout | None] | None,
    seed: int | Iterable[int],
    count: int,
) -> Batch:
    """Spread single values over the batch, and check that lists are of one length.

    A list may be any iterable that has an order: a generator, an array, tensor or series with one axis. Seeds are whole numbers.

    Raises:
        ConfigError, LayoutError: a value of another type, out of its range, or lists of several lengths; names the argument.
    """
    prompt = convert(as_list(prompt, str), str | Sequence[str], "prompt")
    negative = convert(as_list(negative, str), str | Sequence[str], "negative")
    seed = convert(as_list(seed, int), Seed | Sequence[Seed], "seed")
    count = convert(count, Annotated[int, Range(1, MOST_IMAGES)], "count")
    prompts = (prompt,) * count if isinstance(prompt, str) else tuple(prompt)
    if not isinstance(prompt, str) and count != 1:
        raise ConfigError(f"count: {count} with a list of prompts; repeat the prompts in the list instead")
    n = len(prompts)
    layouts = _layouts(layout, n)
    if n == 0:
        raise ConfigError("prompts: the list is empty; give at least one prompt")
    if n > MOST_IMAGES:
        raise ConfigError(f"prompts: the list has {n:,} entries; expected at most {MOST_IMAGES:,}")
    for text in prompts:
        if not text.strip():
            raise ConfigError(f"prompt {shown(text)} is empty; say what the picture should show")
    seeds = tuple(seed + i for i in range(n)) if isinstance(seed, int) else tuple(seed)
    seeds = convert(seeds, tuple[Seed, ...], "seed")
    negatives = (negative,) * n if isinstance(negative, str) else tuple(negative)
    for name, values in (("negative", negatives), ("layout", layouts), ("seed", seeds)):
        if len(values) != n:
            raise ConfigError(f"{name}: {len(values)} given for {n} images; give one for all of them, or one each")
    return Batch(prompts, negatives, layouts, seeds)


def _layouts(given: object, count: int) -> tuple[Layout, ...]:
    """One for each image; an empty one where there is None."""
    given = as_list(given, Layout, type(None))
    several = tuple(cast("Sequence[object]", given)) if isinstance(given, list | tuple) else (given,) * max(1, count)
    for one in several:
        if not isinstance(one, Layout | None):
            raise LayoutError(
                f"layout: a {type(one).__name__}; expected a Layout, such as Layout.from_boxes({{'red circle': ...}})"
            )
    return tuple(cast("Layout | None", one) or Layout() for one in several)


def checked_request(given: object) -> Request:
    """A request as it is.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(given, Request):
        raise ConfigError(f"request: {shown(given)} is no request; make one with pipeline.request(prompt, ...)")
    return given


def check_callable(value: object, name: str) -> None:
    """Refuse what cannot be called, before the first step is made.

    Raises:
        ConfigError: it is neither None nor a function.
    """
    if value is not None and not callable(value):
        raise ConfigError(f"{name}: {shown(value)} cannot be called; expected a function, or None")
