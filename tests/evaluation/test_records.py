"""Finished items on disk: a disk that is full loses none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsregen.evaluation.records import Records
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


def test_rows_of_the_same_settings_share_a_file_where_they_may(tmp_path: Path) -> None:
    kept = Records(tmp_path, "lsregen", {"a": 1}, shared=True)
    kept.append([{"seed": 0}])
    again = Records(tmp_path, "blend, 0.5", {"a": 1}, shared=True)
    assert (again.name, set(again.read())) == (kept.name, {0})
    assert not Records(tmp_path, "blend, 0.7", {"a": 2}, shared=True).read()
    alone = Records(tmp_path, "clip", {"a": 1})
    assert not alone.read()
    assert Records(tmp_path, "clip", {"a": 1}, shared=True).name == alone.name
