"""The recipe of the base model: its UNet, its text encoder and its autoencoder learn, and what is exported is ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.shapeworld import export, train_autoencoder, train_base
from tests.recipes.conftest import Starter, check_model, check_updates

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_it_learns_and_resumes_and_its_export_is_a_model(start: Starter, tmp_path: Path) -> None:
    run, coder = tmp_path / "run", tmp_path / "autoencoder"
    check_updates(start, train_base.main, run, networks={"unet", "text"})
    check_updates(start, train_autoencoder.main, coder, networks={"model"})
    assert export.export(tmp_path / "model", run, coder, start.images) == {"base": 2, "autoencoder": 2}
    check_model(tmp_path / "model", "shapeworld-base", run)
