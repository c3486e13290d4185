"""The models of `tests/models`, and walks through whole pipelines of diffusers with our noise in their schedulers."""

from __future__ import annotations

from tests.models.conftest import base, copied, files, model, models, oracle, oracles, seeded, step

__all__ = ["base", "copied", "files", "model", "models", "oracle", "oracles", "seeded", "step"]
