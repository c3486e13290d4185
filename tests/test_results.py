"""The tables of docs/ are what their commands print of the committed results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from lsregen.apps.cli import cli

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"<!-- (lsregen [^\n]*) -->\n\n(.*?)\n\n<!-- end -->", flags=re.DOTALL)
PAGES = sorted((ROOT / "docs").glob("*.md"))
TABLES = [(page.name, *found) for page in PAGES for found in TABLE.findall(page.read_text("utf-8"))]


def test_there_are_tables() -> None:
    assert len(TABLES) >= 5


@pytest.mark.parametrize(("page", "command", "shown"), TABLES, ids=range(len(TABLES)))
def test_a_table_is_what_its_command_prints(monkeypatch: pytest.MonkeyPatch, page: str, command: str, shown: str) -> None:
    monkeypatch.chdir(ROOT)
    outcome = CliRunner().invoke(cli, shlex.split(command)[1:], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert shown == outcome.stdout.strip(), f"docs/{page}: run the command again, and put its table in"
