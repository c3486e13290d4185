"""The group: help without torch, nearest names, commands of other packages, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from lsregen.apps import cli as module
from lsregen.apps.cli import COMMANDS, cli
from lsregen.framework.errors import ConfigError

Call = Callable[..., Result]
HEAVY = ("torch", "transformers", "numpy", "PIL", "omegaconf", "tqdm")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, args, prog_name="lsregen")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["generate", "--help"], ["plugins", "--help"], ["tokns"]])
def test_no_torch_for_help(args: list[str]) -> None:
    heavy = ("torch", "transformers", "omegaconf") if args[0] == "generate" else HEAVY
    code = (
        "import sys\nfrom lsregen.apps.cli import main\n"
        f"try:\n    sys.argv = ['lsregen', *{args!r}]\n    main()\n"
        f"finally:\n    assert not set({heavy!r}) & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (2 if args == ["tokns"] else 0)
    assert "did you mean 'tokens'?" in done.stderr or args != ["tokns"]


def test_every_command_is_listed_with_a_help_of_one_line() -> None:
    listed = invoke("--help").output
    for name in COMMANDS:
        assert f"  {name} " in listed
        assert invoke(name, "--help").exit_code == 0


def test_version() -> None:
    assert invoke("--version").output.startswith("lsregen ")


def test_usage_errors_keep_the_form_of_click() -> None:
    result = invoke("genrate")
    assert result.exit_code == 2
    assert "No such command 'genrate' (did you mean 'generate'?)" in result.stderr
    result = invoke("generate", "--promt", "x")
    assert result.exit_code == 2
    assert "--promt" in result.stderr
    assert "--prompt" in result.stderr
    assert "No such option" in invoke("--verzion").stderr


@click.command()
def hello() -> None:
    """Say hello."""
    click.echo("hello from outside")


@click.command()
def stop() -> None:
    raise KeyboardInterrupt


@click.command()
def fail() -> None:
    raise ConfigError("colour 'rad': expected red")


@click.command()
def starve() -> None:
    raise MemoryError


@click.command()
def unreadable() -> None:
    raise PermissionError(13, "Permission denied", "/there")


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers good and bad commands."""
    package = ModuleType("lsregen_other")
    vars(package).update(hello=hello, stop=stop, fail=fail, starve=starve, unreadable=unreadable, number=3)
    monkeypatch.setitem(sys.modules, "lsregen_other", package)
    names = ["hello", "stop", "fail", "starve", "unreadable", "number", "absent", "generate"]
    points = [EntryPoint(name, f"lsregen_other:{name}", module.GROUP) for name in names]
    twice = [EntryPoint("twice", f"lsregen_other:{name}", module.GROUP) for name in ("hello", "stop")]
    monkeypatch.setattr(module, "entry_points", lambda group: [*points, *twice] if group == module.GROUP else [])


@pytest.mark.usefixtures("others")
def test_commands_of_other_packages() -> None:
    assert invoke("hello").output == "hello from outside\n"
    assert "From the package" in invoke("--help").output
    assert "--prompt" in invoke("generate", "--help").output  # our own names cannot be taken
    assert "did you mean 'hello'?" in invoke("hallo").stderr


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "expected a click.Command, got int"),
        ("absent", "cannot be loaded: AttributeError"),
        ("twice", "is offered by"),
    ],
)
def test_broken_commands_name_themselves_only_when_used(name: str, said: str) -> None:
    assert name in invoke("--help").output
    result = invoke(name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: command {name!r}")
    assert said in result.stderr


@pytest.mark.usefixtures("others")
def test_commands_obey_the_limit_on_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSREGEN_PLUGINS", "")
    assert "hello" not in invoke("--help").output
    assert "No such command 'hello'" in invoke("hello").stderr


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`installed(package, source, *commands)` leaves a package of one module as `pip install` would."""
    monkeypatch.delenv("LSREGEN_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, source: str, *commands: str) -> None:
        (tmp_path / f"{package}.py").write_text(source)
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        points = "".join(f"{command} = {package}:{command}\n" for command in commands)
        (info / "entry_points.txt").write_text(f"[lsregen.commands]\n{points}")
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install


HELLO = "import click\n@click.command()\ndef {0}(): click.echo('{0}')\n"


@pytest.mark.parametrize("reason", ["1 / 0", "raise SystemExit(3)", "import a_module_that_is_missing", "def broken(:"])
def test_a_broken_package_is_named_and_leaves_the_others_alone(installed: Callable[..., None], reason: str) -> None:
    installed("acme_broken", reason, "crash")
    installed("acme_sound", HELLO.format("greet"), "greet")
    listed = invoke("--help")
    assert listed.exit_code == 0
    assert "From the package acme_broken 1.2." in listed.output
    assert "acme_broken" not in sys.modules, "help imports nothing of others"
    assert invoke("greet").output == "greet\n"
    result = invoke("crash")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "Error: command 'crash' of acme_broken 1.2 (entry point acme_broken:crash) cannot be loaded: "
    )


def test_the_help_names_both_packages_that_offer_a_command(installed: Callable[..., None]) -> None:
    for package in ("acme_one", "acme_two"):
        installed(package, HELLO.format("greet"), "greet")
    both = {"acme_one 1.2 and acme_two 1.2", "acme_two 1.2 and acme_one 1.2"}
    listed = " ".join(invoke("--help").output.split())
    assert any(f"greet Broken: offered by {names}; uninstall one of them." in listed for names in both)
    result = invoke("greet")
    assert result.exit_code == 2
    assert any(f"command 'greet' is offered by {names}; uninstall one of them" in result.stderr for names in both)


def test_the_help_names_the_package_that_offers_a_command_of_ours(installed: Callable[..., None]) -> None:
    assert "Left out" not in invoke("--help").output
    installed("acme_bold", HELLO.format("generate"), "generate")
    _, left_out = invoke("--help").output.split("Left out, because lsregen has a command of that name:")
    assert left_out.split() == ["generate", "From", "the", "package", "acme_bold", "1.2."]
    assert "--prompt" in invoke("generate", "--help").output


@pytest.mark.usefixtures("others")
def test_errors_and_interrupts() -> None:
    result = invoke("fail")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "Error: colour 'rad': expected red\n")
    result = invoke("stop")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")
    for name, said in (("starve", "memory"), ("unreadable", "/there: Permission denied")):
        result = invoke(name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: ")
        assert said in result.stderr
