"""The peak of memory during one piece of work, as honestly as the device can tell it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

Peak: TypeAlias = Callable[[], int | None]

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # of the resident set; see proc_pid_clear_refs(5)


def watch(device: str | torch.device) -> Peak:
    """Begin to watch; the function that is returned tells the peak in bytes since then, or None if it cannot be known.

    On an accelerator: the most that torch had allocated on the device, weights included. On a CPU: how far the process's private
    memory rose above what it was at the start, weights excluded; by the kernel's own mark of the most, so no short peak is
    missed. Linux alone has that mark. Other threads of the process count too. Freed memory is given back first, so that an
    earlier piece of work does not lower the number; an allocator other than glibc's (a preloaded jemalloc) may keep it, which
    would make all but the first numbers too low, so that nothing is told.
    """
    module = torch.get_device_module(device)
    if not hasattr(module, "reset_peak_memory_stats"):
        return _watch_process()
    module.reset_peak_memory_stats(device)
    return lambda: int(module.max_memory_allocated(device))


def _watch_process() -> Peak:
    gc.collect()
    try:
        if not _allocator().startswith("libc.so"):
            return lambda: None
        ctypes.CDLL(None).malloc_trim(0)  # gives freed memory back
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
        before = _status()["RssAnon"]
    except (OSError, KeyError, TypeError, AttributeError):  # another system, or a sandbox without these files
        return lambda: None

    def peak() -> int:
        now = _status()
        # The mark counts mapped files too, such as the code of libraries, which hardly ever leave the memory again.
        return max(0, now["VmHWM"] - now["RssFile"] - now["RssShmem"] - before)

    return peak


class _Symbol(ctypes.Structure):
    """What dladdr(3) tells of an address."""

    _fields_ = (("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("address", ctypes.c_void_p))


def _allocator() -> str:
    """The name of the library whose malloc this process uses: `libc.so.6` is glibc's own. Without dladdr an AttributeError."""
    process, symbol = ctypes.CDLL(None), _Symbol()
    process.dladdr(ctypes.cast(process.malloc, ctypes.c_void_p), ctypes.byref(symbol))
    return Path((symbol.file or b"").decode()).name


def _status() -> dict[str, int]:
    """The sizes in the process's status, in bytes."""
    lines = (line.split() for line in (_PROCESS / "status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
