"""Tiny random networks in folders, as transformers saves them: they run the real paths and know nothing."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

library: Any = transformers
WORDS = ("<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "and", "red", "blue", "circle", "square", "cat", "dog")


def noise(size: tuple[int, int], spread: float) -> Image.Image:
    """A picture of grey noise, always the same."""
    width, height = size
    drawn = np.random.default_rng(0).normal(128, spread, (height, width))
    return Image.fromarray(drawn.clip(0, 255).astype(np.uint8)).convert("RGB")


def image_processor(name: str, **settings: Any) -> Any:
    """Some versions have one that needs torchvision, and beside it one that does not."""
    return (getattr(library, f"{name}ImageProcessorPil", None) or getattr(library, f"{name}ImageProcessor"))(**settings)


def yolos(folder: Path, labels: tuple[str, ...], size: int = 64) -> Path:
    """A detector with classes of its own."""
    torch.manual_seed(0)
    config = library.YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[size, size], patch_size=16,
        num_detection_tokens=8, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        initializer_range=0.5,
    )  # fmt: skip
    library.YolosForObjectDetection(config).save_pretrained(folder)
    image_processor("Yolos", size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def tokenizer(length: int = 16) -> Any:
    """Words by spaces, between a beginning and an end."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


TEXT = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def owl(folder: Path) -> Path:
    """A detector for any words."""
    torch.manual_seed(0)
    config = library.OwlViTConfig(text_config=TEXT, vision_config=VISION, projection_dim=32)
    network = library.OwlViTForObjectDetection(config)
    # Everything is found, in the grid's own boxes, whatever random weights this version draws.
    torch.nn.init.constant_(network.class_head.logit_shift.bias, 10)
    torch.nn.init.zeros_(network.box_head.dense2.weight)
    torch.nn.init.zeros_(network.box_head.dense2.bias)
    network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    image_processor("OwlViT", size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    settings = {"processor_class": "OwlViTProcessor", "tokenizer_class": "PreTrainedTokenizerFast"}
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


class Pool(torch.nn.Module):
    """Stands for Inception: pixels in, features out, and logits unless it is asked."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        features = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 1).flatten(1)
        return features if return_features else features[:, :1]


def inception(path: Path) -> Path:
    """A TorchScript file of three features."""
    with warnings.catch_warnings():  # it goes, and files of it stay
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Pool()).save(str(path))
    return path


def clip(folder: Path) -> Path:
    """An encoder of texts and pictures."""
    torch.manual_seed(0)
    config = library.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    library.CLIPModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    sides = {"height": 32, "width": 32}
    image_processor("CLIP", size={"shortest_edge": 32}, crop_size=sides).save_pretrained(folder)
    return folder


def in_tuples(folder: Path, home: Path) -> Path:
    """A copy of a folder whose network, and each of its parts, returns plain tuples unless it is asked otherwise."""
    copied = shutil.copytree(folder, home / "tuples")
    settings = json.loads((copied / "config.json").read_text())
    for part in (settings, settings.get("text_config"), settings.get("vision_config")):
        if part is not None:
            part["return_dict"] = False
    (copied / "config.json").write_text(json.dumps(settings))
    return copied
