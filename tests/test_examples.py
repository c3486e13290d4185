"""The example package: installed as a user would, found, listed, used, and its own tests run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lsregen.framework import discover
from lsregen.framework.config.resolve import validate
from lsregen.framework.config.yaml_text import load_yaml

pytestmark = pytest.mark.slow

CENTRE = Path(__file__).parents[1] / "examples" / "lsregen-centre"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it; built from a copy, so that nothing is left in the working tree."""
    copied = shutil.copytree(CENTRE, tmp_path_factory.mktemp("source") / "lsregen-centre")
    target = tmp_path_factory.mktemp("site")
    pip(copied, target)
    return target


def pip(source: Path, target: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    call(sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source))


def call(*command: str, site: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LSREGEN_PLUGINS"}
    environment |= {"PYTHONPATH": str(site or ""), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def test_it_is_found_by_the_name_of_its_package(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSREGEN_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(site))
    plugins = discover()
    assert not plugins.broken
    found = plugins.distance("centre")
    assert (found.package, found.version) == ("lsregen-centre", "0.1.0")
    (term,) = validate(load_yaml(CENTRE / "centre.yaml"), plugins).terms
    assert type(term.distance) is found.cls


def test_it_brings_its_type_marker_along(site: Path) -> None:
    assert (site / "lsregen_centre" / "py.typed").is_file()


def test_the_command_line_lists_it(site: Path) -> None:
    listed = json.loads(call(sys.executable, "-m", "lsregen.apps", "plugins", "--json", site=site))
    (centre,) = (plugin for plugin in listed["plugins"] if plugin["name"] == "centre")
    assert (centre["kind"], centre["package"], centre["version"]) == ("distance", "lsregen-centre", "0.1.0")
    assert not listed["broken"]


@pytest.mark.long
def test_the_command_line_makes_a_picture_with_it(site: Path, tmp_path: Path) -> None:
    arguments = ["--prompt", "a red circle", "--box", "red circle=0.5,0.5,0.9,0.9", "--steps", "5", "--out", str(tmp_path)]
    call(sys.executable, "-m", "lsregen.apps", "generate", *arguments, "--guidance", str(CENTRE / "centre.yaml"), site=site)
    assert list(tmp_path.glob("*-0.png"))
    (image,) = json.loads((tmp_path / "report.json").read_text())["images"]
    assert {entry["term"] for entry in image["energies"]} == {"centre"}


@pytest.mark.long
def test_its_own_tests_pass(site: Path) -> None:
    call(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CENTRE / "tests"), site=site)
