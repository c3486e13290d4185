"""The tables of docs/ are what their commands print of the committed results."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from lsregen.apps.cli import cli

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"<!-- (lsregen [^\n]*) -->\n\n(.*?)\n\n<!-- end -->", flags=re.DOTALL)
PAGES = sorted((ROOT / "docs").glob("*.md"))
RECORDS = sorted((ROOT / "docs" / "results").glob("*.jsonl.gz"))
TABLES = [(page.name, *found) for page in PAGES for found in TABLE.findall(page.read_text("utf-8"))]


def test_there_are_tables() -> None:
    assert len(TABLES) >= 5


@pytest.mark.parametrize(("page", "command", "shown"), TABLES, ids=range(len(TABLES)))
def test_a_table_is_what_its_command_prints(monkeypatch: pytest.MonkeyPatch, page: str, command: str, shown: str) -> None:
    monkeypatch.chdir(ROOT)
    outcome = CliRunner().invoke(cli, shlex.split(command)[1:], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert shown == outcome.stdout.strip(), f"docs/{page}: run the command again, and put its table in"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_records_of_images_tell_what_the_result_beside_them_does(path: Path) -> None:
    rows = {
        row["guidance"]: row for row in json.loads(path.with_name(path.name.replace(".jsonl.gz", ".json")).read_text())["rows"]
    }
    kept: defaultdict[str, list[dict[str, list[float]]]] = defaultdict(list)
    for line in gzip.decompress(path.read_bytes()).splitlines():
        image = json.loads(line)
        kept[image["guidance"]].append({name: [one[name] for one in image["objects"]] for name in image["objects"][0]})
    assert len(kept) >= 3
    for guidance, images in kept.items():
        found = {name: interval["value"] for name, interval in rows[guidance]["metrics"].items()}
        assert len(images) == rows[guidance]["count"]
        assert sum(all(image["right"]) for image in images) / len(images) == pytest.approx(found["all_right"])
        for name in ("present", "right", "centre_in_box", "mask_iou"):
            assert sum(sum(image[name]) / len(image[name]) for image in images) / len(images) == pytest.approx(found[name])


def test_there_are_records() -> None:
    assert RECORDS
