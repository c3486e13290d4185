"""The study: who is who is hidden and found again, sides are balanced, and agreement is Krippendorff's."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lsregen_study.study import ANSWERS, QUESTIONS, Study, agreement, markdown, pairs_of, read_answers, read_key, scored

from lsregen.evaluation.instruments.entrants import Entry, entrants_of
from lsregen.evaluation.runs.plan import Plan
from lsregen.framework.errors import ConfigError
from tests.evaluation import drawn

KEYS = [question.key for question in QUESTIONS]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    plan = drawn.plan(("ours", "theirs"), items=12)
    run = drawn.run(tmp_path_factory.mktemp("run"), plan, {"ours": drawn.true, "theirs": drawn.empty})
    ours, theirs = entrants_of([run])
    return ours.entries, theirs.entries


@pytest.fixture(scope="module")
def study(entries: tuple[tuple[Entry, ...], tuple[Entry, ...]]) -> Study:
    return Study("ours", "theirs", pairs_of(*entries, 6, 0))


def answered(study: Study, path: Path, rater: int, prefers: Any, **changed: Any) -> Path:
    """A file of answers. `prefers`: whether the rater prefers the first method, by pair and question."""

    def side(pair: Any, question: str) -> str:
        return "left" if prefers(pair.name, question) == pair.first_left else "right"

    answers = {pair.name: {question: side(pair, question) for question in KEYS} for pair in study.pairs}
    data = {"format": ANSWERS, "key": study.key, "id": f"id-{rater}", "rater": f"rater {rater}", "answers": answers, **changed}
    path.write_text(json.dumps(data))
    return path


def test_the_file_of_the_documentation_is_one(study: Study, tmp_path: Path) -> None:
    """But for its key."""
    page = Path(__file__).parents[3] / "docs" / "protocol.md"
    [text] = re.findall(r"^```json\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    two = Study("ours", "theirs", study.pairs[:2])
    data = json.loads(text)
    assert set(data["answers"]) == {pair.name for pair in two.pairs}
    (tmp_path / "answers.json").write_text(json.dumps({**data, "key": two.key}))
    [answers] = read_answers([tmp_path / "answers.json"])
    assert (answers.rater, answers.count, answers.lefts) == ("Ada", 6, 3)


def test_pairs_are_of_one_item_drawn_at_random_and_balanced(entries: tuple[tuple[Entry, ...], tuple[Entry, ...]]) -> None:
    pairs = pairs_of(*entries, 8, 3)
    assert all(pair.first.job.item == pair.second.job.item for pair in pairs)
    assert len({pair.first.job.item for pair in pairs}) == 8
    assert sum(pair.first_left for pair in pairs) == 4
    assert pairs == pairs_of(*entries, 8, 3)
    assert pairs != pairs_of(*entries, 8, 4)
    assert all(pair.left is (pair.first if pair.first_left else pair.second) for pair in pairs)
    assert all(pair.right is (pair.second if pair.first_left else pair.first) for pair in pairs)
    with pytest.raises(ConfigError, match=r"13 pairs: the methods have only 12 items in common; ask for fewer: --count 12"):
        pairs_of(*entries, 13, 0)


def test_only_what_is_alike_is_paired(tmp_path: Path) -> None:
    ours, theirs = drawn.plan(("ours",)), drawn.plan(("theirs",))
    jobs = [replace(job, prompt="a dog") if job.number == 1 else job for job in theirs.jobs]
    other = Plan.of(theirs.origin, theirs.methods, theirs.batch, jobs)
    (one,) = entrants_of([drawn.run(tmp_path / "a", ours, {"ours": drawn.true})])
    (two,) = entrants_of([drawn.run(tmp_path / "b", other, {"theirs": drawn.true})])
    with pytest.raises(ConfigError, match=r"item 'scene-1' is not the same in .*a and .*b: another prompt"):
        pairs_of(one.entries, two.entries, 2, 0)


def test_the_key_hides_who_is_who_and_gives_it_back(study: Study) -> None:
    assert "ours" not in study.key
    assert "left" not in study.key
    found = read_key(study.key, "here")
    assert found["methods"] == ["ours", "theirs"]
    assert found["first_left"] == {pair.name: pair.first_left for pair in study.pairs}


def test_preference_is_of_the_method_and_not_of_the_side(study: Study, tmp_path: Path) -> None:
    paths = [
        answered(study, tmp_path / f"{i}.json", i, lambda pair, question, i=i: question != "fidelity" or i > 0) for i in range(4)
    ]
    result = scored(read_answers(paths))
    assert (result["first"], result["second"], result["pairs"], result["raters"]) == ("ours", "theirs", 6, 4)
    fidelity = result["questions"]["fidelity"]
    assert (fidelity["preferred"], fidelity["answers"], fidelity["value"]) == (18, 24, 0.75)
    assert (fidelity["low"], fidelity["high"]) == (pytest.approx(0.551, abs=1e-3), pytest.approx(0.880, abs=1e-3))  # Wilson
    assert result["questions"]["consistency"]["value"] == 1
    assert result["questions"]["consistency"]["agreement"] is None
    assert result["left"] == pytest.approx(0.5, abs=0.13)
    table = markdown(result)
    assert "| Method | Visual Fidelity | Consistency | User Preference |" in table
    assert "| ours over theirs | 75.0 % [55.1 to 88.0] | 100.0 %" in table
    assert "6 pairs, 4 raters, 24 / 24 / 24 answers" in table


def test_agreement_is_krippendorffs() -> None:
    """Two observers of ten units (Krippendorff 2011, Computing Krippendorff's alpha-reliability, section A): .095."""
    meg, owen = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    assert agreement([[bool(a), bool(b)] for a, b in zip(meg, owen, strict=True)]) == pytest.approx(0.095, abs=5e-4)
    assert agreement([[True, True], [False, False]]) == 1
    assert agreement([[True, False], [False, True]]) == pytest.approx(-0.5)
    assert agreement([[True, None], [False, None]]) is None
    assert agreement([[True, True, None], [False, None, False], [True, None, None]]) == 1


def test_files_of_another_study_or_twice_or_incomplete(study: Study, tmp_path: Path, entries: Any) -> None:
    def yes(*_: object) -> bool:
        return True

    good = answered(study, tmp_path / "good.json", 1, yes)
    other = answered(Study("ours", "theirs", pairs_of(*entries, 6, 9)), tmp_path / "other.json", 2, yes)
    again = answered(study, tmp_path / "again.json", 1, yes)
    with pytest.raises(ConfigError, match=r"other.json: the answers of another study than .*good.json"):
        read_answers([good, other])
    with pytest.raises(ConfigError, match=r"good.json: the same answers as .*good.json; give each file once"):
        read_answers([good, good])
    with pytest.raises(ConfigError, match=r"again.json: the same answers as .*good.json; give each file once"):
        read_answers([good, again])
    data = json.loads(good.read_text())
    del data["answers"]["pair-002"]
    data["answers"]["pair-003"].pop("fidelity")
    half = tmp_path / "half.json"
    half.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"half.json: 4 of 18 answers are missing; .*\(--partial\)"):
        read_answers([half])
    (kept,) = read_answers([half], partial=True)
    assert kept.count == 14


