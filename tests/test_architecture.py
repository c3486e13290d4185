"""The three floors of the house, and what may stand in a library file: read from the sources, not from a running program."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "framework": set[str](),
    "models": {"framework"},
    "samplers": {"framework"},
    "extractors": {"framework"},
    "distances": {"framework"},
    "evaluation": {"framework"},
    "apps": {"framework", "evaluation"},
}
FILES = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]
PACKAGES = sorted(ROOT.glob("plugins/*/src/*/*.py"))
MOST_LINES = 400


def named(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("file", FILES, ids=named)


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, with its number of leading dots; inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)


def folder_of(file: Path, level: int, module: str) -> str | None:
    """The folder of ours that a relative import reaches; None for one that stays at home or is absolute."""
    if level == 0:
        return None
    up = file.relative_to(ROOT).parts[:-1]
    assert level <= len(up) + 1, f"{named(file)} reaches above the house"
    reached = (*up[: len(up) - level + 1], *module.split("."))
    return None if reached[0] == up[0] else reached[0]


def test_every_folder_of_the_house_is_looked_at() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == set(MAY_IMPORT)


@each_file
def test_imports_point_down(file: Path) -> None:
    reached = {folder for level, module in imported(file) if (folder := folder_of(file, level, module))}
    assert reached <= MAY_IMPORT[file.relative_to(ROOT).parts[0]]


@each_file
def test_lsregen_is_imported_relatively(file: Path) -> None:
    absolute = [module for level, module in imported(file) if level == 0 and module.split(".")[0] in ("lsregen", *MAY_IMPORT)]
    assert not absolute


@each_file
def test_no_file_imports_a_test_dependency(file: Path) -> None:
    foreign = {"diffusers", "pytest", "hypothesis", "pickle", "dill", "joblib"}
    assert not foreign & {module.split(".")[0] for level, module in imported(file) if level == 0}


@pytest.mark.parametrize("file", [*FILES, *PACKAGES], ids=named)
def test_no_file_is_longer_than_a_reader_can_hold(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("file", [*FILES, *PACKAGES], ids=named)
def test_no_file_unpickles(file: Path) -> None:
    """The converter may, with torch's restricted reader, which executes nothing."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    loads = [node for node in calls if ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads")]
    restricted = [node for node in loads if "weights_only=True" in map(ast.unparse, node.keywords)]
    assert loads == (restricted if file == ROOT / "models" / "weights" / "unpickle.py" else [])


def test_one_file_of_the_library_knows_the_names_of_devices() -> None:
    def names_cuda(file: Path) -> bool:
        """A string that is `cuda` or `cuda:1`, whether it stands alone or in a comparison; help texts may speak of it."""
        values = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
        return any(isinstance(value, str) and value.split(":")[0] == "cuda" for value in values)

    assert [named(file) for file in FILES if names_cuda(file)] == ["models/runtime/devices.py"]


def modules() -> dict[str, Path]:
    """Every file of the project as the module that Python knows it by."""
    folders = (*MAY_IMPORT, "recipes", "benchmarks", "tests")
    found = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file for name in folders for file in (ROOT / name).rglob("*.py")
    }
    found |= {".".join(file.with_suffix("").parts[-2:]): file for file in PACKAGES}
    return {name.removesuffix(".__init__"): file for name, file in found.items()}


def graph() -> dict[str, set[str]]:
    """Which of them each imports, inside functions and `if TYPE_CHECKING` too."""
    known = modules()
    arrows: dict[str, set[str]] = {}
    for module, file in known.items():
        package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
        arrows[module] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*start, *([node.module] if node.module else [])])
                names = [
                    name if (name := f"{base}.{alias.name}").removeprefix("lsregen.") in known else base for alias in node.names
                ]
            else:
                continue
            arrows[module] |= {name.removeprefix("lsregen.") for name in names} & known.keys() - {module}
    return arrows


def test_no_two_files_import_each_other_by_any_way() -> None:
    TopologicalSorter(graph()).prepare()  # a CycleError names the circle


def run(*command: str) -> None:
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr or result.stdout


HEAVY = "heavy = sorted({'torch', 'transformers', 'omegaconf', 'PIL', 'numpy'} & set(sys.modules)); assert not heavy, heavy"


def test_importing_the_public_module_imports_nothing_heavy() -> None:
    run("-c", f"import sys; import lsregen.framework; {HEAVY}")


def test_help_imports_nothing_heavy() -> None:
    run("-c", f"import sys\nfrom lsregen.apps.cli import main\nsys.argv = ['lsregen', '--help']\ntry: main()\nexcept SystemExit as e: assert not e.code\n{HEAVY}")  # fmt: skip  # noqa: E501


def test_every_public_name_can_be_imported_and_is_listed_once() -> None:
    import lsregen.framework as public

    assert len(set(public.__all__)) == len(public.__all__)
    assert all(getattr(public, name) is not None for name in public.__all__)
    assert set(public.__all__) <= set(dir(public))
    tree = ast.parse((ROOT / "framework" / "__init__.py").read_text())
    known_to_type_checkers = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert known_to_type_checkers == set(public.__all__)


def test_a_name_that_is_not_public_is_refused_as_python_does() -> None:
    import lsregen.framework as public

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = public.Nothing  # type: ignore[attr-defined]
