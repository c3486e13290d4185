"""Finished items on disk: a disk that is full loses none of them, and two processes do not make them twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.runs.records import Records
from lsregen.framework.errors import ConfigError

resource = pytest.importorskip("resource", reason="a system without limits of file sizes")


def test_a_disk_that_takes_a_part_of_a_line_loses_nothing_kept(tmp_path: Path) -> None:
    kept = Records(tmp_path, "row", {"a": 1})
    kept.append([{"seed": 0}, {"seed": 1}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.path.stat().st_size + 5, hard))
    try:
        with pytest.raises(
            ConfigError, match=rf"{kept.path.name}: cannot be written \(.*\); what was kept before stays"
        ) as caught:
            kept.append([{"seed": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    again = Records(tmp_path, "row", {"a": 1})
    assert set(again.read()) == {0, 1}
    again.append([{"seed": 2}])
    assert set(again.read()) == {0, 1, 2}


def test_nothing_is_written_before_the_first_item(tmp_path: Path) -> None:
    kept = Records(tmp_path / "a" / "b", "row", {"a": 1})
    with kept.held():
        assert kept.read() == {}
        assert list(tmp_path.iterdir()) == []
        kept.append([{"seed": 3}])
    assert Records(tmp_path / "a" / "b", "row", {"a": 1}).read() == {3: {"seed": 3}}


def test_what_a_crash_cut_off_is_dropped(tmp_path: Path) -> None:
    kept = Records(tmp_path, "row", {"a": 1})
    kept.append([{"seed": 0}, {"seed": 1}])
    whole = kept.path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 5, 3, 0):
        kept.path.write_bytes(whole[:cut])
        again = Records(tmp_path, "row", {"a": 1})
        before = again.read()
        assert set(before) == ({0} if cut > 20 else set())
        again.append([{"seed": 2}])
        assert set(Records(tmp_path, "row", {"a": 1}).read()) == {*before, 2}


def test_one_process_at_a_time_adds_items(tmp_path: Path) -> None:
    """The second is refused at once where the file is there; else with its first item, if the other has begun meanwhile."""
    first, second = Records(tmp_path, "row", {"a": 1}), Records(tmp_path, "row", {"a": 1})
    with first.held(), second.held():
        assert first.read() == second.read() == {}
        first.append([{"seed": 0}])
        with pytest.raises(ConfigError, match="another process is adding"):
            second.append([{"seed": 0}])
    third = Records(tmp_path, "row", {"a": 1})
    with first.held():
        first.append([{"seed": 1}])
        with pytest.raises(ConfigError, match="another process is adding"), third.held():
            pass
    with third.held():
        assert set(third.read()) == {0, 1}


def test_items_that_another_process_added_meanwhile_are_not_made_twice(tmp_path: Path) -> None:
    """It has ended since, so no lock tells of it."""
    first, second = Records(tmp_path, "row", {"a": 1}), Records(tmp_path, "row", {"a": 1})
    with second.held():
        assert second.read() == {}
        with first.held():
            first.append([{"seed": 0}])
        with pytest.raises(ConfigError, match="another process"):
            second.append([{"seed": 0}])
    assert set(second.read()) == {0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_not_kept(tmp_path: Path, value: float) -> None:
    kept = Records(tmp_path, "row", {"a": 1})
    with pytest.raises(ConfigError, match="seed 1: a number in it is not finite"):
        kept.append([{"seed": 0}, {"seed": 1, "said": [value]}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["[" * 100_000, "{", "[]", "{}", '{"seed": "0"}', '{"seed": 0.5}'])
def test_damaged_lines_are_named(tmp_path: Path, line: str) -> None:
    kept = Records(tmp_path, "row", {"a": 1})
    kept.append([{"seed": 0}])
    with kept.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=f"{kept.path.name}, line 3"):
        Records(tmp_path, "row", {"a": 1}).read()


@pytest.mark.parametrize("content", [b"somebody else's\n", b"somebody else's", b"[" * 100_000 + b"\n"])
def test_somebody_elses_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = Records(tmp_path, "row", {"a": 1}).path
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a file of lsregen's results"):
        Records(tmp_path, "row", {"a": 1})
    assert path.read_bytes() == content


def test_places_that_no_file_can_be_at(tmp_path: Path) -> None:
    path = Records(tmp_path, "row", {"a": 1}).path
    (tmp_path / "file").write_text("")
    folders: list[Any] = [tmp_path / "file", tmp_path / ("x" * 300), tmp_path / "file" / "more"]
    for folder in folders:
        with pytest.raises(ConfigError, match="results cannot be kept there"):
            Records(folder, "row", {"a": 1})
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="results cannot be kept there"):
        Records(tmp_path, "row", {"a": 1})
