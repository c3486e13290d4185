"""What pyproject.toml promises is what the working tree holds, and what a wheel would carry."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
NOT_INSTALLED = {"__pycache__"}


def sources() -> set[str]:
    """Every file below the installed folders, as its place inside a wheel."""
    return {
        f"lsregen/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not NOT_INSTALLED & set(path.parts)
    }


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    found = {".".join(Path(file).parent.parts) for file in sources() if file.endswith(".py")}
    assert found == set(SETUPTOOLS["packages"])


def test_every_package_has_an_init_file() -> None:
    missing = [
        package for package in SETUPTOOLS["packages"] if not (ROOT / Path(*package.split(".")[1:]) / "__init__.py").is_file()
    ]
    assert not missing


def test_every_top_folder_is_mapped_to_its_name() -> None:
    top = {package for package in SETUPTOOLS["packages"] if package.count(".") == 1}
    assert {package: package.removeprefix("lsregen.") for package in top} == FOLDERS


def test_every_data_file_is_matched_by_a_pattern() -> None:
    patterns: list[str] = SETUPTOOLS["package-data"]["*"]
    data = [file for file in sources() if not file.endswith(".py")]
    assert any(file.endswith(".safetensors") for file in data)
    assert any(file.endswith(".yaml") for file in data)
    unmatched = [
        file for file in data if not any(fnmatch.fnmatch(Path(file).name, pattern.removeprefix("**/")) for pattern in patterns)
    ]
    assert not unmatched


def test_every_entry_point_can_be_loaded() -> None:
    declared = PROJECT["project"]["entry-points"]["lsregen"]
    installed = {point.name: point for point in entry_points(group="lsregen") if point.dist and point.dist.name == "lsregen"}
    assert {name: point.value for name, point in installed.items()} == declared
    assert all(point.load() for point in installed.values())
    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "lsregen")
    assert script.value == PROJECT["project"]["scripts"]["lsregen"]
    assert callable(script.load())


def test_the_embedded_weights_stay_small() -> None:
    """In all, and each in the size that a host takes for a file."""
    files = [ROOT / file.removeprefix("lsregen/") for file in sources()]
    sizes = {file: file.stat().st_size for file in files if "shapeworld" in str(file) and file.suffix != ".py"}
    assert sum(sizes.values()) <= 45e6, f"{sum(sizes.values()) / 1e6:.1f} MB"
    assert max(sizes.values()) <= 16 * 2**20


@pytest.mark.slow
def test_a_wheel_holds_every_file_and_nothing_else(tmp_path: Path) -> None:
    copied = tmp_path / "source"
    ignored = {"pyproject.toml", "README.md", "LICENSE", *FOLDERS.values()}
    copied.mkdir()
    for name in ignored:  # building in place would leave a build folder, whose stale files setuptools packs again
        os.symlink(ROOT / name, copied / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copied)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr or result.stdout
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
    assert names == sources()
    assert "License-Expression: Apache-2.0" in metadata
