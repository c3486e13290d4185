"""The script for a card: all of its parts on the CPU, with narrow networks; and what becomes of parts that fail or are late."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, parity
from benchmarks.gpu import REST, Broken, Part, Parts, Session, Size
from benchmarks.records import Record, Row
from benchmarks.table import page
from lsregen.framework import Pipeline, presets
from tests.card import ANSWERS, a_card

CPU = torch.device("cpu")
LITTLE = [
    *("--device", "cpu", "--narrow", "--preset", "layout-guidance", "--dtype", "fp32"),
    *("--steps", "2", "--image-steps", "1", "--batch", "2", "--repeats", "1"),
]


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    result = CliRunner().invoke(gpu.main, [*LITTLE, "--json", str(path)])
    assert result.exit_code == 0, result.output
    record = Record.read(path)
    size = Size(("layout-guidance",), ("fp32",), narrow=True, batch=2)
    assert [*record.seconds] == [part.name for part in Parts(CPU, size)]
    assert not record.unfinished
    close = {row.quantity: row for row in record.rows if row.goal in (parity.ROUNDING, gpu.GRADIENT)}
    assert len(close) >= 6
    assert [row for row in close.values() if row.met is False] == []
    text = page([record])
    assert "## On a card" in text
    assert text.count("diffusers") > 10


@pytest.mark.long
def test_every_part_runs_on_a_card(tmp_path: Path) -> None:
    """Nothing that it compares or times is on the wrong device."""
    path = tmp_path / "gpu.json"
    options = [*LITTLE, "--preset", "lsregen", "--device", "cuda", "--json", str(path)]
    with a_card():
        result = CliRunner().invoke(gpu.main, options)
        assert result.exit_code == 0, result.output
    record = Record.read(path)
    assert record.device == ANSWERS["get_device_name"]
    assert "SDXL, steps" in record.seconds
    assert not record.unfinished
    assert any(row.quantity == "plain step, most that was allocated" and row.reached == 1 for row in record.rows)


def test_a_card_gets_every_preset_in_every_dtype() -> None:
    names = [part.name for part in Parts(torch.device("cuda", 0), Size(tuple(presets())))]
    assert len(names) == len(set(names))
    assert {f"{preset}, {dtype}" for preset in presets() for dtype in gpu.DTYPES} <= {*names}
    assert {"SD 1.5, steps", "SDXL, steps", "Attend-and-Excite, batch 1", "Attend-and-Excite, batch 8", "images"} <= {*names}


def test_without_a_card_it_says_so_in_a_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    result = CliRunner().invoke(gpu.main, [])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "no card" in line


# ---- the run ----


def part(name: str, make: Callable[[], list[Row]] | None = None, seconds: float = 0.0, kind: str = "") -> Part:
    return Part(name, kind or name, seconds, make or (lambda: [Row("subject", name, 1.0)]))


def fails() -> list[Row]:
    raise RuntimeError("no such kernel\nand more")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Record("gpu", (), device="a card"), tmp_path / "gpu.json", time.monotonic() + 60, CPU)


def test_what_a_part_raises_is_written_down_and_the_rest_goes_on(session: Session) -> None:
    seen: list[Record] = []

    def look() -> list[Row]:
        assert session.path is not None
        seen.append(Record.read(session.path))
        return []

    session.make([part("a"), part("b", fails), part("c", look), part("d")])
    record = session.record
    assert [*record.seconds] == ["a", "c", "d"]
    assert record.unfinished == {"b": "RuntimeError: no such kernel"}
    assert [row.quantity for row in record.rows] == ["a", "d"]
    assert [*seen[0].seconds] == ["a"]  # it is in the file after every part
    assert {*seen[0].unfinished} == {"b", "c"}  # a part that ends the process is known too
    assert "- b: RuntimeError: no such kernel" in page([record])


def test_what_no_longer_fits_is_left_out_and_said(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    session.until = time.monotonic() + 30
    session.make([part("long", seconds=100), part("short", seconds=1)])
    assert [*session.record.seconds] == ["short"]
    assert session.record.unfinished == {"long": REST}
    assert f"long: {REST}" in capsys.readouterr().err


def test_a_part_is_expected_to_take_as_long_as_the_longest_of_its_kind(session: Session) -> None:
    session.longest["kind"] = 100.0
    session.make([part("a", seconds=1, kind="kind")])
    assert session.record.unfinished == {"a": REST}
    session.longest.clear()
    session.make([part("b", kind="other"), part("a", kind="kind")])
    assert {*session.longest} == {"kind", "other"}
    assert not session.record.unfinished


def test_what_a_run_left_is_made_by_the_next(session: Session) -> None:
    session.until = time.monotonic()
    session.make([part("a", seconds=1)])
    session.until += 60
    made: list[str] = []
    session.record = Record("gpu", (Row("s", "old", 1.0),), "a card", seconds={"old": 1.0}, unfinished=session.record.unfinished)
    session.make([part("old", lambda: made.append("old") or []), part("a"), part("b", fails)])
    session.make([part("b", lambda: made.append("b") or [])])  # what failed is not tried again
    assert not made
    assert [row.quantity for row in session.record.rows] == ["old", "a"]
    assert {*session.record.unfinished} == {"b"}


def test_a_device_that_answers_no_more_ends_the_process(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(gpu, "answers", lambda _: False)
    with pytest.raises(Broken):
        session.make([part("a"), part("b", fails), part("c")])
    assert session.path is not None
    record = Record.read(session.path)
    assert [*record.seconds] == ["a"]
    assert [*record.unfinished] == ["b"]


# ---- what is compared ----


def test_a_run_is_near_itself_and_far_from_another() -> None:
    pipeline = Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")
    known = parity.Known.of(pipeline, "layout-guidance", 2)
    assert 0 < known.nudged.last_apart(known.run) < 0.01
    rows = known.rows("s", "it", known.run, "fp32")
    assert [row.met for row in rows] == [True, True, True, None]
    other = parity.walk(pipeline, "layout-guidance", steps=2, seed=1)
    energy, first, last, _ = known.rows("s", "it", other, "fp32")
    assert (energy.met, first.met, last.met) == (False, False, False)
    assert [row.goal for row in known.rows("s", "it", other, "bf16")] == [parity.ENERGY["bf16"], None, None, None]


def test_a_nudge_is_taken_back() -> None:
    pipeline = Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")
    weight = pipeline.model.unet.conv_in.weight  # pyright: ignore
    before = weight.clone()
    with parity.nudged(pipeline):
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)
