"""What several commands ask of their options, checked without torch; and what they do when memory does not suffice."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import click

from ..framework.errors import ConfigError, LayoutError, nearest
from ..framework.files import look, reason
from ..framework.layout.image_files import MOST_PIXELS
from ..framework.layout.regions import BOX_FORM, Layout, Region, parse_box
from ..framework.layout_files.formats import MASK_FORM
from ..framework.layout_files.item import Size
from ..framework.plugins.calls import out_of_memory
from .output import OutputError

if TYPE_CHECKING:
    from ..framework.config.resolve import ResolvedConfig
    from ..framework.plugins.registry import Plugins
    from ..framework.protocols import Model

LONGEST_SHOWN = 80  # characters of a name, in a message
PIXELS = re.compile(r"; these look like pixels: .*")  # what the framework says to those who write Python or files
AGAIN = re.compile(r": box \[[^][]*\](?=:)")  # the numbers once more, behind the text that holds them
HUB_NAME = re.compile(r"[A-Za-z0-9]\w*(?:[.-]+\w+)*/\w+(?:[.-]+\w+)*", re.ASCII)


def check_text(where: str, text: str, *, needed: bool = False) -> str:
    """The text as it is, if it is one. `needed`: it may not be empty. `where`: the option, for the messages.

    Raises:
        ConfigError: bytes that are no text, or nothing where something is needed.
    """
    if needed and not text.strip():
        raise ConfigError(f"{where} {text!r} is empty; say what the image shows, such as 'a red circle and a blue square'")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where} {text!r}: these bytes are no text in UTF-8; check the terminal's encoding") from None
    return text


def parse_size(text: str, where: str = "--size") -> tuple[int, int]:
    """Width and height from `512x768`. That the model can make it is the model's to say.

    Raises:
        ConfigError: it is not of this form, or a side is 0.
    """
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*[xX×]\s*([0-9]{1,5})\s*", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(size) < 1:
        raise ConfigError(f"{where} {text!r}: expected WIDTHxHEIGHT in pixels, such as 96x64")
    return size


def check_pixels(size: Size | None) -> None:
    """Whether an image may be so large: a size may come from a stranger's file, and would fill the memory or take for ever.

    Raises:
        ConfigError: it may not.
    """
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(f"size {size[0]}x{size[1]}: more than {MOST_PIXELS:,} pixels, such as 8192x8192; ask for fewer")


def read_box(text: str) -> Region:
    """A region from `--box`.

    Raises:
        LayoutError: as `parse_box`, in the words of the command line.
    """
    try:
        return parse_box(text)
    except LayoutError as error:
        hint = "; these look like pixels: divide them by the image's width and height"
        raise type(error)(f"--{AGAIN.sub('', PIXELS.sub(hint, str(error)))}") from None


def check_regions(config: ResolvedConfig, layout: Layout, where: str, *, listed: bool = False) -> None:
    """Whether the terms that look at phrases have such; what other extractors need, they say once a model is there.

    Raises:
        ConfigError: no phrase is named, or none has a place and a distance needs one.
    """
    places = f"--box {BOX_FORM}, --mask {MASK_FORM} or --layout FILE"
    for term in config.terms:
        term_where = f"{where}, term {term.name!r}"
        if not term.extractor.needs.phrases:
            continue
        if term.distance.needs_target and not layout.boxed:
            cure = 'give the item "boxes"' if listed else f"give a phrase its place: {places}"
            raise ConfigError(f"{term_where}: distance {term.distance_name} needs a box or a mask; {cure}")
        if not layout.regions:
            cure = 'give the item "boxes"' if listed else f"give one with --phrase, or with its place: {places}"
            raise ConfigError(f"{term_where}: no phrase to look at; {cure}")


def check_boxes(guidance: str | None, pulled: bool, layouts: Sequence[Layout], model: Model) -> None:
    """Whether boxes have someone to look at them; warns where a file may mean that they have none.

    `guidance`: as it was given, if any was.

    Raises:
        ConfigError: a preset leaves them to a model that does not see them.
    """
    from ..framework.capabilities import sees_boxes
    from ..framework.pipeline.preflight import check_seen, pulls_nothing

    boxed = any(layout.boxed for layout in layouts)
    if boxed and not pulled and guidance not in (None, "none"):
        check_seen(model, guidance)
        if not sees_boxes(model):
            click.echo(f"Warning: {pulls_nothing(guidance, model)}", err=True)


def check_folder(folder: Path, asked: str = "--out") -> None:
    """Whether files could be written to a folder; nothing is made yet, since another option may still be wrong.

    `asked`: the option that names it.

    Raises:
        OutputError: the folder, or the nearest one above it that exists, is none that can be written to.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        place = look(folder)
        problem = place.said if place.kind == "nothing" and not place.free else None
        if not there.is_dir():
            problem = f"{str(there)!r} is not a folder"
        if problem is None:
            with TemporaryFile(dir=there):  # without a name: nothing is seen of it
                pass
    except (OSError, ValueError) as error:
        problem = reason(error) if isinstance(error, OSError) else str(error)
    if problem:
        raise OutputError(f"{asked} {_shown(str(folder))}: cannot write there ({problem}); choose another folder")


def check_model(model: str, plugins: Plugins | None = None) -> None:
    """Whether a model of this name, or a folder at this path, exists; it is not opened, and the hub is not asked.

    `plugins`: None while they are not loaded; then only what is clearly a path is looked at.

    Raises:
        ConfigError: there is none; names the nearest one that ships.
    """
    if not model.strip():
        raise ConfigError(f"model {model!r} is empty; expected a model's name or its folder")
    embedded = sorted(plugins.embedded_models()) if plugins is not None else list[str]()
    if model in embedded or (plugins is None and not model.startswith((".", "/", "~"))):
        return
    where = f"model {_shown(model)}"
    try:
        Path(model).expanduser().stat()
        return
    except RuntimeError:
        raise ConfigError(f"{where}: there is no such user's home; write the whole path of the folder") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not a path ({error}); expected a model's name or its folder") from None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({reason(error)}); expected a model's name or its folder") from None
    ships = f"; lsregen ships with {', '.join(embedded)}" if embedded else ""
    near = nearest(model.rpartition("/")[2], embedded)
    if HUB_NAME.fullmatch(model):  # whether the hub has it, loading it tells
        return
    if "/" in model or plugins is None:
        raise ConfigError(f"{where}: no such folder{near}{ships}")
    known = f"a model that ships with lsregen ({', '.join(embedded)}) nor a folder, nor owner/name of the hub"
    raise ConfigError(f"{where} is neither {known}{near}")


@contextmanager
def memory_errors(doing: str, cure: str) -> Generator[None, None, None]:
    """Say in words that memory did not suffice. `doing`: for what. `cure`: which option to change.

    Raises:
        ConfigError: the block ran out of memory, on whatever device.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"not enough memory {doing}; {cure}") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}...")
