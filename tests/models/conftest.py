"""Narrow random models in the layout of diffusers, built and saved by diffusers itself: the oracle for our networks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lsregen.framework.types import Step
from lsregen.models.networks.unet import UNet
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.configs import unet_config
from tests.models.small_models import FAMILIES, STEP, Oracle, build

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    return cache(lambda name: build(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def models(oracles: Callable[[str], Oracle]) -> Callable[[str], LatentDiffusion]:
    return cache(lambda name: oracles(name).load())


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow models in single files, and what lies beside them."""
    from tests.models.narrow_files import write_files

    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(params=FAMILIES)
def oracle(request: pytest.FixtureRequest, oracles: Callable[[str], Oracle]) -> Oracle:
    """Each family in turn."""
    return oracles(request.param)


@pytest.fixture
def model(oracle: Oracle, models: Callable[[str], LatentDiffusion]) -> LatentDiffusion:
    """Our model from the folder of `oracle`."""
    return models(oracle.name)


@pytest.fixture
def base(models: Callable[[str], LatentDiffusion]) -> LatentDiffusion:
    return models("base")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path, str, dict[str, Any]], Path]:
    """Makes a copy of a model folder with some settings of one JSON file changed; weights fit the changed UNet."""

    def copy(source: Path, file: str, changes: dict[str, Any]) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(source, folder)
        path = folder / file
        values = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**values, **changes}))
        if file == "unet/config.json":
            network = UNet(unet_config({**values, **changes}, file))
            save_file(network.state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        return folder

    return copy


@pytest.fixture
def step() -> Step:
    return STEP


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
