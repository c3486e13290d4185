"""What messages are made of."""

from __future__ import annotations

import pytest

from lsregen.framework.errors import LayoutError, PhraseError, counted, told_of


def test_errors_are_said_to_be_of_a_place_line_by_line() -> None:
    with pytest.raises(PhraseError, match=r"^there: one\nthere: two$"), told_of("there"):
        raise PhraseError("one\ntwo")
    with pytest.raises(LayoutError, match=r"^one$"), told_of(""):
        raise LayoutError("one")


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "item", "1 item"), (0, "item", "0 items"), (2, "batch", "2 batches"), (1, "batch", "1 batch"), (3, "box", "3 boxes")],
)
def test_counts_have_their_plurals(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said