def no_json(data: dict[str, Any]) -> str:
    return "nothing"


def a_list(data: dict[str, Any]) -> str:
    return "[]"


def no_format(data: dict[str, Any]) -> str:
    return json.dumps(data | {"format": "other"})


def no_id(data: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in data.items() if key != "id"})


def no_key(data: dict[str, Any]) -> str:
    return json.dumps(data | {"key": "#" + data["key"][:-3]})


def no_side(data: dict[str, Any]) -> str:
    return json.dumps(data | {"answers": data["answers"] | {"pair-001": {"fidelity": "both"}}})


def no_pair(data: dict[str, Any]) -> str:
    return json.dumps(data | {"answers": data["answers"] | {"pair-999": {}}})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_json, "not JSON: .*; expected the file that a page of `lsregen study make` saves"),
        (a_list, "no answers of a study; expected"),
        (no_format, "no answers of a study; expected"),
        (no_id, "'id' is missing or of another kind; expected the file that a page"),
        (no_key, "its key is damaged; expected"),
        (no_side, "answer 'both' to 'fidelity' of pair-001; expected left or right"),
        (no_pair, "'pair-999' is no pair of this study"),
    ],
)
def test_files_that_are_no_answers(study: Study, tmp_path: Path, spoil: Any, said: str) -> None:
    path = answered(study, tmp_path / "a.json", 1, lambda *_: True)
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match=said):
        read_answers([path])
    with pytest.raises(ConfigError, match=r"none.json: cannot be read"):
        read_answers([tmp_path / "none.json"])


def test_a_question_that_nobody_answered(study: Study, tmp_path: Path) -> None:
    path = answered(study, tmp_path / "a.json", 1, lambda *_: True, answers={})
    with pytest.raises(ConfigError, match="nobody answered 'Which picture looks more real"):
        scored(read_answers([path], partial=True))


@pytest.mark.parametrize(
    "data",
    [
        {"methods": ["a"], "first_left": {}},
        {"methods": ["a", "b"], "first_left": {"pair-001": "left"}},
        {"methods": ["a", "b"], "first_left": []},
        [],
        "x" * 2**25,  # a few kB, packed
    ],
)
def test_a_key_of_something_else(data: object) -> None:
    key = base64.b85encode(zlib.compress(json.dumps(data).encode(), 9)).decode()
    with pytest.raises(ConfigError, match="key is damaged"):
        read_key(key, "answers.json")
