"""Where a network runs and in which numbers: the one place that knows names of devices."""

from __future__ import annotations

import torch

from ...framework.errors import ConfigError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
HOME = torch.device("cpu")  # where networks wait that are offloaded


def resolve(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and dtype that two names mean.

    `auto` is the first device there is of cuda, mps and cpu, and the dtype that suits it: fp16 on cuda, fp32 elsewhere. A cuda
    device may carry a number, as in `cuda:1`; the device that is returned has one, as those of tensors have.

    Raises:
        ConfigError: an unknown name of a device, or a device that this machine does not have.
    """
    place = _device(device)
    if dtype == "auto":
        return place, torch.float16 if place.type == "cuda" else torch.float32
    return place, DTYPES[dtype]


def _device(given: str) -> torch.device:
    there = {"cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0, "mps": int(torch.backends.mps.is_available())}
    if given == "auto":
        given = next((name for name, count in there.items() if count), "cpu")
    name, colon, number = given.partition(":")
    if name not in DEVICES or name == "auto" or (colon and not (number.isascii() and number.isdigit())):
        raise ConfigError(f"device {given!r}: expected one of {', '.join(DEVICES)}, or one with a number{nearest(name, DEVICES)}")
    count, wanted = there.get(name, 1), int(number or 0)
    if wanted >= count:
        has = f"only {count} of them, counted from 0" if count else "none"
        raise ConfigError(f"device {given!r}: this machine has {has}; use 'auto' or 'cpu'")
    if name == "cpu":
        return HOME
    if not number:  # by its number, as its tensors name it
        wanted = torch.cuda.current_device() if name == "cuda" and torch.cuda.is_initialized() else 0
    return torch.device(name, wanted)
