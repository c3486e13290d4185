"""What pyproject.toml promises is what the working tree holds, and what a wheel would carry."""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

import lsregen

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = sorted({package.split(".")[1] for package in SETUPTOOLS["packages"] if "." in package})
TOP = ("__init__.py", "py.typed")
NOT_INSTALLED = {"__pycache__"}
EXTRAS = ("eval", "plot")  # what a user may add; the others are for who works on lsregen
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def sources() -> set[str]:
    """Every file below the installed folders, as its place inside a wheel."""
    inside = {
        f"lsregen/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not NOT_INSTALLED & set(path.parts)
    }
    return inside | {f"lsregen/{name}" for name in TOP}


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    found = {".".join(Path(file).parent.parts) for file in sources() if file.endswith(".py")}
    assert found == set(SETUPTOOLS["packages"])


def test_every_package_has_an_init_file() -> None:
    missing = [
        package for package in SETUPTOOLS["packages"] if not (ROOT / Path(*package.split(".")[1:]) / "__init__.py").is_file()
    ]
    assert not missing


def test_every_data_file_is_matched_by_a_pattern() -> None:
    patterns = [
        f"{package.replace('.', '/')}/{pattern}" for package, found in SETUPTOOLS["package-data"].items() for pattern in found
    ]
    data = [file for file in sources() if not file.endswith(".py")]
    assert any(file.endswith(".safetensors") for file in data)
    assert any(file.endswith(".yaml") for file in data)
    unmatched = [file for file in data if not any(fnmatch.fnmatch(file, pattern.replace("**", "*")) for pattern in patterns)]
    assert not unmatched


def test_every_entry_point_can_be_loaded() -> None:
    declared = PROJECT["project"]["entry-points"]["lsregen"]
    installed = {point.name: point for point in entry_points(group="lsregen") if point.dist and point.dist.name == "lsregen"}
    assert {name: point.value for name, point in installed.items()} == declared
    assert all(point.load() for point in installed.values())
    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "lsregen")
    assert script.value == PROJECT["project"]["scripts"]["lsregen"]
    assert callable(script.load())


def distributions(requirements: Iterable[str]) -> set[str]:
    """The names in lines such as `pyright[nodejs]>=1.1`, in the one spelling that packages compare."""
    return {canonical(re.split(r"[^\w.-]", line)[0]) for line in requirements}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> Iterator[tuple[str, str]]:
    """Every module of others that the installed folders import, statement or `import_module`, and the file that does."""
    for file in (ROOT / file.removeprefix("lsregen/") for file in sources() if file.endswith(".py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found = [node.module]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found = [name.value for name in node.args[:1] if isinstance(name, ast.Constant) and isinstance(name.value, str)]
            tops = {name.split(".")[0] for name in found} - {""}  # empty: a module of ours, relative
            yield from ((top, file.relative_to(ROOT).as_posix()) for top in tops - sys.stdlib_module_names)


def test_every_imported_package_is_declared_and_every_declared_one_is_imported() -> None:
    owners = {module: {canonical(name) for name in names} for module, names in packages_distributions().items()}
    core = distributions(PROJECT["project"]["dependencies"])
    extras = distributions(line for extra in EXTRAS for line in PROJECT["project"]["optional-dependencies"][extra])
    found = [(module, file) for module, file in imported() if module != "lsregen"]
    assert {"torch", "yaml", "scipy", "matplotlib"} <= {module for module, _ in found}
    undeclared = {(module, file) for module, file in found if not owners.get(module, {module}) & (core | extras)}
    assert not undeclared
    used = {name for module, _ in found for name in owners.get(module, {module})}
    assert not (core | extras) - used


def test_release_files_agree_on_the_version() -> None:
    version = Version(lsregen.__version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(
        r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert released[0] == (citation["version"], citation["date-released"].isoformat())
    latest = Version(citation["version"])
    assert version == latest or (version.is_devrelease and version > latest)


def test_every_python_that_is_declared_is_tried() -> None:
    project = PROJECT["project"]
    declared = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    tried = [job["strategy"]["matrix"]["python"] for job in jobs() if "strategy" in job]
    assert tried == [declared]
    assert project["requires-python"] == f">={declared[0]}"


def jobs() -> Iterator[dict[str, Any]]:
    for workflow in WORKFLOWS:
        yield from yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [*WORKFLOWS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md"]
    for page in pages:
        named = set(re.findall(r"(?:^|run: |`)make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named, page
        assert named <= targets, page


def test_the_portable_run_names_tests_that_exist() -> None:
    done = subprocess.run(["make", "-n", "portable"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"\btests/[\w/.]+", done.stdout))
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_contributing_names_files_and_markers_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = "|".join([*FOLDERS, "tests", "docs", "examples"])
    paths = {path for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text) if not re.search(r"NAME|METHOD", path)}
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]
    assert not [link for link in re.findall(r"\]\(([^):#]+)\)", text) if not (ROOT / link).exists()]
    shown = set(re.findall(r"^\| `(\w+)` \|.*\|.*`make ", text, re.MULTILINE))
    assert shown == {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}


def test_the_embedded_weights_stay_small() -> None:
    """In all, and each in the size that a host takes for a file."""
    files = [ROOT / file.removeprefix("lsregen/") for file in sources()]
    sizes = {file: file.stat().st_size for file in files if "shapeworld" in str(file) and file.suffix != ".py"}
    assert sum(sizes.values()) <= 45e6, f"{sum(sizes.values()) / 1e6:.1f} MB"
    assert max(sizes.values()) <= 16 * 2**20


@pytest.mark.long
def test_a_wheel_holds_every_file_and_nothing_else(tmp_path: Path) -> None:
    copied = tmp_path / "source"
    ignored = {"pyproject.toml", "README.md", "LICENSE", *TOP, *FOLDERS}
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
