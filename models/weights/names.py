"""The names that files of weights go by."""

from __future__ import annotations

INDEX = "model_index.json"
SAFE, PICKLES = ".safetensors", (".ckpt", ".pt", ".pth", ".bin")
