"""What a single file of weights is: its family, its parts and what it predicts, from keys and shapes alone.

Structure comes first (text towers, label embedding, fusers), widths second, and what neither tells comes from marker keys, the
file's own metadata, or the rule of the family. Every fact says where it was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from ...framework.errors import CheckpointError, counted
from ...framework.files import shortened
from .key_maps import KeyMap, Shape, autoencoder_map, clip_map, is_harmless, open_clip_map, unet_map
from .other_kinds import kind_of, kind_of_keys

Naming: TypeAlias = Literal["unet", "autoencoder", "clip", "open_clip"]
Facts: TypeAlias = dict[str, str]

NAMES = MappingProxyType(
    {
        "sd1": "Stable Diffusion 1",
        "sd2": "Stable Diffusion 2",
        "sdxl": "Stable Diffusion XL",
        "gligen": "GLIGEN, grounded on text and boxes",
        "gligen-text-image": "GLIGEN, grounded on text, images and boxes",
        "autoencoder": "an autoencoder alone",
        "text-encoder": "a text encoder alone",
    }
)
NEEDED = MappingProxyType(
    {
        **dict.fromkeys(("sd1", "sd2", "gligen", "gligen-text-image"), ("unet", "vae", "text_encoder")),
        "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
        "autoencoder": ("vae",),
        "text-encoder": ("text_encoder",),
    }
)

SHOWN = 3  # keys, in a message

UNET_PREFIXES = ("model.diffusion_model.", "unet.", "")
AUTOENCODER_PREFIXES = ("first_stage_model.", "vae.", "")
# Prefix, naming, and the component of a diffusers folder that the tower becomes.
TOWERS: tuple[tuple[str, Naming, str], ...] = (
    ("cond_stage_model.transformer.", "clip", "text_encoder"),
    ("cond_stage_model.model.", "open_clip", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "clip", "text_encoder"),
    ("conditioner.embedders.0.model.", "open_clip", "text_encoder"),
    ("conditioner.embedders.1.model.", "open_clip", "text_encoder_2"),
)
# What a UNet, an autoencoder and a tower have by any name; text towers are also found bare.
UNET_STARTS = ("input_blocks.", "down_blocks.")
AUTOENCODER_STARTS = ("encoder.conv_in.", "decoder.conv_in.")
CLIP_STARTS = ("text_model.", "embeddings.token_embedding.")
OPEN_CLIP_STARTS = ("transformer.resblocks.", "token_embedding.")

# Part of a key of a UNet, under our names, that asks for something the networks do not do.
UNET_FOREIGN: tuple[tuple[str, str], ...] = (
    ("downsample_net.", "GLIGEN grounded on an image-like map (hed, canny, depth, normal or semantic)"),
    ("class_embedding.", "a UNet with a class embedding (unCLIP or an upscaler)"),
    ("label_emb.weight", "an upscaler"),
    ("time_embed.cond_proj.", "a guidance-distilled UNet (LCM)"),
    ("time_embedding.cond_proj.", "a guidance-distilled UNet (LCM)"),
)
EXTRA_CHANNELS: Mapping[int, str] = MappingProxyType(
    {5: "an inpainting UNet", 4: "an InstructPix2Pix UNet", 1: "a depth-conditioned UNet", 3: "an upscaler"}
)
CONTEXTS: Mapping[int, str] = MappingProxyType({768: "sd1", 1024: "sd2"})  # of families without a label embedding


@dataclass(frozen=True)
class Component:
    """A network within a file: the start of its keys, how they are named, and its tensors in our names."""

    prefix: str
    naming: Naming
    keys: KeyMap
    shapes: Mapping[str, Shape]

    @property
    def parameters(self) -> int:
        return sum(_product(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Recognised:
    """What a file was recognised as.

    `family`: a key of `NAMES`. `form`: `single file` (in the names of LDM), or `bare` (one network without a prefix).
    `components`: by their names in a diffusers folder. `prediction`: `eps`, `v`, or None where the file does not tell.
    `learnt`: for `family` and `prediction`, what they were told by. `missing`: components that the family needs besides.
    `unknown`: keys inside of a component that belong to nothing in it. `ignored`: keys outside of every component, which cannot
    change an image. `refusal`: why this model cannot be run, if so.
    """

    family: str
    form: str
    components: Mapping[str, Component]
    prediction: str | None = None
    zero_terminal_snr: bool = False
    learnt: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def says_ignored(self) -> str:
        """What is said of keys that are ignored; empty if there are none."""
        if not self.ignored:
            return ""
        kind = kind_of_keys(self.ignored)
        which = f"{_shown(self.ignored)}{f': {kind}' if kind else ''}"
        return f"{counted(len(self.ignored), 'key')} outside of its components, which it does not use ({which})"


def recognise(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None, where: str = "these weights") -> Recognised:
    """What the file with these tensors is. `metadata`: the texts stored beside them; `where`: the file, for the messages.

    A model that is known but not supported is returned with its `refusal`.

    Raises:
        CheckpointError: the keys are of nothing known, or two of them stand for the same weight.
    """
    try:
        components = _components(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    prefixes = tuple(part.prefix for part in components.values())
    other = kind_of_keys(key for key in shapes if key.startswith(prefixes)) if components else kind_of(shapes)
    if other is not None:
        return Recognised("unsupported", "unknown", MappingProxyType({}), refusal=f"this is {other}, which is not supported")
    if not components:
        first = _shown(sorted(shapes)) or "none at all"
        raise CheckpointError(
            f"{where}: no UNet, autoencoder or text encoder among its {len(shapes)} keys ({first}); expected a model of "
            "Stable Diffusion 1, 2 or XL or of GLIGEN, in the names of LDM or diffusers"
        )
    learnt: Facts = {}
    family = _family(components, learnt)
    prediction = _prediction(family, shapes, metadata or {}, learnt) if "unet" in components else None
    unknown, ignored = _left_over(components, shapes)
    return Recognised(
        family,
        "bare" if any(not part.prefix for part in components.values()) else "single file",
        MappingProxyType(components),
        prediction,
        "ztsnr" in shapes,
        MappingProxyType(learnt),
        tuple(part for part in NEEDED.get(family, ()) if part not in components),
        unknown,
        ignored,
        _refusal(family, components, shapes),
    )


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(shortened(key) for key in keys[:SHOWN])


def _left_over(components: Mapping[str, Component], shapes: Mapping[str, Shape]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that no component uses: those inside of one, and those outside of all.

    Inside is what begins with a component's prefix, or with the first part of a prefix of text towers.
    """
    used = {source.key for part in components.values() for source in part.keys.sources.values()}
    used |= {key for part in components.values() for key in part.keys.dropped}
    starts = (*(part.prefix for part in components.values()), *(f"{prefix.partition('.')[0]}." for prefix, _, _ in TOWERS))
    left = [key for key in shapes if key not in used and not is_harmless(key)]
    return tuple(key for key in left if key.startswith(starts)), tuple(key for key in left if not key.startswith(starts))


