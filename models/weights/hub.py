"""Models by their names on the Hugging Face hub: which files of a repository are needed, and where they are on this machine.

All of it is `huggingface_hub`'s: its cache, its login, its environment variables (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ...framework.errors import CheckpointError, ConfigError
from .diffusers_folder import SETTINGS, check_index, components
from .headers import read_json
from .names import INDEX, SAFE
from .weight_files import choose_weights, is_index

SHOWN = 5  # names, in an error


def fetch_folder(name: str, revision: str | None = None, variant: str | None = None) -> Path | None:
    """The folder of the model of a name `owner/name`, in the hub's cache; None if the hub has no names of this form.

    What is not in the cache is downloaded, as far as a model needs it (see `needed_files`). Without a connection, or offline by
    choice (`HF_HUB_OFFLINE`), the cache must have it.

    Args:
        revision: a branch, a tag or a commit; None for the main branch.
        variant: which weights to download, such as `fp16`; None for the plain ones, else whichever there are.

    Raises:
        ConfigError: no such model or revision, no right to download it, or it is neither here nor to be reached.
        CheckpointError: what is there is no model of a form and a family that can be loaded.
    """
    import huggingface_hub
    from huggingface_hub import errors, utils

    hub: Any = huggingface_hub
    try:
        if name.count("/") != 1:
            return None
        utils.validate_repo_id(name)
    except errors.HFValidationError:
        return None
    which = f"model {name!r}{'' if revision is None else f', revision {revision!r}'}"
    try:
        names: list[str] = hub.HfApi().list_repo_files(name, revision=revision)
        if INDEX not in names:
            raise CheckpointError(_no_folder(which, names))
        index = hub.hf_hub_download(name, INDEX, revision=revision)
        wanted = needed_files(read_index(Path(index), f"{name}/{INDEX}"), names, variant, name)
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except errors.GatedRepoError:
        cure = f"ask for access at https://huggingface.co/{name}, and log in with `hf auth login`"
        raise ConfigError(f"{which}: its authors let in only who has asked them; {cure}") from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{which}: the hub has the model, but no such branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        cure = "check the spelling, or log in with `hf auth login` if it is private"
        raise ConfigError(f"{which}: there is no such path here, and no such model on the hub; {cure}") from None
    except CheckpointError:
        raise
    except Exception as error:  # offline, no connection, the hub is down: of several network libraries, by version
        return _cached(which, name, revision, error)


def _cached(which: str, name: str, revision: str | None, why: Exception) -> Path:
    """The folder in the cache, which is all there is without the hub."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        look_up = cast("Any", huggingface_hub).snapshot_download
        return Path(look_up(name, revision=revision, local_files_only=True, allow_patterns=[INDEX]))
    except errors.LocalEntryNotFoundError:
        offline = isinstance(why, errors.OfflineModeIsEnabled)
        reason = "HF_HUB_OFFLINE is set" if offline else f"{type(why).__name__}: {' '.join(str(why).split())[:200]}"
        cure = "unset it to download the model" if offline else "try again, or download the model's folder and give its path"
        raise ConfigError(
            f"{which}: there is no such path here, it is not in the hub's cache, and the hub cannot be asked ({reason}); {cure}"
        ) from None


def read_index(path: Path, where: str) -> dict[str, Any]:
    """A repository's index, of a family that can be loaded: gigabytes are not fetched to be refused."""
    index = read_json(path)
    check_index(index, where)
    return index


def needed_files(index: dict[str, Any], names: Sequence[str], variant: str | None, where: str) -> list[str]:
    """The files of a repository that loading it takes.

    They are the settings and one form of the weights of every component that the index lists, in safetensors, and the tokenizers.

    Raises:
        CheckpointError: a component's weights are not there in safetensors, or not in this variant.
    """
    wanted = [name for name in (INDEX, SETTINGS) if name in names]
    weighed, others = components(index)
    for part in (*weighed, *others):
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        found = [name for name in inside if name.endswith((".json", ".txt")) and not is_index(name)]
        if part in weighed:
            found += choose_weights(inside, variant, f"{where}/{part}")
        wanted += [f"{part}/{name}" for name in found if "/" not in name]
    return wanted


def _no_folder(which: str, names: Sequence[str]) -> str:
    alone = [name for name in names if name.endswith(SAFE) and "/" not in name]
    cure = f"; to use a single file ({', '.join(alone[:SHOWN])}), download it and give its path" if alone else ""
    return f"{which}: on the hub, but no model folder of diffusers, which has a {INDEX}{cure}"
