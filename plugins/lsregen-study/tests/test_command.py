"""`lsregen study`: the page is driven in a browser from the first pair to the saved file, and the file is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from lsregen_study.study import read_key

from tests.apps.browser import SHAPES, browser
from tests.evaluation import drawn

Call = Callable[..., Result]
METHODS = {"ours": drawn.true, "theirs": drawn.empty}
MAKE = ("study", "make", "run", "--first", "ours", "--second", "theirs", "--count", "3", "--out", "study.html")


@pytest.fixture
def made(run: Call, tmp_path: Path) -> str:
    drawn.run(tmp_path / "run", drawn.plan(tuple(METHODS), items=5), METHODS)
    result = run(*MAKE)
    assert result.exit_code == 0, result.output
    assert "study.html" in result.stdout
    return (tmp_path / "study.html").read_text()


def test_the_page_is_blind_and_stands_alone(made: str) -> None:
    visible = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", made)
    assert "ours" not in visible
    assert "theirs" not in visible
    assert not re.search(r"https?://(?!www\.w3\.org)", visible)
    assert "default-src 'none'" in visible
    assert made.count("data:image/png;base64,") == 6
    assert "Visual Fidelity" not in visible  # people are asked in words, not in criteria
    assert visible.count("Which picture looks more real?") == 3


def test_the_same_seed_makes_the_same_page(run: Call, made: str, tmp_path: Path) -> None:
    assert run(*MAKE).exit_code == 0
    assert (tmp_path / "study.html").read_text() == made
    assert run(*MAKE, "--seed", "1").exit_code == 0
    assert (tmp_path / "study.html").read_text() != made


def answer(page: Any, side: str) -> None:
    """All questions of the pair that is shown."""
    shown = page.locator(".pair:not([hidden])")
    for question in range(3):
        shown.locator("fieldset").nth(question).get_by_text(side, exact=True).click()


@pytest.mark.slow
@pytest.mark.browser
def test_from_the_first_pair_to_the_saved_file(run: Call, made: str, tmp_path: Path) -> None:
    key = read_key(json.loads(made.partition('id="data">')[2].partition("</script>")[0])["key"], "the page")
    with browser(tmp_path) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto((tmp_path / "study.html").as_uri())
        page.fill("#rater", "Ada")
        page.click("#begin")
        following = page.locator(".pair:not([hidden]) .next")
        assert following.is_disabled()
        assert page.locator(".pair:not([hidden]) img").evaluate_all("all => all.every(one => one.naturalWidth === 64)")
        for i in range(3):
            name = page.locator(".pair:not([hidden])").get_attribute("id")
            answer(page, "Left" if key["first_left"][name] else "Right")
            assert page.locator(".progress").get_attribute("aria-valuenow") == str(i + 1)
            if i == 1:
                page.reload()  # nothing is lost
                assert page.locator(".pair:not([hidden])").get_attribute("id") == name
                assert page.locator(f"#{name} input:checked").count() == 3
            page.locator(".pair:not([hidden]) .next").click()
        page.click("#again")
        page.locator(".pair:not([hidden]) fieldset").first.get_by_text(
            "Right" if key["first_left"]["pair-001"] else "Left", exact=True
        ).click()  # a mind is changed
        for _ in range(3):
            page.locator(".pair:not([hidden]) .next").click()
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "answers.json")
        assert re.fullmatch(r"answers-\d+\.json", download.value.suggested_filename)
        assert "Saved as answers-" in page.locator("#saved").inner_text()
        assert faults == []
    saved = json.loads((tmp_path / "answers.json").read_text())
    assert saved["rater"] == "Ada"
    assert saved["order"] == ["pair-001", "pair-002", "pair-003"]
    assert set(saved["seconds"]) == set(saved["answers"]) == {"pair-001", "pair-002", "pair-003"}
    result = run("study", "score", "answers.json", "--json", "study.json")
    assert result.exit_code == 0, result.output
    assert "| ours over theirs | 66.7 %" in result.stdout
    numbers = json.loads((tmp_path / "study.json").read_text())
    assert numbers["questions"]["consistency"]["preferred"] == 3
    assert numbers["questions"]["fidelity"]["preferred"] == 2


@pytest.mark.slow
@pytest.mark.browser
def test_several_people_at_one_machine(run: Call, made: str, tmp_path: Path) -> None:
    """Whoever follows begins with no answers, under another id, and the answers before are saved first."""
    with browser(tmp_path) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script("Math.random = () => 0")  # the shuffled order is known
        page.goto((tmp_path / "study.html").as_uri())
        following = page.get_by_role("button", name="New rater")
        assert following.is_hidden()  # there is nothing to leave
        page.fill("#rater", "Ada")
        page.click("#begin")
        answer(page, "Left")
        following.click()
        assert "The answers of Ada are not saved yet." in page.locator("#unsaved").inner_text()
        page.click("#stay")
        assert page.locator("#pair-001 input:checked").count() == 3
        following.click()
        with page.expect_download() as download:
            page.click("#save-first")
        download.value.save_as(tmp_path / "ada.json")
        assert page.locator("#start").is_visible()
        assert page.locator("#rater").input_value() == ""
        assert page.locator("input:checked").count() == 0
        page.reload()
        assert page.locator("input:checked").count() == 0
        page.fill("#rater", "Ben")
        page.click("#begin")
        order: list[str] = []
        for i in range(3):
            shown = page.locator(".pair:not([hidden])")
            order.append(shown.get_attribute("id"))
            assert f"Pair {i + 1} of 3" in shown.inner_text()
            answer(page, "Right")
            assert shown.locator(".next").inner_text() == ("Finish" if i == 2 else "Next pair")
            shown.locator(".next").click()
        assert order == ["pair-002", "pair-003", "pair-001"]
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "ben.json")
        following.click()  # all is saved, so nothing is asked
        assert page.locator("#start").is_visible()
        assert page.locator("#saved").inner_text() == ""
        assert faults == []
    ada, ben = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ada", "ben"))
    assert ada["id"] != ben["id"]
    assert (ada["rater"], set(ada["answers"])) == ("Ada", {"pair-001"})
    assert (ben["rater"], ben["order"], set(ben["answers"])) == ("Ben", order, set(order))
    assert "2 raters, 4 / 4 / 4 answers" in run("study", "score", "ada.json", "ben.json", "--partial").stdout


@pytest.mark.slow
@pytest.mark.browser
def test_pictures_of_another_shape_keep_it(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(tuple(METHODS), items=2), {"ours": drawn.true, "theirs": drawn.wide})
    result = run(*MAKE[:-4], "--count", "2", "--out", "study.html")
    assert result.exit_code == 0, result.output
    with browser(tmp_path) as context:
        page = context.new_page()
        page.goto((tmp_path / "study.html").as_uri())
        page.click("#begin")
        page.locator(".pair:not([hidden]) .show-boxes").check()
        found = page.evaluate(SHAPES)
    assert sorted(each["own"] for each in found) == [1, 2]
    assert [each["shown"] for each in found] == pytest.approx([each["own"] for each in found], rel=0.01)
    assert max(each["apart"] for each in found) < 1


def test_two_runs_of_one_method_each(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "a", drawn.plan(("ours",), items=2), METHODS)
    drawn.run(tmp_path / "b", drawn.plan(("theirs",), items=2), METHODS)
    drawn.run(tmp_path / "c", drawn.plan(("ours",), items=2), {"ours": drawn.mirrored})
    result = run("study", "make", "a", "b", "--count", "2", "--out", "study.html")
    assert "2 pairs of ours and theirs" in result.stdout
    assert "2 pairs of ours (a) and ours (c)" in run("study", "make", "a", "c", "--count", "2", "--out", "study.html").stdout


BAD = {
    "no method": (("run", "--first", "ours"), "it has several methods (ours, theirs); name one (--second)"),
    "no such method": (("run", "--first", "our", "--second", "theirs"), "has no such method (did you mean 'ours'?)"),
    "one method twice": (("run", "--first", "ours", "--second", "ours"), "are both 'ours' of run; expected two methods"),
    "three runs": (("run", "run", "run"), "3 runs; expected one or two"),
    "too few items": (("run", "--first", "ours", "--second", "theirs", "--count", "9"), "have only 5 items in common"),
    "no items": (
        ("run", "more", "--first", "ours", "--second", "theirs"),
        "'theirs' of more has 5 items such as 'more-0'; a study",
    ),
    "no seeds": (
        ("run", "seeds", "--first", "ours", "--second", "theirs"),
        "'ours' of run and 'theirs' of seeds have 5 items in common, and none with the same seed: 'scene-0' has 0 and 1;",
    ),
    "unfinished": (("empty", "--first", "ours", "--second", "theirs"), "no pictures by 'ours' are finished"),
    "no run": ((".", "--first", "ours"), "no plan.jsonl in it"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=list(BAD))
def test_bad_input(run: Call, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    plan = drawn.plan(tuple(METHODS), items=5)
    drawn.run(tmp_path / "run", plan, METHODS)
    drawn.run(tmp_path / "empty", plan, METHODS, but=range(10))
    drawn.run(tmp_path / "more", drawn.plan(tuple(METHODS), items=5, name="more"), METHODS)
    drawn.run(tmp_path / "seeds", drawn.plan(tuple(METHODS), items=5, seeds=2), METHODS, but=range(0, 20, 2))
    result = run("study", "make", "--count", "2", "--out", "study.html", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "study.html").exists()


def test_what_is_no_page_of_ours_is_not_replaced(run: Call, made: str, tmp_path: Path) -> None:
    (tmp_path / "study.html").write_text("mine")
    assert "was not made by lsregen" in run(*MAKE).stderr
    (tmp_path / "study.json").write_text("{}")
    assert "expected the file that a page" in run("study", "score", "study.json").stderr
    assert "choose another --json" in run("study", "score", "x.json", "--json", "study.json").stderr


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 3000, "\\ud800", "{", '{"a": 1, "a": 2}', "\x00"])
@pytest.mark.parametrize("command", [("make", "a.json", "--out", "a.html"), ("score", "a.json")])
def test_files_that_hold_something_else(run: Call, command: tuple[str, ...], content: str) -> None:
    Path("a.json").write_text(content)
    result = run("study", *command)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert [path.name for path in Path().iterdir()] == ["a.json"]


@pytest.mark.parametrize("place", ["x" * 300, "/dev/full", "file/more", "folder"])
def test_results_that_cannot_be_written_are_refused_first(run: Call, place: str) -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    assert "--json" in run("study", "score", "answers.json", "--json", place).stderr
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder"]
