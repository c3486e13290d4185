"""From the names in a single file of weights (LDM, sgm, OpenCLIP, older diffusers) to the names of our networks.

A map is computed from the file's keys alone and says, for each key of a network, which key of the file it comes from and what is
done with the tensor on the way. Names are rewritten by their start: a table of modules, derived from which modules the file has,
then a table of what is inside a module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from ...framework.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Change: TypeAlias = Literal["keep", "matrix", "transpose", "query", "key", "value"]
THIRDS: Mapping[Change, int] = MappingProxyType({"query": 0, "key": 1, "value": 2})  # of a packed projection, in this order

# Keys that training leaves behind and no network needs. Whatever else is left over is reported.
HARMLESS = re.compile(
    r"""(.*\.)?(position_ids|logit_scale|attn_mask|logvar|lvlb_weights)
    |(.*\.)?model_ema\..*                                                    # running means of weights, under flattened names
    |(.*\.)?loss\..*                                                         # the discriminator of an autoencoder's training
    |(model\.)?(betas|alphas_cumprod.*|sqrt_.*|log_one_minus_.*|posterior_.*)   # the noise schedule, as tables
    |denoiser\..*|global_step|scale_factor|v_pred|ztsnr
    |(cond_stage_model|conditioner\.embedders\.\d)\.model\.visual\..*        # the image half of a CLIP
    """,
    re.VERBOSE,
)

UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "position_net": "position_net",  # GLIGEN's, as is the fuser inside a transformer block: both keep their names
}
UNET_INSIDE = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

AUTOENCODER_ENDS = {
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
    **{
        f"{side}.{old}": f"{side}.{new}"
        for side in ("encoder", "decoder")
        for old, new in {
            "conv_in": "conv_in",
            "mid.block_1": "mid_block.resnets.0",
            "mid.attn_1": "mid_block.attentions.0",
            "mid_block.attentions.0": "mid_block.attentions.0",
            "mid.block_2": "mid_block.resnets.1",
            "norm_out": "conv_norm_out",
            "conv_out": "conv_out",
        }.items()
    },
}
AUTOENCODER_INSIDE = {
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    **dict.fromkeys(("q", "query"), "to_q"),  # the second names: diffusers before 0.17
    **dict.fromkeys(("k", "key"), "to_k"),
    **dict.fromkeys(("v", "value"), "to_v"),
    **dict.fromkeys(("proj_out", "proj_attn"), "to_out.0"),
}
AUTOENCODER_BLOCK = re.compile(r"(encoder|decoder)\.(?:down|up)\.(\d+)\.(?:block\.(\d+)|(down|up)sample)")
ATTENTION_MATRIX = re.compile(r".*\.mid_block\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight")

CLIP = "text_model."
OPEN_CLIP_ENDS = {
    "token_embedding": f"{CLIP}embeddings.token_embedding",
    "positional_embedding": f"{CLIP}embeddings.position_embedding.weight",
    "ln_final": f"{CLIP}final_layer_norm",
    "text_projection": "text_projection.weight",
    "text_projection.weight": "text_projection.weight",
}
OPEN_CLIP_INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
OPEN_CLIP_LAYER = re.compile(r"transformer\.resblocks\.(\d+)")
PACKED = re.compile(r"(transformer\.resblocks\.\d+)\.attn\.in_proj_(weight|bias)")
CUT_LAYERS = 23  # of the tower of Stable Diffusion 2, once its last layer is left out


@dataclass(frozen=True)
class Source:
    """Where a tensor of a network comes from: a key of the file, and what becomes of its tensor.

    `change`: `matrix` makes a 1x1 convolution `[o i 1 1]` a matrix `[o i]`; `query`, `key`, `value` are the thirds of a packed
    projection `[3*o ...]`.
    """

    key: str
    change: Change = "keep"

    def shape(self, given: Shape) -> Shape:
        """The shape of the network's tensor when the file's has the shape `given`."""
        if self.change in THIRDS:
            return (given[0] // 3, *given[1:])
        return {"matrix": given[:2], "transpose": given[::-1]}.get(self.change, given)

    def apply(self, tensor: Tensor) -> Tensor:
        """The network's tensor: a view of the file's, except that a transposed one is a copy."""
        if self.change in THIRDS:
            return tensor.chunk(3)[THIRDS[self.change]]
        if self.change == "matrix":
            return tensor.reshape(tensor.shape[:2])
        return tensor.T.contiguous() if self.change == "transpose" else tensor


@dataclass(frozen=True)
class KeyMap:
    """The sources of a network's tensors by their key in the network, and the keys of the file that have no place there.

    `dropped`: known, and left out on purpose; `unknown`: nobody knows what they are.
    """

    sources: Mapping[str, Source]
    dropped: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def shapes(self, given: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes of the network's tensors, from those of the file's."""
        return {target: source.shape(given[source.key]) for target, source in self.sources.items()}


