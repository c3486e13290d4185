"""Where the networks that measure run."""

from __future__ import annotations

import torch

from ...framework.errors import ConfigError


def device_of(name: str) -> torch.device:
    """The device of a name of torch's; `auto` is this machine's accelerator, or the CPU.

    Raises:
        ConfigError: an unknown name, or a device that this machine does not have.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found if found is not None else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r}: not a device of torch; expected auto, cpu or {found or 'an accelerator'}") from None
    count = torch.accelerator.device_count() if found is not None else 0
    if device.type != "cpu" and (found is None or device.type != found.type or (device.index or 0) >= count):
        raise ConfigError(f"device {name!r}: this machine has {f'{count} of {found}' if found else 'none'}; use auto or cpu")
    return device