def _components(shapes: Mapping[str, Shape]) -> dict[str, Component]:
    found: dict[str, Component] = {}

    def add(name: str, prefix: str, naming: Naming, make: Callable[..., KeyMap], **options: bool) -> None:
        keys = make(shapes, prefix, **options)
        found[name] = Component(prefix, naming, keys, MappingProxyType(keys.shapes(shapes)))

    if (prefix := _prefix(shapes, UNET_PREFIXES, UNET_STARTS)) is not None:
        add("unet", prefix, "unet", unet_map)
    if (prefix := _prefix(shapes, AUTOENCODER_PREFIXES, AUTOENCODER_STARTS)) is not None:
        add("vae", prefix, "autoencoder", autoencoder_map)
    second = any(key.startswith("conditioner.embedders.1.") for key in shapes)
    for prefix, naming, name in TOWERS:
        starts = (*CLIP_STARTS, "encoder.layers.") if naming == "clip" else OPEN_CLIP_STARTS
        if _prefix(shapes, (prefix,), starts) is None:
            continue
        if naming == "clip":
            add(name, prefix, naming, clip_map)
        else:  # beside a tower of its kind, SDXL's second one is whole; alone, it is that of Stable Diffusion 2
            add(name, prefix, naming, open_clip_map, penultimate=not second)
    if not found:
        if _prefix(shapes, ("",), CLIP_STARTS) is not None:
            add("text_encoder", "", "clip", clip_map, projection=True)
        elif _prefix(shapes, ("",), OPEN_CLIP_STARTS) is not None:
            add("text_encoder", "", "open_clip", open_clip_map)
    return found


def _prefix(keys: Mapping[str, Shape], prefixes: tuple[str, ...], starts: tuple[str, ...]) -> str | None:
    """The first prefix under which there is a key with one of these starts."""
    return next((p for p in prefixes if any(key.startswith(tuple(p + start for start in starts)) for key in keys)), None)


