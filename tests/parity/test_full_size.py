"""The networks of every family at full size, on the meta device: the same keys and shapes as diffusers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lsregen.models.networks.autoencoder import Autoencoder
from lsregen.models.networks.unet import UNet
from lsregen.models.weights.configs import autoencoder_config, unet_config
from tests.models import ldm_layout as layout

pytestmark = pytest.mark.slow

# Tensors and parameters, as published.
COUNTS = {
    "sd1": (686, 859_520_964),
    "sd2": (686, 865_910_724),
    "sdxl": (1680, 2_567_463_684),
    "gligen": (966, 1_068_623_204),
    "gligen-text-image": (973, 1_069_707_108),
}


def ours(network: type[torch.nn.Module], config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return network(config)


@pytest.mark.parametrize("family", list(COUNTS))
def test_unets(family: str) -> None:
    theirs = layout.unet(family, narrow=False)
    unet = ours(UNet, unet_config(dict(theirs.config), family))
    expected = layout.shapes(theirs.state_dict())
    assert layout.shapes(unet.state_dict()) == expected
    assert (len(expected), sum(parameter.numel() for parameter in unet.parameters())) == COUNTS[family]


def test_the_autoencoder() -> None:
    theirs = layout.autoencoder(narrow=False)
    autoencoder = ours(Autoencoder, autoencoder_config(dict(theirs.config), "vae"))
    assert layout.shapes(autoencoder.state_dict()) == layout.shapes(theirs.state_dict())
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == 83_653_863
