"""The command `lsregen`: a group whose commands are imported when they are used, so that help costs nothing."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

import click

from ..framework.errors import LsregenError, PluginError, nearest
from ..framework.files import reason
from ..framework.plugins.registry import allowed_packages, normalised
from .interrupts import INTERRUPTED, interrupt_on_sigterm
from .streams import UNWRITTEN, outlast, unwritten

GROUP = "lsregen.commands"
"""The entry-point group by which other packages add commands; each names a `click.Command`."""

COMMANDS: Mapping[str, str] = {
    "convert": "Write a model's file, a pickle too, as a folder of safetensors.",
    "evaluate": "Measure methods, on one machine or many, and print tables of the results.",
    "generate": "Make images from a prompt, and boxes that say what stands where.",
    "inspect": "Tell what a model's files are: family, parts, sizes, what is missing.",
    "layout": "Convert layouts between formats, and list what a file of them holds.",
    "plugins": "List extractors, distances, samplers, models, detectors and engines, with their options.",
    "presets": "List the guidance presets, or show one as YAML.",
    "show": "Show a run as one HTML page: images, attention, energies, timings, settings.",
    "tokens": "Show how a model splits a prompt into tokens.",
}
"""lsregen's own commands, each the `command` of a module, and what the list of commands says of them."""

HOMES: Mapping[str, str] = {
    "evaluate": ".evaluating.evaluate",
    "generate": ".generating.generate",
    "show": ".showing.show",
}
"""The modules of commands that are not in a file of their own name beside this one."""

LIBRARY = __name__.partition(".")[0]
LIBRARY_SAYS = "lsregen.models.runtime.conditioning"  # the logger that says it to those who write Python


class Failure(click.ClickException):
    """An error with a message for the user; click prints it as `Error: ...` on stderr, without a traceback."""

    exit_code = 2


class NamingGroup(click.Group):
    """A group that answers an unknown command with the nearest name and all names."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}{nearest(name, known)}; there are {', '.join(known)}.")
        return super().resolve_command(ctx, args)


class LazyGroup(NamingGroup):
    """A group that knows the names of its commands, and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(third_party().keys() - COMMANDS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            return import_module(HOMES.get(cmd_name, f".{cmd_name}"), __package__).command
        found = third_party().get(cmd_name)
        return load_command(found) if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items(), *((name, said) for name, said in others() if name not in COMMANDS)])
        if taken := [(name, said) for name, said in others() if name in COMMANDS]:
            with formatter.section("Left out, because lsregen has a command of that name"):
                formatter.write_dl(taken)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _warnings_said():
                return super().invoke(ctx)
        except LsregenError as error:
            raise Failure(str(error)) from None
        except OSError as error:  # of a file that nothing else looked after
            raise Failure(f"{error.filename or 'the system'}: {reason(error)}") from None
        except MemoryError:
            raise Failure("not enough memory, for the little that was asked for: free some, or raise its limit") from None
        except KeyboardInterrupt:  # a command that keeps something catches it, and says what
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@contextmanager
def _warnings_said() -> Generator[None, None, None]:
    """What the library warns of stands on stderr as the commands' own warnings do."""
    # Commands say themselves, once and in their words, when a prompt is too long.
    silent = logging.getLogger(LIBRARY_SAYS)
    level = silent.level
    silent.setLevel(logging.ERROR)
    handler, library = logging.StreamHandler(), logging.getLogger(LIBRARY)
    handler.setFormatter(logging.Formatter("Warning: %(message)s"))
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        silent.setLevel(level)


def third_party() -> dict[str, list[EntryPoint]]:
    """The commands of other packages by name, not loaded; those that have a name of lsregen's own are never run.

    The environment variable that limits plugins (`framework/plugins/registry.py`) limits commands too.
    """
    allowed = allowed_packages()
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if allowed is None or (point.dist is not None and normalised(point.dist.name) in allowed):
            found.setdefault(point.name, []).append(point)
    return found


def others() -> list[tuple[str, str]]:
    """What the help says of the commands of other packages, whose modules it does not import."""
    said = {
        name: f"From the package {origin(found[0])}." if len(found) == 1 else f"Broken: {_offered_twice(found)}."
        for name, found in third_party().items()
    }
    return sorted(said.items())


def load_command(points: list[EntryPoint]) -> click.Command:
    """Import a third-party command.

    Raises:
        PluginError: two packages offer it, it cannot be imported, or it is no click command; names the packages.
    """
    point = points[0]
    if len(points) > 1:
        raise PluginError(f"command {point.name!r} is {_offered_twice(points)}")
    where = f"command {point.name!r} of {origin(point)} (entry point {point.value})"
    try:
        command = point.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"{where}: expected a click.Command, got {type(command).__name__}")
    return command


def origin(point: EntryPoint) -> str:
    """The distribution of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _offered_twice(points: list[EntryPoint]) -> str:
    return f"offered by {' and '.join(map(origin, points))}; uninstall one of them"


def own_version() -> str:
    try:
        return version("lsregen")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"lsregen {own_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version.")
def cli() -> None:
    """Text-to-image diffusion that can be pulled, at every step, toward anything you can measure.

    \b
    lsregen generate --prompt "a red circle and a blue square" \\
        --box "red circle=0.05,0.1,0.45,0.6" --box "blue square=0.55,0.45,0.95,0.95"
    """


def main() -> None:
    """The entry point of the console script."""
    # Threads that wait for each other sleep instead of spinning: ten times faster on busy cores. Before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stdout = outlast()
    interrupt_on_sigterm()
    try:
        cli(prog_name="lsregen")
    except SystemExit as ended:
        if (fault := unwritten(stdout)) is None:
            raise
        click.echo(f"Error: stdout: cannot be written ({reason(fault)}); what should stand there is lost", err=True)
        sys.exit(ended.code or UNWRITTEN)
