"""A model in one file: recognised, described as a diffusers folder would describe it, its tensors read one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from safetensors import safe_open  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from ...framework.errors import CheckpointError, counted, nearest
from ...framework.files import is_file, shortened
from .headers import read_header
from .key_maps import Shape, Source
from .recognise import AUTOENCODER_PREFIXES, NAMES, Component, Naming, Recognised, recognise
from .structure import PREDICTIONS, Told, autoencoder_values, read_told, scheduler_values, text_values, unet_values

log = logging.getLogger(__name__)

SHOWN = 10  # keys of a kind, in an error
SHOWN_LANDMARKS = 3
TITLES: Mapping[Naming, str] = MappingProxyType(
    {"unet": "its UNet", "autoencoder": "its autoencoder", "clip": "its text encoder", "open_clip": "its text encoder"}
)
TOWER = tuple(
    f"text_model.{key}.weight"
    for key in ("embeddings.token_embedding", "embeddings.position_embedding", "encoder.layers.0.mlp.fc1", "final_layer_norm")
)
LANDMARKS: Mapping[Naming, tuple[str, ...]] = MappingProxyType(
    {
        "unet": (
            "conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight",
            "mid_block.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight", "conv_out.weight",
        ),
        "autoencoder": tuple(
            f"{side}.{key}.weight"
            for side in ("encoder", "decoder")
            for key in ("conv_in", "mid_block.resnets.0.conv1", "conv_out")
        ),
        "clip": TOWER,
        "open_clip": TOWER,
    }
)  # fmt: skip
"""Tensors that every network of a kind has, in our names."""
YAMLS = (".yaml", ".yml")
LIKE_STRUCTURE = frozenset({"sd1", "sd2"})  # families of which a file may be either, as far as its UNet tells


@dataclass(frozen=True, eq=False)
class FileTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, read when they are asked for and kept by nobody.

    They are views of the mapped file, in its dtypes and on the CPU.
    """

    path: Path
    shapes: Mapping[str, Shape]

    @cached_property
    def _file(self) -> Any:
        return cast("Any", safe_open)(self.path, framework="pt")

    def __getitem__(self, key: str) -> Tensor:
        return self._file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True, eq=False)