def _family(components: Mapping[str, Component], learnt: Facts) -> str:
    """The family, from structure to widths; the first fact that decides is the one that is told."""
    unet = components.get("unet")
    if unet is None:
        family, why = ("autoencoder" if "vae" in components else "text-encoder"), "its lack of a UNet"
    elif any("position_net.linears_image." in key for key in unet.shapes):
        family, why = "gligen-text-image", "its fusers, and an embedding of images in position_net"
    elif any(".fuser." in key for key in unet.shapes):
        family, why = "gligen", "its fusers"
    elif any(key.startswith("add_embedding.") for key in unet.shapes):
        family, why = _label_embedding(components, unet)
    elif tower := components.get("text_encoder"):
        family = "sd1" if tower.naming == "clip" else "sd2"
        why = f"the text tower {tower.prefix}* and no label embedding"
    else:
        width, linear = _context(unet), _linear(unet)
        family = CONTEXTS.get(width, "sd2" if linear else "sd1")
        structure = f"{'linear' if linear else 'convolutional'} projections"
        why = f"a context of {width} channels" if width in CONTEXTS else structure
    learnt["family"] = why
    return family


def _label_embedding(components: Mapping[str, Component], unet: Component) -> tuple[str, str]:
    """SDXL and what else has a second conditioning: the refiner and unCLIP."""
    why = "its label embedding and "
    tower = components.get("text_encoder")
    levels = _numbers(unet, "down_blocks")
    attended = [any(key.startswith(f"down_blocks.{level}.attentions.") for key in unet.shapes) for level in range(levels)]
    if "text_encoder_2" in components:
        return "sdxl", f"{why}two text towers"
    if tower is not None and tower.prefix.startswith("cond_stage_model."):
        return "unclip", f"{why}the text tower {tower.prefix}*"
    if attended and attended[0]:
        return "unclip", f"{why}attention at its finest level"
    if attended and not attended[-1]:
        return "sdxl-refiner", f"{why}no attention at its finest and coarsest level"
    return "sdxl", f"{why}no attention at its finest level"


def _prediction(family: str, shapes: Mapping[str, Shape], metadata: Mapping[str, str], learnt: Facts) -> str | None:
    """What the UNet predicts. In Stable Diffusion 2 both kinds have the same keys and shapes: only if the file says so."""
    told = metadata.get("modelspec.prediction_type", "").lower()
    if "v_pred" in shapes:
        kind, why = "v", "the key v_pred"
    elif told in ("v", "v_prediction", "v-prediction", "epsilon", "eps"):
        kind, why = "v" if told.startswith("v") else "eps", f"the file's metadata (modelspec.prediction_type: {told})"
    elif "-768-v" in (architecture := metadata.get("modelspec.architecture", "")):
        kind, why = "v", f"the file's metadata (modelspec.architecture: {architecture})"
    elif family == "sd2":
        return None
    else:
        kind, why = "eps", "the rule of the family"
    learnt["prediction"] = why
    return kind


def _refusal(family: str, components: Mapping[str, Component], shapes: Mapping[str, Shape]) -> str | None:
    """Why a known model cannot be run: its family, its inputs, or the statistics of its latents."""
    unet = components.get("unet")
    if family == "sdxl-refiner":
        return "this is the refiner of Stable Diffusion XL, which is not supported; take the base model"
    if family == "unclip":
        return "this is an unCLIP model (made for image variations), which is not supported"
    if "edm_mean" in shapes or "edm_vpred.sigma_max" in shapes:
        return "this model was trained on EDM noise (Playground 2.5, CosXL), which is not supported"
    if unet is None:
        return None
    names = (*unet.shapes, *(key.removeprefix(unet.prefix) for key in unet.keys.unknown))
    if kind := next((kind for part, kind in UNET_FOREIGN if any(part in name for name in names)), None):
        return f"this is {kind}, which is not supported"
    if family == "gligen" and not any(name.startswith("position_net.linears.") for name in names):
        return "this is GLIGEN grounded on something else than text and boxes (such as keypoints), which is not supported"
    given, made = unet.shapes.get("conv_in.weight", ()), unet.shapes.get("conv_out.weight", ())
    if len(given) == len(made) == 4 and given[1] != made[0]:
        kind = EXTRA_CHANNELS.get(given[1] - made[0], "a UNet with further inputs")
        return f"this is {kind} ({given[1]} input channels, {made[0]} output channels), which is not supported"
    return None


def _context(unet: Component) -> int:
    """The width of the embeddings that the UNet attends to; 0 where it attends to none."""
    return next((shape[1] for key, shape in unet.shapes.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2), 0)


def _linear(unet: Component) -> bool:
    return any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in unet.shapes.items())


def _numbers(unet: Component, block: str) -> int:
    return len({key.split(".")[1] for key in unet.shapes if key.startswith(f"{block}.")})


def _product(shape: Shape) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
