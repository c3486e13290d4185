"""The tokenizer of the shapeworld models: CLIP's byte-pair encoding with a vocabulary of this world's words.

Some words are split on purpose (`pur|ple`, `tri|angle`), because real vocabularies split words too. Letters are in the
vocabulary, so any lower-case prompt can be encoded.
"""

from __future__ import annotations

import json
from pathlib import Path

PIECES = (
    ["a"], ["an"], ["and"], ["small"], ["large"],
    ["red"], ["green"], ["blue"], ["circle"], ["square"], ["star"], ["cross"], ["ring"],
    ["yel", "low"], ["pur", "ple"], ["or", "ange"], ["tri", "angle"],
)  # fmt: skip
LENGTH = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def vocabulary_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token ids and merge rules such that every word of the world becomes exactly its pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-'#"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in PIECES:
        for position, piece in enumerate(word):
            symbols = list(piece)
            if position == len(word) - 1:
                symbols[-1] += "</w>"
            for index in range(1, len(symbols)):
                # Right to left: no suffix of one word is the beginning of another, so the rules do not get in each other's way.
                pair = (symbols[-index - 1], "".join(symbols[len(symbols) - index :]))
                if pair not in merges:
                    merges.append(pair)
                    tokens.append("".join(pair))
    return {token: index for index, token in enumerate([*dict.fromkeys(tokens), START, END])}, merges


def save_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer in the layout of `transformers` (and `diffusers`)."""
    from transformers import CLIPTokenizer

    vocabulary, merges = vocabulary_and_merges()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, indent=0))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        bos_token=START, eos_token=END, unk_token=END, pad_token=END, model_max_length=LENGTH,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
