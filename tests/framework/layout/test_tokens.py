"""From phrases to word pieces: whole words, repeated words, cut prompts, and errors that show the way."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lsregen.framework.errors import ConfigError, LayoutError, PhraseError
from lsregen.framework.layout.tokens import Piece, TokenTable

LONG_WORDS = {"circle": ("circ", "le"), "porcupine": ("por", "cup", "ine")}


def table(prompt: str, *, padding: int = 0, limit: int | None = None, leading_space: bool = False) -> TokenTable:
    """A table as a CLIP-like tokenizer makes it: words split by `LONG_WORDS`, punctuation apart, start and end tokens.

    `limit`: at most that many pieces of the prompt. `leading_space`: a word's first piece owns the space before it.
    """
    found: list[tuple[str, int, int]] = []
    for match in re.finditer(r"\w+|[^\w\s]", prompt):
        at = match.start()
        for text in LONG_WORDS.get(match[0].lower(), (match[0],)):
            start = at - 1 if leading_space and at == match.start() and at and prompt[at - 1] == " " else at
            found.append((text, start, at + len(text)))
            at += len(text)
    cut = None
    if limit is not None and len(found) > limit:
        cut, found = found[limit][1], found[:limit]
    end = found[-1][2] if found else 0
    rows = [("<start>", 0, 0), *found, ("<end>", end, end), *[("<pad>", 0, 0)] * padding]
    return TokenTable(
        prompt, tuple(Piece(i, text, start, stop, start == stop) for i, (text, start, stop) in enumerate(rows)), cut
    )


CAPTION = "a red circle and a red square"  # a 1, red 2, circ 3, le 4, and 5, a 6, red 7, square 8


@pytest.mark.parametrize("leading_space", [False, True])
@pytest.mark.parametrize(
    ("phrase", "span"),
    [
        ("red circle", (2, 3, 4)),
        ("circle", (3, 4)),
        ("red square", (7, 8)),
        ("red#1", (2,)),
        ("red#2", (7,)),
        ("red #2", (7,)),
        ("square#1", (8,)),
        ("RED Square", (7, 8)),
        ("  red \t circle ", (2, 3, 4)),
        ("a red circle and a red square", (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_span(phrase: str, span: tuple[int, ...], leading_space: bool) -> None:
    assert table(CAPTION, padding=3, leading_space=leading_space).span(phrase) == span


@pytest.mark.parametrize(
    ("prompt", "phrase", "text"),
    [
        ("a red ball, a string", "ball", "ball"),
        ("A BALL.", "ball", "BALL"),
        ("a red   ball", "red ball", "red   ball"),
        ("a red\nball", "red ball", "red\nball"),
        ("the cat's hat", "cat", "cat"),
        ("the cat's hat", "cat's", "cat's"),
        ("un café crème", "café", "café"),
        ("two dots (c++)", "c++", "c++"),
        ("bus #2 and a bus", "bus #2", "bus #2"),
        ("bus #2 and a bus", "bus#2", "bus"),
        ("a green t-shirt", "t-shirt", "t-shirt"),
        ("a ball of balls", "ball", "ball"),
    ],
)
def test_locate(prompt: str, phrase: str, text: str) -> None:
    start, end = table(prompt).locate(phrase)
    assert prompt[start:end] == text


def test_a_number_in_the_prompt_is_text_first() -> None:
    assert table("bus #2 and a bus").locate("bus #2") == (0, 6)
    assert table("bus #2 and a bus").locate("bus#2") == (13, 16)


@pytest.mark.parametrize("phrase", ["ring", "strin", "tring", "str"])
def test_parts_of_words_do_not_match(phrase: str) -> None:
    with pytest.raises(PhraseError, match="whole words"):
        table("a ball on a string").span(phrase)


def test_an_ambiguous_phrase_lists_its_occurrences() -> None:
    with pytest.raises(PhraseError) as caught:
        table("a circle and a small Circle, please").span("circle")
    message = str(caught.value)
    assert "'circle' occurs 2 times" in message
    assert "\n  circle#1  a [circle] and a small Circle,...\n" in message
    assert "\n  circle#2  ... circle and a small [Circle], please" in message
    assert isinstance(caught.value, LayoutError)


@pytest.mark.parametrize("phrase", ["circle#3", "circle#0"])
def test_a_number_without_its_occurrence(phrase: str) -> None:
    with pytest.raises(PhraseError, match=rf"'{phrase}': 'circle' occurs 2 times") as caught:
        table("a circle and a circle").span(phrase)
    assert "circle#2" in str(caught.value)


def test_a_number_too_large_for_a_single_word() -> None:
    with pytest.raises(PhraseError, match="'square' occurs once"):
        table(CAPTION).span("square#2")


def test_an_absent_phrase_shows_prompt_near_matches_and_tokens() -> None:
    with pytest.raises(PhraseError) as caught:
        table(CAPTION, padding=60).span("red cirle")
    message = str(caught.value)
    assert repr(CAPTION) in message
    assert "near it: 'red circle'" in message
    assert "3 circ, 4 le" in message
    assert "<pad>" not in message
    with pytest.raises(PhraseError, match="near it: 'square'"):
        table(CAPTION).span("squares#2")


def test_an_absent_phrase_far_from_everything() -> None:
    with pytest.raises(PhraseError) as caught:
        table(" ".join(["word"] * 60)).span("xylophone")
    assert "near it" not in str(caught.value)
    assert "and 36 more" in str(caught.value)
    with pytest.raises(PhraseError, match="tokens: none"):
        table("").span("dog")


@pytest.mark.parametrize("phrase", ["", "   ", "#2", " # 1"])
def test_an_empty_phrase(phrase: str) -> None:
    with pytest.raises(PhraseError, match="empty"):
        table(CAPTION).span(phrase)


def test_a_phrase_in_the_cut_part() -> None:
    short = table(CAPTION, limit=7)
    assert short.truncated_from == CAPTION.index("square")
    assert short.span("red#2") == (7,)
    for phrase in ("square", "red square"):
        with pytest.raises(PhraseError, match=rf"'{phrase}' is in the part .* cut at character 23, after"):
            short.span(phrase)
    with pytest.raises(PhraseError, match="does not see"):
        table(CAPTION, limit=3).span("circle")  # the cut goes through the word


def test_a_phrase_whose_characters_the_tokenizer_drops() -> None:
    dropped = TokenTable("a * b", (Piece(0, "a", 0, 1), Piece(1, "b", 4, 5)))
    with pytest.raises(PhraseError, match="has no tokens"):
        dropped.span("*")


def test_pieces_that_share_a_character_all_count() -> None:
    # Byte-level tokenizers split one character into several pieces with the same offsets.
    shared = TokenTable("a é", (Piece(0, "a", 0, 1), Piece(1, "Ã", 1, 3), Piece(2, "©", 2, 3)))
    assert shared.span("é") == (1, 2)


def test_unknown_characters() -> None:
    places = ((0, 1), (2, 3), (2, 3), (3, 4), (5, 6))  # neighbours, one of them in two pieces, and the first once more
    pieces = [Piece(i, "?", start, end, unknown=start > 0) for i, (start, end) in enumerate(places)]
    unknown = TokenTable("a öß ö öß", (*pieces, Piece(5, "?", 7, 8, unknown=True), Piece(6, "?", 8, 9, unknown=True)))
    assert unknown.unknown == ("öß", "ö")
    assert table(CAPTION).unknown == ()
    assert unknown.render().splitlines()[1:3] == ["    0  ?      0-1         a", "    1  ?      2-3         ö (unknown)"]


@pytest.mark.parametrize("leading_space", [False, True])
def test_words_of_a_span(leading_space: bool) -> None:
    tokens = table("two porcupine circle cards", leading_space=leading_space)
    span = tokens.span("porcupine circle cards")
    assert span == (2, 3, 4, 5, 6, 7)
    assert tokens.words(span) == ((2, 3, 4), (5, 6), (7,))
    assert tokens.words(span)[-1] == tokens.span("cards")
    assert tokens.words(()) == ()


def test_a_hyphen_does_not_part_words() -> None:
    tokens = table("a green t-shirt")
    assert tokens.words(tokens.span("green t-shirt")) == ((2,), (3, 4, 5))


def test_length_and_special() -> None:
    tokens = table("a circle", padding=2)
    assert tokens.length == 7
    assert tokens.special == (0, 4, 5, 6)


def test_render() -> None:
    assert table("a circle", padding=3).render().splitlines() == [
        "token  piece    characters  text",
        "    0  <start>  -           (special)",
        "    1  a        0-1         a",
        "    2  circ     2-6         circ",
        "    3  le       6-8         le",
        "    4  <end>    -           (special)",
        "  5-7  <pad>    -           (special)",
    ]
    assert table("a circle", limit=1).render().splitlines()[-1] == "cut at character 2; not seen: 'circle'"


@pytest.mark.parametrize(
    "pieces", [(Piece(1, "a", 0, 1),), (Piece(0, "a", 0, 9),), (Piece(0, "a", 1, 0),), (Piece(0, "<end>", 0, 1, True),)]
)
def test_a_table_that_a_model_built_wrong(pieces: tuple[Piece, ...]) -> None:
    with pytest.raises(ConfigError, match="position 0 of the token table"):
        TokenTable("a", pieces)


@settings(max_examples=80)
@given(st.lists(st.sampled_from(["red", "circle", "porcupine", "a", "ball,"]), min_size=1, max_size=8), st.data())
def test_any_unambiguous_run_of_words_is_found_by_its_characters(words: list[str], data: st.DataObject) -> None:
    prompt = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    phrase = " ".join(words[first:last]).rstrip(",")
    assume(len(re.findall(rf"(?=(?<!\w){re.escape(phrase)}(?!\w))", prompt)) == 1)
    tokens = table(prompt)
    pieces = [tokens.pieces[i] for i in tokens.span(phrase)]
    assert prompt[pieces[0].start : pieces[-1].end] == phrase
    assert sum(len(word) for word in tokens.words(tokens.span(phrase))) == len(pieces)


def test_offsets_of_a_real_tokenizer() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "a", "red", "circ", "##le", "and", "square", ","])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    prompt = "A red circle, and a square"
    encoding = tokenizer.encode(prompt)
    offsets = zip(encoding.tokens, encoding.offsets, strict=True)
    tokens = TokenTable(prompt, tuple(Piece(i, text, *offset) for i, (text, offset) in enumerate(offsets)))
    assert tokens.span("red circle") == (1, 2, 3)
    assert tokens.span("square") == (7,)