def is_harmless(key: str) -> bool:
    """Whether a key of a file may be ignored wherever it occurs."""
    return HARMLESS.fullmatch(key) is not None


def unet_map(keys: Iterable[str], prefix: str = "") -> KeyMap:
    """The keys of a UNet that begin with `prefix`, in the names of LDM or already in those of diffusers.

    Raises:
        CheckpointError: two keys stand for the same weight.
    """
    names = _names(keys, prefix)
    if _has(names, "down_blocks.", "up_blocks."):
        return _collect(names, prefix, lambda name: [(name, "keep")])
    modules = _unet_modules(_modules(names))
    return _collect(names, prefix, lambda name: [(_rename(name, modules, UNET_INSIDE), "keep")])


def autoencoder_map(keys: Iterable[str], prefix: str = "") -> KeyMap:
    """The keys of an autoencoder that begin with `prefix`, in the names of LDM, or of diffusers, old and new.

    Raises:
        CheckpointError: two keys stand for the same weight.
    """
    names = _names(keys, prefix)
    modules = {**AUTOENCODER_ENDS, **_autoencoder_modules(_modules(names))}
    current = _has(names, "encoder.down_blocks.", "decoder.up_blocks.")

    def places(name: str) -> list[tuple[str | None, Change]]:
        target = _rename(name, modules, AUTOENCODER_INSIDE) or (name if current else None)
        return [(target, "matrix" if target and ATTENTION_MATRIX.fullmatch(target) else "keep")]

    return _collect(names, prefix, places)


def clip_map(keys: Iterable[str], prefix: str = "", *, projection: bool = False) -> KeyMap:
    """The keys of a CLIP text tower of `transformers` that begin with `prefix`, as `text_model.*` also where the file omits it.

    `projection`: whether the pooled embedding's projection belongs to the network.

    Raises:
        CheckpointError: two keys stand for the same weight.
    """

    def places(name: str) -> list[tuple[str | None, Change]]:
        if name.startswith("text_projection."):
            return [(name, "keep")] if projection else []
        inside = name.removeprefix(CLIP)
        return [(CLIP + inside if inside.startswith(("embeddings.", "encoder.", "final_layer_norm.")) else None, "keep")]

    return _collect(_names(keys, prefix), prefix, places)


def open_clip_map(keys: Iterable[str], prefix: str = "", *, penultimate: bool = False) -> KeyMap:
    """The keys of an OpenCLIP text tower that begin with `prefix`.

    `penultimate`: as Stable Diffusion 2 uses it, without the last layer and the projection. A tower that other software has
    written in this form already, which is told by its 23 layers, stays as it is.

    Raises:
        CheckpointError: two keys stand for the same weight.
    """
    names = _names(keys, prefix)
    layers = {head: int(found[1]) for head in _modules(names) if (found := OPEN_CLIP_LAYER.fullmatch(head))}
    modules = {**OPEN_CLIP_ENDS, **{head: f"{CLIP}encoder.layers.{i}" for head, i in layers.items()}}
    last = f"transformer.resblocks.{len(layers) - 1}."
    left_out = ("text_projection", *([last] if len(layers) != CUT_LAYERS else [])) if penultimate else ()

    def places(name: str) -> list[tuple[str | None, Change]]:
        if left_out and name.startswith(left_out):
            return []
        if found := PACKED.fullmatch(name):
            layer, kind = modules[found[1]], found[2]
            return [(f"{layer}.self_attn.{change[0]}_proj.{kind}", change) for change in THIRDS]
        return [(_rename(name, modules, OPEN_CLIP_INSIDE), "transpose" if name == "text_projection" else "keep")]

    return _collect(names, prefix, places)


