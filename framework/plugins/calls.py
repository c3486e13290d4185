"""The one door for what the code of a plugin raises: an error that names the plugin, where it was called, and its package."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import LsregenError, PluginError
from .distributions import distribution_of

MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch says, in RuntimeErrors of its own, of a full CUDA or MPS device, and of the CPU on Windows and elsewhere."""

FINDS = {"extractor": "check_extractor", "distance": "check_distance", "sampler": "check_sampler", "detector": "check_detector"}


@contextmanager
def calling(where: str, kind: str, plugin: object, method: str = "") -> Generator[None]:
    """A call into a plugin: an error of its code is told of the plugin, with the original one as its cause. So is `sys.exit`.

    Args:
        where: what the call was made for, such as `term 'pull' at step 3`; may be empty.
        kind: `extractor`, `distance`, `sampler`, `model loader`, ...
        plugin: the instance or the class.
        method: what was called, if it is not the plugin itself.

    Raises:
        PluginError: the block raised; lsregen's own errors, an interruption and a lack of memory stay as they are.
    """
    try:
        yield
    except LsregenError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        cls = plugin if isinstance(plugin, type) else type(plugin)
        package = f" of {found}" if (found := distribution_of(cls)) else ""
        called = f"{method} of " if method else ""
        hint = f"; lsregen.framework.testing.{FINDS[kind]}({cls.__name__}(...)) finds this" if kind in FINDS else ""
        what = f"{where}: " if where else ""
        raise PluginError(f"{what}{called}{kind} {cls.__name__}{package} raised {raised(error)}{hint}") from error


def raised(error: BaseException) -> str:
    """An error by its type and what it says."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on whatever device. Told without importing torch."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in MEMORY)
