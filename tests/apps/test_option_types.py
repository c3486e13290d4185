"""What options refuse whatever the command."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from lsregen.apps.option_types import NAME, PATH, Finite


@click.command()
@click.option("--share", type=Finite(0, 1))
@click.option("--any", "any_", type=Finite())
@click.option("--name", type=NAME)
@click.option("--path", type=PATH)
def told(**given: object) -> None:
    click.echo(sorted((key, value) for key, value in given.items() if value is not None))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--share", value) for value in ("nan", "inf", "-inf", "2", "", "x")),
        *(("--any", value) for value in ("nan", "inf", "-Infinity", "1e999")),
        *(("--name", value) for value in ("", "  ", "\ud800")),
        *(("--path", value) for value in ("", " ", "a\0b")),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_option(option: str, value: str) -> None:
    result = CliRunner().invoke(told, [option, value])
    assert result.exit_code == 2
    assert option in result.output


def test_what_is_meant_is_taken() -> None:
    result = CliRunner().invoke(told, ["--share", "0.5", "--any", "-1e300", "--name", "x y", "--path", "a/b"])
    assert (result.exit_code, result.exception) == (0, None)
    assert "0.5" in result.output
