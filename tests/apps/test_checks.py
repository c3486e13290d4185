"""Checks without torch: names and paths of models, folders not made yet, boxes and sizes as people type them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lsregen.apps.checks import check_folder, check_model, memory_errors, parse_size, read_box
from lsregen.framework.errors import ConfigError, LayoutError
from lsregen.framework.plugins.registry import Plugins, discover


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return discover()


def test_models_that_there_are(plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for model in ("shapeworld-base", "owner/name", "./owner", "~/owner", str(tmp_path)):
        check_model(model, plugins)
        check_model(model)


def test_a_name_is_only_judged_with_plugins(plugins: Plugins) -> None:
    for model in ("nosuch", "a/b/nosuch", "owner/no--such/", "-owner/nosuch"):
        check_model(model)
        with pytest.raises(ConfigError, match=f"model '{model}'"):
            check_model(model, plugins)
    for model in ("owner/nosuch", "stable-diffusion-v1-5/stable-diffusion-v1-5"):  # whether the hub has them, loading tells
        check_model(model, plugins)


@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (OSError(5, "Input/output error"), "Input/output error")],
)
def test_a_path_that_cannot_be_looked_at(plugins: Plugins, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str) -> None:
    def stat(_: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(ConfigError, match=rf"model '/locked/x': cannot be read \({said}\)"):
        check_model("/locked/x", plugins)


def test_names_are_cut_in_messages(plugins: Plugins) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model("x" * 5000, plugins)
    assert len(str(caught.value)) < 400


def test_a_folder_is_judged_and_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_sizes_and_boxes() -> None:
    assert [parse_size(text) for text in ("64x96", " 64 X 96 ", "64×96")] == [(64, 96)] * 3
    assert read_box("a=0,0,1,0.5").phrase == "a"
    with pytest.raises(LayoutError, match=r"divide them by the image's width and height$"):
        read_box("a=0,0,64,32")


def test_only_a_full_memory_is_translated() -> None:
    with pytest.raises(ConfigError, match=r"^not enough memory for it; buy more$"), memory_errors("for it", "buy more"):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes. Buy new RAM!")
    with pytest.raises(RuntimeError, match="shape"), memory_errors("for it", "buy more"):
        raise RuntimeError("shape")


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, lsregen.apps.checks; sys.exit(bool({'torch', 'PIL', 'numpy', 'omegaconf'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
