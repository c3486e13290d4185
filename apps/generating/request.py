"""What `lsregen generate` is asked to show: by options, by a file of layouts or prompts, or by a picture that it made before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...framework.config.load_options import LoadOptions
from ...framework.errors import ConfigError, LayoutError, PhraseError
from ...framework.layout import tokens
from ...framework.layout.regions import Layout, Region
from ...framework.layout.tokens import TokenTable
from ...framework.layout_files.item import SEEDS, Dropped, Item, Items, Size
from ..checks import check_text, parse_size, read_box
from ..output import slug

if TYPE_CHECKING:
    from .metadata import Metadata

NO_TOKENS = "\ntokens: none"  # what an error says of a prompt that no tokenizer has seen yet
SIZED = ("lsregen", "jsonl", "pixels", "gligen")
"""Formats whose `size` is that of the image to make; annotations say the size of the picture that was annotated."""


@dataclass(frozen=True)
class Options:
    """The command line as it was typed."""

    prompt: str | None
    box: tuple[str, ...]
    mask: tuple[str, ...]
    phrase: tuple[str, ...]
    negative: str
    layout: Path | None
    prompts: Path | None
    on_bad_box: str
    from_image: Path | None
    init_image: Path | None
    strength: float | None
    model: str | None
    load: LoadOptions
    guidance: str | None
    sets: tuple[str, ...]
    steps: int | None
    cfg: float | None
    sampler: str | None
    seed: int | None
    count: int
    batch: int
    size: str | None
    out: Path
    name: str | None
    trace: int
    metadata: bool
    again: bool
    as_json: bool


CONTENT = {
    "--prompt": "prompt", "--box": "box", "--mask": "mask", "--phrase": "phrase", "--negative": "negative", "--layout": "layout",
}  # fmt: skip
SETTLED = {"--prompts": "prompts", "--guidance": "guidance", "--seed": "seed", "--size": "size", **CONTENT}
"""What a picture that is made again says itself."""


@dataclass(frozen=True)
class Request:
    """What is to be shown: an item for each prompt, and where it comes from.

    `listed`: from a file of prompts. `dropped`: what could not be used of a file. `metadata`: of the picture that is to be made
    again; the items are then its whole batch.
    """

    items: tuple[Item, ...]
    listed: bool = False
    dropped: tuple[Dropped, ...] = ()
    metadata: Metadata | None = None

    def where(self, index: int) -> str:
        """What an error about an item begins with."""
        return f"--prompts, item {index + 1}: " if self.listed else ""


@dataclass(frozen=True)
class Shot:
    """One image to make. `size`: None for the model's own. `stem`: of its files.

    `kept`: whether it is written. The neighbours of a picture that is made again are not: they only share its batch.
    """

    prompt: str
    negative: str
    layout: Layout
    seed: int
    size: Size | None
    stem: str
    kept: bool = True


def request_of(given: Options) -> Request:
    """Read what the options name, and check it as far as that goes without a model.

    Raises:
        LsregenError: options that exclude each other, a file that cannot be used, a phrase that is not in its prompt.
    """
    if given.from_image is not None:
        request = _again(given, given.from_image)
    elif given.prompts is not None:
        request = _listed(given, given.prompts)
    else:
        request = _single(given)
    for i, item in enumerate(request.items):
        check_text(f"{request.where(i)}--prompt" if not request.listed else f"{request.where(i)}prompt", item.prompt, needed=True)
        check_phrases(TokenTable(item.prompt, ()), item.layout, request.where(i))
    return request


def shots_of(request: Request, given: Options, seed: int) -> tuple[Shot, ...]:
    """Every image: the items in their order, each with its seeds. `seed`: where neither an option nor an item names one.

    Raises:
        ConfigError: a seed is too large.
    """
    if request.metadata is not None:
        own = request.items[request.metadata.index]
        stem = f"{given.name or slug(own.prompt)}-{request.metadata.seed}"
        return tuple(_shot(item, item.seed or 0, stem, kept=item is own) for item in request.items)
    shots: list[Shot] = []
    digits = len(str(len(request.items)))
    for i, item in enumerate(request.items, 1):
        number = f"{i:0{digits}}"
        name = given.name or slug(item.name or item.prompt)
        if request.listed:  # numbered: prompts may be alike
            name = f"{name}-{number}" if given.name else f"{number}-{name}"
        first = next(each for each in (given.seed, item.seed, seed) if each is not None)
        shots += [_shot(item, each, f"{name}-{each}") for each in seeds_of(first, given.count)]
    return tuple(shots)


def _shot(item: Item, seed: int, stem: str, *, kept: bool = True) -> Shot:
    return Shot(item.prompt, item.negative, item.layout, seed, item.size, stem, kept)


def seeds_of(first: int, count: int) -> tuple[int, ...]:
    if not 0 <= first <= SEEDS - count:
        raise ConfigError(f"seed {first} with --count {count}: expected whole numbers from 0 to 2^63 - 1 for every image")
    return tuple(range(first, first + count))


def check_phrases(table: TokenTable, layout: Layout, where: str = "") -> None:
    """Every phrase is in the prompt, once; with a model's table of tokens also: in the part that the model sees.

    Raises:
        PhraseError: it is not; begins with `where` and the option.
    """
    for phrase in layout.phrases:
        try:
            tokens.check_phrases(table, [phrase], seen=bool(table.pieces))
        except PhraseError as error:
            raise PhraseError(f"{where or f'{_option(layout.of(phrase))}: '}{str(error).removesuffix(NO_TOKENS)}") from None


def _option(regions: Sequence[Region]) -> str:
    """The option by which regions are given on the command line."""
    return "--box" if any(r.box for r in regions) else "--mask" if any(r.mask is not None for r in regions) else "--phrase"


def layout_of(base: Layout, boxes: Sequence[str], masks: Sequence[str], phrases: Sequence[str]) -> Layout:
    """The regions of a layout and of the command line; a phrase that has a place already needs no second mention.

    Raises:
        LsregenError: one of them cannot be used.
    """
    from ...framework.layout_files.formats import mask_region

    if any(not phrase.strip() for phrase in phrases):
        raise PhraseError("--phrase '' is empty; expected words of the prompt, such as 'red circle'")
    try:
        masked = [mask_region(mask) for mask in masks]
    except LayoutError as error:
        raise type(error)(f"--{error}") from None
    boxed = Layout(tuple(read_box(box) for box in boxes))
    for there, what in ((boxed, "--box"), (base, "a layout file")):
        if twice := [region.phrase for region in masked if Layout(there.of(region.phrase)).boxed]:
            raise LayoutError(f"{what} and --mask of {twice[0]!r}: they would be two places; leave one out")
    placed = Layout((*base.regions, *boxed.regions, *masked))
    named = Layout(tuple(Region(phrase) for phrase in phrases))
    return Layout((*placed.regions, *(Region(phrase) for phrase in named.phrases if not placed.of(phrase))))


def _single(given: Options) -> Request:
    """One prompt, with the layout of a file, of options, or of both."""
    size = parse_size(given.size) if given.size is not None else None
    base, dropped = Item(), tuple[Dropped, ...]()
    if given.layout is not None:
        found = _read("--layout", given.layout, size, given.on_bad_box)
        if len(found.items) != 1:
            raise ConfigError(f"--layout {given.layout}: {len(found.items)} items, expected one; several are for --prompts")
        base, dropped = found.items[0], found.dropped
        if asked := given.prompt or base.prompt:
            check_phrases(TokenTable(asked, ()), base.layout, f"--layout {given.layout}: ")
    if given.prompt is None and not base.prompt:
        held = f"and {given.layout} holds none" if given.layout else "or --prompts FILE, or --from-image FILE"
        raise ConfigError(f"--prompt is missing, {held}; say what the image shows, such as --prompt 'a red circle'")
    item = Item(
        prompt=base.prompt if given.prompt is None else check_text("--prompt", given.prompt, needed=True),
        layout=layout_of(base.layout, given.box, given.mask, given.phrase),
        negative=check_text("--negative", given.negative) or base.negative,
        seed=base.seed,
        size=size or base.size,
    )
    return Request((item,), dropped=dropped)


def _listed(given: Options, path: Path) -> Request:
    """Every item of a file of prompts."""
    _exclude(given, "--prompts", CONTENT, "the file says that itself")
    size = parse_size(given.size) if given.size is not None else None
    found = _read("--prompts", path, size, given.on_bad_box)
    items = tuple(replace(item, size=size) if size is not None else item for item in found.items)
    return Request(items, listed=True, dropped=found.dropped)


def _read(option: str, path: Path, size: Size | None, on_bad_box: str) -> Items:
    from ...framework.layout_files.formats import read_layouts

    try:
        found = read_layouts(path, size=size, on_bad_box=on_bad_box, empty=False)
    except LayoutError as error:
        raise type(error)(f"{option} {error}") from None
    if found.format in SIZED:
        return found
    return replace(found, items=tuple(replace(item, size=None) for item in found.items))


def _again(given: Options, path: Path) -> Request:
    """The whole batch of a picture that was made before, since rounding may differ in another."""
    from .metadata import read_metadata

    _exclude(given, "--from-image", SETTLED, "the picture says that itself")
    if given.count > 1 or given.batch > 1:
        raise ConfigError("--from-image with --count or --batch: it makes one picture again, in the batch that it was made in")
    metadata = read_metadata(path)
    items = tuple(Item(each.prompt, each.layout, each.negative, each.seed, metadata.size) for each in metadata.batch)
    return Request(items, metadata=metadata)


def _exclude(given: Options, option: str, others: dict[str, str], why: str) -> None:
    clashing: Iterable[str] = (name for name, key in others.items() if getattr(given, key) not in (None, (), ""))
    if (clash := next(iter(clashing), None)) is not None:
        raise ConfigError(f"{option} with {clash}: {why}; leave one of them out")
