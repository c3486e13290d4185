"""Tiny image-to-text models with random weights, as folders of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = (
    *("a", "an", "and", "the", "of", "is", "what", "relationship", "between", "question", "answer", "on", "left"),
    *("red", "blue", "green", "circle", "square", "star", "dog", "cat"),
)
PICTURE = 16  # pixels of a side


def tokenizer(padding: str = "left") -> Any:
    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<image>"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, padding_side=padding, **named)


def _images(cls: Any) -> Any:
    return cls(size={"height": PICTURE, "width": PICTURE})


def blip2(folder: Path, padding: str = "left") -> Path:
    """BLIP-2: a vision encoder, a querying one, and OPT. `padding`: the side on which the folder pads shorter questions."""
    torch.manual_seed(4)
    words = tokenizer(padding)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {
        "model_type": "opt",
        "vocab_size": 5 + len(WORDS),
        "ffn_dim": 16,
        "word_embed_proj_dim": 16,
        "max_position_embeddings": 128,
        **small,
    }
    config = transformers.Blip2Config(
        vision_config={"image_size": PICTURE, "patch_size": 8, **small},
        qformer_config={"encoder_hidden_size": 16, "vocab_size": 64, **small},
        text_config={**text, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None},
        num_query_tokens=4,
        image_token_index=4,
    )
    model = transformers.Blip2ForConditionalGeneration(config)
    with torch.no_grad():  # some word is always likelier than these, which it would say and nobody read
        model.language_model.get_input_embeddings().weight[:5] = 0
    model.save_pretrained(folder)
    processor = transformers.Blip2Processor(_images(transformers.BlipImageProcessor), words, num_query_tokens=4)
    processor.save_pretrained(folder)
    return folder


def images_only(folder: Path) -> Path:
    """A vision encoder with GPT-2 as decoder, which is given no text."""
    torch.manual_seed(1)
    vision = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=PICTURE, patch_size=8
    )
    text = transformers.GPT2Config(
        vocab_size=5 + len(WORDS),
        bos_token_id=1,
        eos_token_id=2,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        add_cross_attention=True,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = transformers.VisionEncoderDecoderModel(config=config)
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 1, 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    _images(transformers.ViTImageProcessor).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
