"""Which words are bound to which: from phrases, from given pairs, and in a batch of different prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lsregen.distances.attribute_binding import AttributeBinding
from lsregen.extractors.bound_words import BoundWords
from lsregen.framework.errors import ConfigError, PhraseError
from lsregen.framework.layout.regions import Layout
from lsregen.framework.types import Features
from tests.extractors import stand_ins
from tests.extractors.stand_ins import TOKENS, phrases, probabilities


def look(extractor: BoundWords, prompts: Sequence[str], layouts: Sequence[Layout], maps: dict[str, Tensor]) -> Features:
    return stand_ins.look(extractor, prompts, layouts, maps)[0]


def named(found: Features, maps: Tensor, words: Sequence[str], sample: int = 0) -> list[tuple[str, int]]:
    """Word pieces of one sample and their words' numbers, told by their maps; `words` are those of the prompt's tokens."""
    pieces = found.present[sample].nonzero().flatten().tolist()
    tokens = [next(t for t in range(TOKENS) if torch.allclose(found.maps[0][sample, 0, i], maps[sample, t])) for i in pieces]
    return [(words[t - 1], int(found.group[sample, i])) for t, i in zip(tokens, pieces, strict=True)]


def agreeing(found: Features) -> set[tuple[int, int]]:
    return {(a, b) for a, b, sign in found.relations if sign > 0}


def differing(found: Features) -> set[frozenset[int]]:
    return {frozenset((a, b)) for a, b, sign in found.relations if sign < 0}


def test_a_phrases_last_word_is_the_noun_and_those_before_it_its_modifiers() -> None:
    prompt = "two small red elephant and a blue hat"
    maps = probabilities(1)
    mean = torch.cat([maps["down_blocks.1"].mean(dim=1)[None], maps["up_blocks.0"].mean(dim=1)[None]]).mean(dim=0)
    found = look(BoundWords(), [prompt], [phrases("two small red elephant", "a blue hat")], maps)
    assert found.maps[0].shape == (1, 1, 9, 4, 6)  # layers of one grid and their heads are averaged
    words = ["two", "small", "red", "ele", "phant", "and", "a", "blue", "hat"]
    assert named(found, mean, words) == [
        ("ele", 0), ("phant", 0), ("small", 1), ("red", 2), ("hat", 3), ("blue", 4), ("two", 5), ("and", 6), ("a", 7),
    ]  # fmt: skip
    assert agreeing(found) == {(1, 0), (2, 0), (4, 3)}
    bindings = ({0, 1, 2}, {3, 4})
    assert differing(found) == {
        frozenset((a, b)) for one in bindings for a in one for b in range(8) if b not in one
    }  # "two", "and" and "a" differ from what is bound, and not from each other


def test_a_phrase_of_one_word_counts_among_the_others() -> None:
    maps = probabilities(1)
    found = look(BoundWords(layers=("mid",)), ["a red ball and dog"], [phrases("dog", "red ball")], maps)
    names = named(found, maps["mid_block"].mean(dim=1), ["a", "red", "ball", "and", "dog"])
    assert names == [("ball", 0), ("red", 1), ("a", 2), ("and", 3), ("dog", 4)]
    assert agreeing(found) == {(1, 0)}


def test_pairs_can_be_given_without_phrases() -> None:
    maps = probabilities(1)
    pairs = (("red", "ball"), ("shiny", "ball"), ("old", "hat"))
    found = look(BoundWords(layers=("mid",), pairs=pairs), ["ball is red and shiny , hat old"], [Layout()], maps)
    names = named(found, maps["mid_block"].mean(dim=1), ["ball", "is", "red", "and", "shiny", ",", "hat", "old"])
    assert names[:5] == [("ball", 0), ("red", 1), ("shiny", 2), ("hat", 3), ("old", 4)]
    assert agreeing(found) == {(1, 0), (2, 0), (4, 3)}


def test_every_word_of_pairs_that_is_not_in_the_prompt_is_named_with_the_option() -> None:
    pairs = (("blue", "ball"), ("red", "star"), ("blue", "star"))
    with pytest.raises(PhraseError) as caught:
        look(BoundWords(pairs=pairs), ["a red ball"], [Layout()], probabilities(1))
    blue, star, tokens = str(caught.value).split("\n")
    assert blue.startswith("bound_words' pairs: phrase 'blue' is not in the prompt 'a red ball'")
    assert star.startswith("bound_words' pairs: phrase 'star' is not in the prompt 'a red ball'")
    assert tokens.startswith("tokens: 1 a, 2 red")


def test_samples_that_bind_different_words_have_the_energy_of_each_alone() -> None:
    prompts = ["a red ball and a small old hat", "a blue elephant", "a green hat , a red dog , a cat"]
    layouts = [phrases("red ball", "small old hat"), phrases("blue elephant"), phrases("green hat", "red dog", "cat")]
    maps = probabilities(3)
    whole = AttributeBinding()(look(BoundWords(layers=("all",)), prompts, layouts, maps)).value
    for i in range(3):
        own = {name: value[i : i + 1] for name, value in maps.items()}
        alone = AttributeBinding()(look(BoundWords(layers=("all",)), prompts[i : i + 1], layouts[i : i + 1], own)).value
        assert torch.allclose(whole[i : i + 1], alone, rtol=1e-4)


def test_phrases_that_bind_nothing_are_refused_by_name() -> None:
    maps = probabilities(1)
    with pytest.raises(PhraseError, match=r"phrase 'ball' in the prompt 'a ball': no modifier .* such as 'red circle'"):
        look(BoundWords(), ["a ball"], [phrases("ball")], maps)
    with pytest.raises(PhraseError, match="'two balls', 'the hat'"):
        look(BoundWords(), ["two balls and the hat"], [phrases("two balls", "the hat")], maps)
    with pytest.raises(ConfigError, match="no sample binds a modifier to a noun"):
        look(BoundWords(), ["a red ball"], [Layout()], maps)
    with pytest.raises(PhraseError, match="dog"):
        look(BoundWords(), ["a red ball"], [phrases("red dog")], maps)
    with pytest.raises(ConfigError, match="is empty"):
        BoundWords(layers=())
