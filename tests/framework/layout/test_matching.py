"""Words are found whatever their Unicode form, in every script, and only whole."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsregen.framework.layout.matching import is_blank, near, occurrences


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("caf\u00e9", "a cafe\u0301 and a bar", ["cafe\u0301"]),
        ("cafe\u0301", "a caf\u00e9 and a bar", ["caf\u00e9"]),
        ("\u1112\u1161\u11ab\uad6d", "\ud55c\uad6d", ["\ud55c\uad6d"]),  # conjoining jamo
        ("red circle", "a red\u200b cir\u00adcle", ["red\u200b cir\u00adcle"]),
        ("dog's", "a dog\u2019s bed", ["dog\u2019s"]),
        ("t-shirt", "a T\u2011shirt", ["T\u2011shirt"]),
        ("STRASSE", "eine straße", ["straße"]),
        ("red  circle", "a red\n circle", ["red\n circle"]),
        ("ball", "a ball, a Ball", ["ball", "Ball"]),
        ("黑猫", "一只黑猫和狗", ["黑猫"]),
        ("赤い車", "赤い車と青い家", ["赤い車"]),
        ("แมวดำ", "แมวดำและสุนัข", ["แมวดำ"]),
        ("cat", "一只cat和狗", ["cat"]),
        ("aa", "baa aa", ["aa"]),
        ("'s", "dog's", ["'s"]),
    ],
)
def test_what_looks_alike_is_found(name: str, text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in occurrences(name, text)] == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cafe", "a cafe\u0301"),
        ("cafe", "a caf\u00e9"),
        ("कुत्", "एक कुत्ता"),
        ("ball", "balls"),
        ("ball", "eyeball"),
        ("mas", "ein maß"),
        ("\u0301", "cafe\u0301"),
        ("", "a dog"),
        ("\u200b", "a dog"),
    ],
)
def test_a_part_of_a_word_is_not(name: str, text: str) -> None:
    assert occurrences(name, text) == []


@given(st.lists(st.text("aeé日本คุ́b", min_size=1), min_size=1, max_size=5), st.integers(0, 4))
def test_every_word_of_a_text_is_found_in_each_unicode_form(words: list[str], chosen: int) -> None:
    chosen %= len(words)
    word, start = words[chosen], len("".join(f"{each} " for each in words[:chosen]))
    if unicodedata.category(word[0])[0] == "M" or any(unicodedata.category(each[0])[0] == "M" for each in words):
        return  # a mark without its letter belongs to the space before it
    text = " ".join(words)
    for form in ("NFC", "NFD"):
        places = occurrences(unicodedata.normalize(form, word), text)
        assert (start := len(" ".join(words[: chosen % len(words)])) + (chosen % len(words) > 0)) in [
            place[0] for place in places
        ]
        assert (start, start + len(word)) in places


@pytest.mark.parametrize(
    ("name", "text", "among"),
    [
        ("big red circle", "a big, red circle and a dog", "big, red circle"),
        ("dogs red circle", "a dog\u2019s red circle", "dog\u2019s red circle"),
        ("T shirt", "a T\u2011shirt", "T\u2011shirt"),
        ("cafe", "a cafe\u0301", "cafe\u0301"),
        ("red circel", "a (red:1.3) circle", "circle"),
    ],
)
def test_what_is_near_stands_in_the_text(name: str, text: str, among: str) -> None:
    found = near(name, text)
    assert among in found
    assert all(occurrences(each, text) and each in text for each in found)


def test_what_shows_nothing_is_blank() -> None:
    assert is_blank(" \u200b\ufeff")
    assert not is_blank("\u0301")


def test_a_letter_with_very_many_marks_is_one_letter() -> None:
    text = "cat" + 50_000 * "\u0301" + " cat"
    assert occurrences("cat", text) == [(50_004, 50_007)]
    assert occurrences("cat", "cat" + 50_000 * "\u200b" + " dog") == [(0, 50_003)]
