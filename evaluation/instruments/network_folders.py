"""Networks from folders as transformers saves them: loaded in one way, whatever they measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...framework.errors import CheckpointError, ConfigError, counted
from ...framework.files import is_file, shortened
from ...framework.hf_folders import network_of, without_bars


def load_folder(
    what: str,
    folder: Path,
    device: str,
    classes: Sequence[str] | Callable[[str], Sequence[str]],
    expected: str,
    *,
    dtype: str = "float32",
) -> tuple[Any, ...]:
    """The network of a folder, for use only, and what prepares its inputs.

    Weights are read from safetensors only, and all must be there: transformers would make up those that are missing.

    Args:
        what: the option that names the folder, in messages: `--detector`.
        device: as of `device_of`.
        classes: the names of transformers' classes that load it, the network's first; or a function from the type of the model
            (`yolos`) to these names.
        expected: what is expected of the folder, in messages.
        dtype: what the network computes in; `auto` for that of its weights.

    Raises:
        ConfigError: no such folder, or a device that this machine does not have.
        CheckpointError: its files are not what is expected.
    """
    from ..runs.measuring_device import device_of

    place = device_of(device)
    if not is_file(folder / "config.json"):
        raise ConfigError(f"{what} {shortened(folder)!r}: no folder with a config.json; {expected}")
    if callable(classes):
        classes = classes(str(load_part(what, folder, "AutoConfig", expected).model_type))
    others = [load_part(what, folder, name, expected) for name in classes[1:]]  # first: they are small, and may not be there
    how = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype}
    network, said = load_part(what, folder, classes[0], expected, **how)
    if missing := sorted(said["missing_keys"]):
        lacking = f"lacks {counted(len(missing), 'weight')}, {missing[0]!r} among them"
        raise CheckpointError(f"{what} {folder}: {lacking}; {_held(folder)}{expected}")
    _return_by_name(network)
    return network.eval().requires_grad_(False).to(place), *others


def _return_by_name(network: Any) -> None:
    """A folder may ask for outputs as plain tuples, for the whole network or a part of it; here they are used by their names."""
    for part in network.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, "return_dict"):
            config.return_dict = True


def load_part(what: str, folder: Path, name: str, expected: str, **how: Any) -> Any:
    """What one of transformers' classes makes of a folder; `how` is passed on to it.

    Raises:
        CheckpointError: it cannot load it.
    """
    import transformers

    try:
        with without_bars():
            part = getattr(transformers, name).from_pretrained(folder, local_files_only=True, **how)
    except Exception as error:  # transformers checks folders in its own ways, by version
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        why = f"cannot be loaded ({type(error).__name__}: {first[:300]})"
        raise CheckpointError(f"{what} {folder}: {why}; {_held(folder)}{expected}") from None
    if (names := getattr(part, "vocab_files_names", None)) is not None:
        _check_vocabulary(what, folder, dict(names), expected)
    return part


def _held(folder: Path) -> str:
    network = network_of(folder)
    return f"it holds a {network}; " if network else ""


def _check_vocabulary(what: str, folder: Path, names: dict[str, str], expected: str) -> None:
    """Without its vocabulary transformers makes a tokenizer that knows no word, and says nothing.

    Raises:
        CheckpointError: the folder has neither a whole tokenizer nor all of its pieces.
    """
    whole = names.pop("tokenizer_file", "tokenizer.json")
    lacking = [name for name in names.values() if not is_file(folder / name)]
    if not is_file(folder / whole) and (lacking or not names):
        raise CheckpointError(f"{what} {folder}: has no vocabulary, neither {whole} nor {', '.join(lacking)}; {expected}")