def _unet_modules(present: set[str]) -> dict[str, str]:
    """Where the blocks of an LDM UNet, which are numbered through, are in ours, which are numbered by level."""
    table = dict(UNET_ENDS)
    level, j = 0, 0
    for n in range(1, _count(present, "input_blocks")):
        block = f"input_blocks.{n}"
        if f"{block}.0.op" in present:
            table[f"{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, j = level + 1, 0
        else:
            table |= {f"{block}.0": f"down_blocks.{level}.resnets.{j}", f"{block}.1": f"down_blocks.{level}.attentions.{j}"}
            j += 1
    level, j = 0, 0
    for n in range(_count(present, "output_blocks")):
        block = f"output_blocks.{n}"
        table |= {f"{block}.0": f"up_blocks.{level}.resnets.{j}", f"{block}.1": f"up_blocks.{level}.attentions.{j}"}
        j += 1
        # The upsampling comes last in its block: second where the level has no attention, else third.
        if (at := next((place for place in (f"{block}.1", f"{block}.2") if f"{place}.conv" in present), None)) is not None:
            table[at] = f"up_blocks.{level}.upsamplers.0"
            level, j = level + 1, 0
    return table


def _autoencoder_modules(present: set[str]) -> dict[str, str]:
    """Where the blocks of an LDM autoencoder are in ours, whose decoder counts its levels the other way: from coarse to fine."""
    top = _count(present, "decoder.up") - 1
    table: dict[str, str] = {}
    for head in present:
        if found := AUTOENCODER_BLOCK.fullmatch(head):
            side, level, j = found[1], int(found[2]), found[3]
            block = f"encoder.down_blocks.{level}" if side == "encoder" else f"decoder.up_blocks.{top - level}"
            table[head] = f"{block}.{found[4]}samplers.0" if j is None else f"{block}.resnets.{j}"
    return table


def _collect(names: Mapping[str, str], prefix: str, places: Callable[[str], list[tuple[str | None, Change]]]) -> KeyMap:
    """The map of a component, from what says where each name goes: to no place (dropped), to None (unknown), or to some."""
    sources: dict[str, Source] = {}
    dropped: list[str] = []
    unknown: list[str] = []
    for name, key in names.items():
        if is_harmless(key) or is_harmless(name):
            dropped.append(key)
            continue
        found = places(name)
        if not found:
            dropped.append(key)
        for target, change in found:
            if target is None:
                unknown.append(key)
            elif target in sources:
                raise CheckpointError(f"two keys stand for {target}: {sources[target].key} and {key}; remove one from the file")
            else:
                sources[target] = Source(key, change)
    return KeyMap(MappingProxyType(sources), tuple(dropped), tuple(unknown))


def _rename(name: str, modules: Mapping[str, str], inside: Mapping[str, str]) -> str | None:
    """A name with its module and what is inside replaced; None if the module is not in the table."""
    head, rest = _split(name, modules)
    if head is None:
        return None
    part, rest = _split(rest, inside)
    return ".".join(piece for piece in (modules[head], inside[part] if part else "", rest) if piece)


def _split(name: str, table: Mapping[str, str]) -> tuple[str | None, str]:
    """The longest start of a dotted name that the table knows, and the rest."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        if (head := ".".join(parts[:cut])) in table:
            return head, ".".join(parts[cut:])
    return None, name


def _names(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """The keys that begin with a prefix, by what comes after it."""
    return {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}


def _modules(names: Iterable[str]) -> set[str]:
    """Every module that has a tensor somewhere inside."""
    split = [name.split(".") for name in names]
    return {".".join(parts[:cut]) for parts in split for cut in range(1, len(parts))}


def _count(present: set[str], block: str) -> int:
    """How many numbered children a module has, by their highest number."""
    numbers = [int(n) for head in present if head.startswith(f"{block}.") and (n := head.removeprefix(f"{block}.")).isdigit()]
    return max(numbers, default=-1) + 1


def _has(names: Iterable[str], *starts: str) -> bool:
    return any(name.startswith(starts) for name in names)
