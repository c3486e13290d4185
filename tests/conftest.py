"""Tests are stricter than production: deterministic kernels, few threads, warnings are errors (see pyproject.toml)."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # tiny tensors: on busy cores, threads that wait for each other cost a hundredfold
