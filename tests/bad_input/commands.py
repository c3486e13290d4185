"""Cases from the options and arguments of every command, found by looking at the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from lsregen.apps.cli import cli
from tests.bad_input import values
from tests.bad_input.case import Case
from tests.bad_input.files import CONTENTS, bad_file
from tests.bad_input.lines import DEFAULTS, LINES, UNREAD, Good, Line, Use

NOWHERE = ("nowhere/at-all", "", values.ENDLESS_PATH, "a\0b", "odd/broken", "odd/loop", "~nosuchuser/x", values.HALF)
INSTEAD_OF_FILE = ("odd/zero", "/dev/zero", "odd/empty-folder", "a-folder", "/dev/null")
INSTEAD_OF_FOLDER = ("odd/zero", "odd/empty-folder", "a-file", "/dev/null", "a-folder")
NO_FILE = ("", values.ENDLESS_PATH, "a\0b", "odd/loop", "a-folder", "a-file/x", "/proc/nowhere/x")
NO_FOLDER = ("", values.ENDLESS_PATH, "a\0b", "odd/loop", "a-file", "a-file/x", "/proc/nowhere/x")
LIKELY = (
    "empty",
    "binary",
    "deep lists",
    "null",
    "mapping",
    "list of nulls",
    "mapping of nulls",
    "half a character",
    "not UTF-8",
)
"""The contents that a file within a folder is damaged with."""


NO_TEXT = ("empty", "binary", "not UTF-8")


@dataclass(frozen=True)
class Option:
    """A parameter of a command, with the line that it is tried on."""

    command: str
    param: click.Parameter
    use: Use
    line: Mapping[str, Good]

    @property
    def place(self) -> str:
        return f"{self.command} {self.param.opts[-1] if isinstance(self.param, click.Option) else self.param.human_readable_name}"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    yield from _commands(cli, ())


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        found = command.get_command(ctx, name)
        if found is not None:
            yield from _commands(found, (*words, name))


def options() -> Iterator[Option]:
    """Every parameter of every command; one whose command has no line is tried on an empty one."""
    for name, command in commands():
        line = LINES.get(name, Line())
        for param in command.params:
            if param.name is None:
                continue
            use = line.uses.get(param.name, Use())
            given = {key: good for key, good in {**line.given, **use.beside}.items() if key not in use.instead_of}
            yield Option(name, param, use, given)


def arguments(name: str, given: Mapping[str, Good]) -> tuple[str, ...]:
    """The words of a command and its parameters as a line of arguments."""
    command = dict(commands())[name]
    args, last = name.split(), list[str]()
    for param in command.params:
        if param.name not in given:
            continue
        value = given[param.name]
        each = [value] if isinstance(value, str) else list(value)
        if isinstance(param, click.Option):
            args += [f"{param.opts[-1]}={one}" for one in each]
        else:
            last += each
    return (*args, *(["--", *last] if last else []))


def cases(folder: Path) -> Iterator[Case]:
    """Every case of every command. `folder` has what `files.build` makes, and takes bad files."""
    for option in options():
        seen = set[str]()
        for value in (*_values(option, folder), *option.use.more):
            if value in seen or value in option.use.fine:
                continue
            seen.add(value)
            yield _case(option, value)
        yield from _damaged(option, folder)


def _values(option: Option, folder: Path) -> Iterator[str]:
    param, good = option.param, _good(option)
    if getattr(param, "is_flag", False):
        yield from ("x", "")
        return
    typed = values.of_type(param.type)
    if typed is not None:
        yield from typed
        return
    named, named_before = good.rpartition("=")[2], good.rpartition("=")[0]
    if (known := _place_of(named, folder, option)) is not None:
        head = f"{named_before}=" if named_before else ""
        yield from (head + each for each in known)
        if head:
            yield from values.PAIRS
        elif not isinstance(param.type, click.Path):
            yield from values.NAMES
        return
    if option.use.text:
        yield from ("", " ", *values.TEXTS)
        return
    yield from values.NAMES
    if "=" in good:
        yield from values.PAIRS
    if param.metavar and "NAMES" in param.metavar:
        yield from (",", f"{good},", f"{good},{good}")
    yield from values.changed(good)


def _good(option: Option) -> str:
    """A good value of an option, empty where there is none."""
    good = option.use.good or option.line.get(option.param.name or "", "")
    return good if isinstance(good, str) else good[0]


def _place_of(good: str, folder: Path, option: Option) -> list[str] | None:
    """What may stand at the place of a file or folder instead; None where no path is meant."""
    path, param, any_text = folder / good, option.param, option.use.any_text
    if good and path.is_file():
        whole = "first half" if path.suffix in (".png", ".json", ".safetensors") else "empty"
        contents = NO_TEXT if any_text else dict.fromkeys((*CONTENTS, whole))
        bad = [bad_file(folder / "bad", content, path) for content in contents]
        return [*NOWHERE, *INSTEAD_OF_FILE, *(str(each.relative_to(folder)) for each in bad)]
    if good and path.is_dir():
        return [*NOWHERE, *INSTEAD_OF_FOLDER]
    if not isinstance(param.type, click.Path):
        return None
    if not good:
        raise LookupError(f"{param.opts}: a path without a good value; give it one in lines.py")
    if path.suffix:
        return [*NO_FILE, f"precious{path.suffix}"]
    return [*NO_FOLDER]


def _damaged(option: Option, folder: Path) -> Iterator[Case]:
    """A good folder of which one file is damaged."""
    good = _good(option)
    home = folder / good
    if not good or not home.is_dir() or not option.use.damaged:
        return
    for path in sorted(each for each in home.rglob("*.json*") if each.is_file()):
        if any(path.match(unread) for unread in UNREAD):
            continue
        for content in LIKELY:
            if path.name in DEFAULTS.get(content, ()):
                continue
            inside = str(path.relative_to(folder))
            case = _case(option, good)
            yield Case(
                f"{case.place} {inside}",
                content,
                (*case.named, path.name, path.stem, str(path.parent.name)),
                case.args,
                damage=(inside, content),
            )


def _case(option: Option, value: str) -> Case:
    param = option.param
    names = [*param.opts, param.human_readable_name, *([param.metavar] if param.metavar else [])]
    if isinstance(param, click.Argument):
        names = [param.human_readable_name, *([param.metavar] if param.metavar else [])]
    args = arguments(option.command, {**option.line, param.name or "": value})
    return Case(option.place, values.shown(value), (*names, *_forms(value)), args)


def _forms(value: str) -> tuple[str, ...]:
    """How a message may show a value."""
    parts = [value, *value.split("="), str(Path(value).parent)]
    found = [form for part in parts for form in (part[:40], repr(part)[1:-1][:40], part.strip()) if len(form.strip()) > 1]
    return (*found, repr(value)) if value.strip() != "" else ("''", repr(value))
