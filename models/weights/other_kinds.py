"""What a file of weights is that is no model of ours, by its keys: changes to a model, words for one, other architectures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .key_maps import Shape

LORA = "a LoRA (small changes to the weights of another model)"
EMBEDDING = "a textual inversion (an embedding that stands for words of a prompt)"

# What is searched for in a key; where several would do, the first one that is found in any key.
KINDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        # As kohya, PEFT and diffusers before it name them; then LoHa, LoKr, OFT, DoRA, IA3 and whole differences.
        (r"(^|[._])lora([._]|$)|^lycoris_", LORA),
        (r"\.(hada_w[12]|lokr_w[12]|oft_(blocks|diag)|dora_scale)|\.on_input$|\.(diff|diff_b|w_norm|b_norm)$", LORA),
        (r"control_model\.|input_hint_block\.|controlnet_cond_embedding\.|^controlnet_", "a ControlNet"),
        (r"motion_modules\.", "a motion module of AnimateDiff"),
        (r"ip_adapter\.", "an IP-Adapter"),
        (r"^(adapter\.)?body\.\d+\.(in_conv|resnets)\.", "a T2I-Adapter"),
        (r"string_to_param|^emb_params$|^<.+>$", EMBEDDING),
        (r"joint_blocks\.", "Stable Diffusion 3"),
        (r"double_blocks\.|single_transformer_blocks\.", "a transformer of the FLUX kind"),
        (r"caption_projection\.|^(transformer\.)?transformer_blocks\.\d+\.(attn|norm)", "a diffusion transformer"),
        (r"^encoder\.block\.\d+\.layer\.", "a text encoder of the T5 kind"),
        (r"^(model\.)?(body\.\d+\.rdb|RRDB_trunk\.|.*\.RDB\d)", "a network that enlarges pictures"),
    )
)
TEXT_WIDTHS = (768, 1024, 1280, 2048, 4096)  # of the embeddings of text encoders
FEW = 8  # tensors of an embedding, at most


def kind_of(shapes: Mapping[str, Shape]) -> str | None:
    """What a whole file is that holds something else than a model, in words; None if nothing can be said."""
    if (kind := kind_of_keys(shapes)) is not None:
        return kind
    words = len(shapes) <= FEW and all(len(shape) in (1, 2) and shape[-1] in TEXT_WIDTHS for shape in shapes.values())
    # Those of Stable Diffusion XL have a tensor for each of its text encoders.
    return EMBEDDING if shapes and (words or set(shapes) <= {"clip_l", "clip_g"}) else None


def kind_of_keys(keys: Iterable[str]) -> str | None:
    """The same by the keys alone, which may be some of a file's."""
    keys = tuple(keys)
    return next((kind for pattern, kind in KINDS if any(pattern.search(key) for key in keys)), None)
