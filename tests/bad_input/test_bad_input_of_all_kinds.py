"""It looks at every command and every public callable, it tells faults from refusals, and all that it tries is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lsregen.apps.cli import cli
from tests.bad_input import callables, commands, files, pool, worker
from tests.bad_input.__main__ import spread, tried
from tests.bad_input.case import ACCEPTED, RIGHT, TRACEBACK, UNCLEAR, WRITTEN, Case
from tests.bad_input.lines import LINES

SAMPLE = 150


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench changes the folder of the process; the next test finds it as it was."""
    monkeypatch.chdir(pool.ROOT)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    files.build(folder)
    return folder


def test_every_command_has_a_line() -> None:
    known = dict(commands.commands())
    assert set(LINES) == set(known)
    for name, line in LINES.items():
        params = {param.name for param in known[name].params}
        assert {*line.given, *line.uses} <= params
        assert all({*use.beside, *use.instead_of} <= params for use in line.uses.values())


def test_what_is_no_door_is_public_still() -> None:
    names = {name.removesuffix("()").partition(".")[0] for name in callables.no_doors()}
    assert names <= {name for module in callables.MODULES for name in module.__all__}


def test_every_public_callable_has_good_arguments() -> None:
    for public in callables.publics().values():
        assert set(public.required) <= set(public.good())


@pytest.mark.slow
def test_every_line_works(template: Path, tmp_path: Path) -> None:
    """Or what is refused might be something else than the bad value."""
    bench = worker.Bench(template, tmp_path / "bench")
    for name, line in LINES.items():
        result = CliRunner().invoke(cli, commands.arguments(name, line.given), prog_name="lsregen")
        assert result.exit_code == 0, f"{name}: {result.output}"
        bench.fresh()


@pytest.mark.slow
def test_a_new_option_is_tried_without_a_case_of_its_own(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(commands.commands())["presets"]
    monkeypatch.setattr(known, "params", [*known.params, click.Option(["--new"], type=float)])
    places = [case.place for case in commands.cases(template)]
    assert places.count("presets --new") >= 6


@pytest.mark.parametrize(
    ("does", "verdict"),
    [
        (lambda: click.echo("done"), ACCEPTED),
        (lambda: 1 // 0, TRACEBACK),
        (lambda: refuse("--size 'x': expected a number"), RIGHT),
        (lambda: refuse("something is wrong"), UNCLEAR),
        (lambda: (Path("left").write_text("x"), refuse("--size 'x': expected a number")), WRITTEN),
        (lambda: (Path("a-file").write_text("y"), refuse("--size 'x': expected a number")), WRITTEN),
    ],
)
def test_faults_are_told_from_refusals(
    does: Callable[[], object], verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a-file").write_text("x")
    monkeypatch.setattr(worker, "cli", click.Command("toy", callback=lambda size: does(), params=[click.Option(["--size"])]))
    bench = worker.Bench(tmp_path / "files", tmp_path / "bench")
    case = Case("toy --size", "'x'", ("--size",), ("--size", "x"))
    assert worker.attempt(case, bench).verdict == verdict
    assert bench.changed() == ""  # the next case finds the files as they were


def refuse(said: str) -> None:
    raise click.UsageError(said)


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LIMIT", 0.5)
    process = pool.Worker(tmp_path, tmp_path / "bench")
    process.command = [os.fspath("/bin/sh"), "-c", "sleep 1000"]
    assert process.attempt("any").verdict == "hang"


@pytest.mark.slow
def test_a_sample_is_refused(template: Path, tmp_path: Path) -> None:
    check(template, tmp_path, SAMPLE, processes=1, workers=1)


@pytest.mark.long
def test_everything_is_refused(template: Path, tmp_path: Path) -> None:
    check(template, tmp_path, 10**9, processes=50, workers=2)


def check(template: Path, folder: Path, count: int, processes: int, workers: int) -> None:
    known = worker.cases(template)
    assert len(known) > 1000
    outcomes = tried(known, spread(list(known), count), folder, template, workers, processes)
    wrong = [str(outcome) for found in outcomes.values() for outcome in found if outcome.verdict != RIGHT]
    assert not wrong, "\n".join(wrong)
