"""Figures beside their goals, on the screen, in files and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.records import Record, Row, print_rows
from benchmarks.table import PAGE, RESULTS, page

ROWS = (
    Row("SD 1.5", "time", 2.0, "s"),
    Row("SD 1.5", "ratio", 1.5504, goal=1.55),
    Row("SD 1.5", "speed", 6.0, "1/s", goal=5.0, more_is_better=True),
)


@pytest.mark.parametrize(("row", "met"), list(zip(ROWS, (None, False, True), strict=True)))
def test_a_goal_is_judged_by_the_figure_itself(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_goal_and_figure_are_printed_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].split() == ["SD", "1.5", "ratio", "<=", "1.55", "1.550", "missed"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("step", ROWS, device="a machine", note="busy")
    record.write(tmp_path / "new" / "step.json")
    assert Record.read(tmp_path / "new" / "step.json") == record
    assert set(record.versions) == {"torch", "diffusers", "transformers"}


def test_the_page_shows_every_row() -> None:
    text = page([Record("step", ROWS, device="a machine"), Record("count", ROWS[:1], device="none")])
    assert text.index("## Counted") < text.index("## A step of SD 1.5, timed")
    assert '`python -m benchmarks.step --family "SD 1.5"`' in text
    assert "| speed | >= 5 1/s | 6.000 1/s | met |" in text


def test_the_page_in_the_repository_is_made_from_its_results() -> None:
    records = [Record.read(path) for path in sorted(RESULTS.glob("*.json"))]
    assert {record.benchmark for record in records} >= {"count"}
    assert PAGE.read_text(encoding="utf-8") == page(records)
