"""lsregen: backward guidance for text-to-image diffusion. The names of `lsregen.framework`, each imported on first use.

from lsregen import Guidance, Layout, Pipeline, Schedule, Term
from lsregen.distances import BoxEnergy
from lsregen.extractors import CrossAttention
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Absolute, because pytest runs this file by itself, as the package of the folder in which it finds the tests.
from lsregen.framework import HOMES
from lsregen.framework import __all__ as __all__
from lsregen.framework.lazy import lazily

if TYPE_CHECKING:
    from lsregen.framework import *  # noqa: F403

__version__ = "0.2.0.dev0"

__getattr__, __dir__ = lazily("lsregen", {f"framework.{home}": names for home, names in HOMES.items()})