class NamedTensors(Mapping[str, Tensor]):
    """The tensors of a network by their keys in it, made of a file's when they are asked for."""

    tensors: Mapping[str, Tensor]
    sources: Mapping[str, Source]

    def __getitem__(self, key: str) -> Tensor:
        source = self.sources[key]
        return source.apply(self.tensors[source.key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class Contents:
    """What is in a file of weights, whatever its form: its tensors by key, and the texts stored beside them."""

    path: Path
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]  # by the names of safetensors, as `F16`
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def read_contents(path: Path) -> Contents:
    """The contents of a safetensors file; no tensor is read yet.

    Raises:
        CheckpointError: as `read_header`.
    """
    header = read_header(path)
    dtypes = {key: entry.dtype for key, entry in header.entries.items()}
    return Contents(path, FileTensors(path, header.shapes), header.shapes, dtypes, header.metadata)


@dataclass(frozen=True)
class SingleFile:
    """A file of weights, opened.

    `configs`: by component, what the `config.json` of a diffusers folder would hold, and `scheduler` beside a UNet. `learnt`:
    where the family and the kind of prediction were learnt. `family` and `prediction` may be the user's, against `found`.
    """

    contents: Contents
    found: Recognised
    family: str
    prediction: str | None
    configs: Mapping[str, Mapping[str, Any]]
    learnt: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def path(self) -> Path:
        return self.contents.path

    def weights(self, component: str) -> NamedTensors:
        """The tensors of a component, by the keys of our networks."""
        return NamedTensors(self.contents.tensors, self.found.components[component].keys.sources)

    def tell_of_ignored(self) -> None:
        """Warn of keys that the model does not use."""
        if self.found.ignored:
            log.warning("%s: %s", self.path, self.found.says_ignored)


def open_single_file(
    path: Path, *, family: str | None = None, prediction_type: str | None = None, autoencoder: bool = True
) -> SingleFile:
    """The model, autoencoder or text encoder in a safetensors file. Arguments and errors are those of `understand`.

    `autoencoder`: whether its autoencoder is looked at; where another one is taken, its own may be broken.
    """
    contents = read_contents(path)
    if not autoencoder:
        kept = {key: shape for key, shape in contents.shapes.items() if not key.startswith(AUTOENCODER_PREFIXES[:-1])}
        contents = replace(contents, shapes=kept)
    single = understand(contents, family=family, prediction_type=prediction_type)
    single.tell_of_ignored()
    return single


def understand(contents: Contents, *, family: str | None = None, prediction_type: str | None = None) -> SingleFile:
    """The model, autoencoder or text encoder in a file. `family` and `prediction_type` (`epsilon`, `v_prediction`) override.

    What shapes do not tell comes from the arguments, then from a yaml of the same name beside the file, then from the file's own
    metadata, then from the rule of the family.

    Raises:
        CheckpointError: the file cannot be read, is damaged, is of no supported family, has keys inside of a component that
            belong to nothing in it, or does not tell what it predicts.
    """
    path = contents.path
    found = recognise(contents.shapes, contents.metadata, str(path))
    if found.refusal is not None:
        raise CheckpointError(f"{path}: {found.refusal}")
    if found.unknown:
        shown = "\n    ".join(shortened(key) for key in found.unknown[:SHOWN])
        raise CheckpointError(f"{path}: {len(found.unknown)} keys belong to nothing in {NAMES[found.family]}:\n    {shown}")
    told, learnt = told_beside(path), dict(found.learnt)
    name = found.family
    if family is not None:
        name, learnt["family"] = _overridden(path, found, family), "the argument family"
    kind = _prediction(path, found, told, prediction_type, learnt) if "unet" in found.components else None
    if found.zero_terminal_snr and kind == "eps":
        raise CheckpointError(
            f"{path}: its key ztsnr says that it was trained down to no signal at all, which only a model that predicts v can "
            f"be, and it is taken to predict epsilon (by {learnt['prediction']}); if it predicts v, as a key v_pred would say, "
            "pass prediction_type=v_prediction (--prediction-type v_prediction)"
        )
    for part, component in found.components.items():
        _check_whole(path, part, component)
    try:
        configs = _configs(name, kind, found, told)
    except (LookupError, ValueError) as error:
        what = "a tensor from which the size of a network is read is missing or of an odd shape"
        raise CheckpointError(f"{path}: damaged, {what} ({error}); download it again") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    return SingleFile(contents, found, name, kind, MappingProxyType(configs), MappingProxyType(learnt))


def _overridden(path: Path, found: Recognised, family: str) -> str:
    """The family that the user says; only that of a text tower is open to doubt, for all else shows in the weights."""
    name = _known("family", family, tuple(NAMES))
    if name != found.family and not {name, found.family} <= LIKE_STRUCTURE:
        raise CheckpointError(
            f"{path}: family is {name!r}, but this is {NAMES[found.family]}, told by {found.learnt['family']}; the weights of "
            f"{NAMES[name]} are others: take a file of it, or leave family out"
        )
    return name


def _check_whole(path: Path, name: str, component: Component) -> None:
    """Whether a component has what every network of its kind has.

    Raises:
        CheckpointError: it has not; a file that lacks little is damaged, and one that lacks much was never a whole network.
    """
    landmarks = LANDMARKS[component.naming]
    missing = [key for key in landmarks if key not in component.shapes]
    if not missing:
        return
    shown, title = ", ".join(missing[:SHOWN_LANDMARKS]), TITLES[component.naming]
    if 3 * len(missing) <= len(landmarks):
        raise CheckpointError(f"{path}: damaged, {title} ({name}) lacks {shown}; download it again")
    half = next(
        (side for side in ("encoder", "decoder") if not any(key.startswith(f"{side}.") for key in component.shapes)), None
    )
    if component.naming == "autoencoder" and half is not None:
        raise CheckpointError(f"{path}: {title} ({name}) has no {half}; expected both halves, or give another one as the vae")
    raise CheckpointError(
        f"{path}: only {counted(len(component.shapes), 'tensor')} of {title} ({name}): it lacks {shown}, so this is no whole "
        "network; expected a whole model"
    )


def _configs(family: str, prediction: str | None, found: Recognised, told: Told) -> dict[str, Mapping[str, Any]]:
    configs: dict[str, Mapping[str, Any]] = {}
    towers = [name for name in found.components if name not in ("unet", "vae")]
    for name, component in found.components.items():
        if name == "unet":
            configs[name] = unet_values(family, prediction, found.components, told)
        elif name == "vae":
            configs[name] = autoencoder_values(family, component, told)
        else:
            configs[name] = text_values(component, told, towers.index(name))
    if prediction is not None:
        configs["scheduler"] = scheduler_values(prediction, found.zero_terminal_snr, told)
    return configs


def _prediction(path: Path, found: Recognised, told: Told, given: str | None, learnt: dict[str, str]) -> str:
    """What the UNet predicts, `eps` or `v`, from the strongest source that tells."""
    if given is not None:
        learnt["prediction"] = "the argument prediction_type"
        names = {name: kind for kind, name in PREDICTIONS.items()}
        return names[_known("prediction_type", given, tuple(names))]
    if told.prediction is not None:
        learnt["prediction"] = told.where
        return told.prediction
    if found.prediction is None:
        raise CheckpointError(
            f"{path}: nothing tells whether this model predicts the noise or v, and {NAMES[found.family]} comes in both kinds; "
            f"pass prediction_type=epsilon or v_prediction (the 768 px models), or put its yaml beside it as {path.stem}.yaml"
        )
    return found.prediction


def told_beside(path: Path) -> Told:
    """What the yaml beside a file tells, if there is one."""
    beside = next((yaml for end in YAMLS if is_file(yaml := path.with_suffix(end))), None)
    return Told() if beside is None else read_told(beside)


def _known(what: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise CheckpointError(f"{what} is {value!r}; expected one of {', '.join(known)}{nearest(value, known)}")
    return value
