"""What is asked of a pipeline: its arguments, checked before anything is computed, and spread over the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

from ..config.constraints import Range
from ..config.options import convert
from ..config.values import as_list
from ..errors import ConfigError, LayoutError, shown
from ..layout.regions import Layout
from ..layout_files.item import SEEDS

MOST_IMAGES = 100_000
Seed: TypeAlias = Annotated[int, Range(0, SEEDS - 1)]


@dataclass(frozen=True)
class Batch:
    """What a batch is made of: everything has one entry per image."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    layouts: tuple[Layout, ...]
    seeds: tuple[int, ...]


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


def check_callable(value: object, name: str) -> None:
    """Refuse what cannot be called, before the first step is made.

    Raises:
        ConfigError: it is neither None nor a function.
    """
    if value is not None and not callable(value):
        raise ConfigError(f"{name}: {shown(value)} cannot be called; expected a function, or None")
