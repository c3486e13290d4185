"""Whatever README.md shows works: its Python, its YAML, its commands and its links. Only the number of steps is cut short."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from lsregen.apps.cli import cli
from lsregen.framework import discover
from lsregen.framework.config.presets import presets
from lsregen.framework.config.resolve import validate
from lsregen.framework.config.yaml_text import parse_yaml
from lsregen.framework.pipeline.engine import Engine, Renders
from lsregen.framework.pipeline.request import Request
from lsregen.framework.protocols import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command that starts with `lsregen`, in a block or between backticks in the text, without comments."""
    shell = " ".join(blocks("")).replace("\\\n", " ")
    lines = [*shell.splitlines(), *re.findall(r"`(lsregen [^`]*)`", README)]
    found = (shlex.split(line, comments=True) for line in lines if line.strip().startswith("lsregen "))
    return [words[1:] for words in found if words[1:]]


def test_the_readme_has_something_of_everything() -> None:
    assert len(blocks("python")) >= 2
    assert blocks("yaml")
    assert {"generate", "plugins", "tokens"} <= {words[0] for words in commands()}


@pytest.mark.parametrize("source", blocks("python"), ids=range(len(blocks("python"))))
def test_python_blocks_run(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin = Engine.begin

    def short(self: Engine, request: Request, renders: Renders) -> Run:
        return begin(self, replace(request, config=replace(request.config, steps=2)), renders)

    monkeypatch.setattr(Engine, "begin", short)
    names: dict[str, Any] = {}
    if "Pipeline.load" not in source:
        pytest.fail("a block that is not complete: it has to import and load what it uses")
    exec(compile(source, "README.md", "exec"), names)
    result = names["result"]
    assert result.image.size == names["pipeline"].model.default_size
    assert result.report.energies, "the layout was guided"


@pytest.mark.parametrize("text", blocks("yaml"), ids=range(len(blocks("yaml"))))
def test_yaml_blocks_are_valid(text: str) -> None:
    assert validate(parse_yaml(text, "README.md"), discover(only=())).terms


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    """Parsed as the command line does, every option included, and not run; words in capitals stand for something."""
    context = click.Context(cli, info_name="lsregen")
    name, command, rest = cli.resolve_command(context, words)
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=name, parent=context)
        name, command, rest = command.resolve_command(context, rest)
    assert command is not None, f"no command {words[0]}"
    parser = command.make_parser(click.Context(command, info_name=name, parent=context))
    parser.parse_args(list(rest))


def test_every_preset_is_in_the_table_and_nothing_else() -> None:
    table = README.partition("## Presets")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w@+-]+)`", table, flags=re.MULTILINE)) == {name for name in presets() if "@" not in name}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#\s]+)[^)]*\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    if "://" not in link:
        assert (ROOT / link).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:framework|examples|docs|recipes|evaluation)/[\w./-]*)`", README))))
def test_paths_that_are_named_exist(path: str) -> None:
    assert (ROOT / path).exists()
