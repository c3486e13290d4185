"""`lsregen show`: everything of a run is on its page, what is missing is said, and nothing in a report becomes markup."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps.showing.records import read_record
from lsregen.framework.config.yaml_text import parse_yaml
from tests.apps.conftest import BOXES, PROMPT, StandIn

Call = Callable[..., Result]
STEM = "a-red-circle-and-a-blue-square"
VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page as a reader sees it: its elements with their attributes, and its text; every element must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.words, self.stack = list[tuple[str, dict[str, str]]](), list[str](), list[str]()
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, cls: str = "") -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag and (not cls or cls in attrs.get("class", "").split())]


@pytest.fixture
def made(run: Call, stand_in: StandIn) -> dict[str, Any]:
    """A run of three images, in the folder `outputs`; its report."""
    assert run("generate", *BOXES, "--count", "3", "--batch", "2").exit_code == 0
    return json.loads(Path("outputs/report.json").read_text())


def change(**values: Any) -> None:
    path = Path("outputs/report.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shown(run: Call, *args: str) -> Page:
    result = run("show", *(args or ("outputs",)))
    assert result.exit_code == 0, result.output
    path = re.split(r"  \d", result.stdout)[0]
    return Page(Path(path).read_text(encoding="utf-8"))


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("Error: ") == 1
    for text in said:
        assert text in result.stderr


def files_in(page: Page) -> list[bytes]:
    uris = [attrs["src"].removeprefix("data:image/png;base64,") for attrs in page.all("img")]
    return [base64.b64decode(uri, validate=True) for uri in uris]


def test_everything_is_there(run: Call, made: dict[str, Any]) -> None:
    page = shown(run)
    embedded = files_in(page)
    for image in made["images"]:
        for key in ("path", "layout_path", "attention_path"):
            assert Path("outputs", image[key]).read_bytes() in embedded
        assert f"Seed {image['seed']}" in page.text
    assert len(embedded) == 3 * 4  # with a thumbnail each
    assert [len(page.all("svg", "chart")), len(page.all("svg", "spark"))] == [6, 3]
    assert len(page.all("circle", "dot")) == 3 * 2 * 4 + 3  # every evaluation, energy and strength, and a legend for each image
    for said in (PROMPT, "layout-guidance", "stand-in", "0" * 64, "red circle", "0.05, 0.1, 0.45, 0.6", "float32"):
        assert said in page.text
    assert "4 evaluations in 4 steps, 1 to 4; every one updated the image." in page.text


def test_the_small_picture_and_the_weights_that_made_it(run: Call, stand_in: StandIn) -> None:
    Path("inversion.yaml").write_text("guidance: {pull: {extractor: gligen_inversion, distance: l2}}\nsource: a paper")
    assert run("generate", *BOXES, "--guidance", "inversion.yaml").exit_code == 0
    page = shown(run)
    small = Path(f"outputs/{STEM}-0-source.png")
    assert small.read_bytes() in files_in(page)
    assert "The small picture that another model rendered first" in page.text
    assert page.text.count("0" * 64) == 2
    assert "unet of small" in page.text
    assert "Seed 0" in shown(run, str(small)).text
    small.unlink()
    assert f"{small.name} is not there any more" in shown(run).text
    run("generate", *BOXES)
    assert "small picture" not in shown(run).text


def test_it_stands_alone(run: Call, made: dict[str, Any]) -> None:
    page = shown(run)
    html = Path("outputs/report.html").read_text()
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    for _, attrs in page.tags:
        for key in ("src", "href"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    assert str(Path.cwd()) not in html
    anchors, ids = [a["href"][1:] for a in page.all("a")], [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert set(anchors) <= set(ids)
    assert len(anchors) == 3
    assert len(ids) == len(set(ids))


def test_charts_can_be_read_aloud(run: Call, made: dict[str, Any]) -> None:
    page = shown(run)
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for attrs in page.all("svg", "chart"):
        assert attrs["role"] == "img"
        assert set(attrs["aria-labelledby"].split()) <= ids
    assert all("alt" in attrs for attrs in page.all("img"))
    assert "Energy of the term layout over the steps 1 to 4, from 0 to 0.3, in 4 evaluations; 4 of them updated" in page.text


def test_a_blend_is_shown_as_it_was_given(run: Call, made: dict[str, Any]) -> None:
    assert "Strength of the term layout over the steps 1 to 4, from 30 to 30" in (before := shown(run).text)
    assert "Strength γ" in before
    images = made["images"]
    for each in images[0]["energies"]:
        each["strength"] = 0.25
    change(images=images[:1], config={**made["config"], "guidance": {"layout": {"gamma": 1.0, "blend": 0.5}}})
    assert "Blend of the term layout over the steps 1 to 4, from 0.5 to 0.5" in (after := shown(run).text)
    assert "Strength γ" not in after


def test_one_picture_is_shown_by_itself(run: Call, made: dict[str, Any]) -> None:
    for name in (f"{STEM}-1.png", f"{STEM}-1-layout.png"):
        page = shown(run, f"outputs/{name}")
        assert "Seed 1" in page.text
        assert "Seed 0" not in page.text
        assert "1 of 3" in page.text
    assert {path.name for path in Path("outputs").glob("*.html")} == {f"{STEM}-1.html"}


def test_a_picture_is_of_the_last_run_that_speaks_of_it(run: Call, made: dict[str, Any]) -> None:
    """The report of three images is kept aside; the second run made the first of them again, from another prompt."""
    run("generate", "--prompt", "a dog", "--name", STEM, "--trace", "0")
    assert "a dog" in shown(run, f"outputs/{STEM}-0.png").text
    assert PROMPT in shown(run, f"outputs/{STEM}-1.png").text
    page = shown(run, "outputs/report-1.json")
    assert page.text.count(f"{STEM}-0.png was replaced by a later run") == 3
    assert Path(f"outputs/{STEM}-0.png").read_bytes() not in files_in(page)
    assert Path(f"outputs/{STEM}-1.png").read_bytes() in files_in(page)
    assert Path("outputs/report-1.html").exists()


def test_the_settings_work_again(run: Call, made: dict[str, Any]) -> None:
    change(config={**made["config"], "cfg": 1e-05, "note": "<b>é"})
    html = (shown(run), Path("outputs/report.html").read_text())[1]
    blocks = [unescape(text) for text in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", html, flags=re.DOTALL)]
    command, settings = blocks
    assert parse_yaml(settings, "page") == {**made["config"], "cfg": 1e-05, "note": "<b>é"}
    words = shlex.split(command)
    assert words[:4] == ["lsregen", "generate", "--prompt", PROMPT]
    assert words[4:8] == list(BOXES)
    assert words[8:] == ["--model", "stand-in", "--guidance", "run.yaml", "--seed", "0"]


def test_no_text_becomes_markup(run: Call, made: dict[str, Any]) -> None:
    layout = {"regions": [{"phrase": EVIL, "box": [0, 0, 1, 1]}]}
    entry = {"step": 0, "term": EVIL, "energy": 1.0, "updated": True, "strength": 1.0}
    image = {**made["images"][0], "energies": [entry], "path": EVIL, "layout_path": None}
    image["attention_path"] = f"../{EVIL}"
    model = {"name": EVIL, "components": {EVIL: {"parameters": 1, "sha256": {EVIL: EVIL}}}}
    texts = dict.fromkeys(("prompt", "negative", "guidance", "device", "dtype"), EVIL)
    config = {EVIL: EVIL, "guidance": {EVIL: {"extractor": {"name": EVIL}, "distance": EVIL, "site": EVIL}}}
    change(**texts, images=[image], layout=layout, model=model, config=config, versions={EVIL: EVIL}, seconds={EVIL: 1.0})
    page = shown(run)
    html = Path("outputs/report.html").read_text()
    assert page.all("script") == page.all("b") == []
    assert "<script" not in html
    assert {name for _, attrs in page.tags for name in attrs if name.startswith("on")} == set()
    assert page.text.count("alert(1)") > 15
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in re.sub(r"[\d.]*px|#\w+|data:\S+", "", page.text)


def test_nothing_outside_the_folder_is_read(run: Call, made: dict[str, Any]) -> None:
    own = Path("outputs", f"{STEM}-0.png").read_bytes()
    Path("secret.png").write_bytes(own)
    Image.new("RGB", (8, 8)).save("outputs/foreign.png")
    Path("outputs/cut.png").write_bytes(own[: own.index(b"IDAT") + 6])
    first = made["images"][0]
    for name, said in (
        ("../secret.png", "'../secret.png' is no file beside the report."),
        (str(Path("secret.png").resolve()), "is no file beside the report."),
        ("..", "is not there any more"),
        ("foreign.png", "foreign.png is not a picture that lsregen made."),
        ("cut.png", "cut.png is damaged."),
    ):
        change(images=[{**first, "layout_path": name}])
        page = shown(run)
        assert said in page.text
        assert len(page.all("img")) == 3  # the image, its attention, and the thumbnail


def test_what_is_missing_is_said(run: Call, made: dict[str, Any]) -> None:
    for path in Path("outputs").glob(f"{STEM}-0*.png"):
        path.unlink()
    page = shown(run)
    assert page.text.count("is not there any more: it was moved, renamed or deleted.") == 3
    assert len(page.all("svg", "chart")) == 6  # the curves need no picture
    config = {**made["config"], "guidance": {"late": {"extractor": "x", "distance": {"name": "y"}}}}
    change(images=[{**made["images"][1], "energies": []}], config=config)
    assert "Never evaluated: its window holds no step of this run." in shown(run).text
    change(images=[{"seed": 1, "path": f"{STEM}-1.png", "energies": []}], config={}, model={}, versions={}, seconds={})
    text = shown(run).text
    assert "No guidance: nothing pulled" in text
    assert "No times were recorded." in text
    assert "No configuration was recorded." in text
    assert "No hashes were recorded." in text
    change(images=[{"seed": 1, "path": "absent.png", "energies": []}])
    assert "absent.png is not there any more" in shown(run).text


def test_without_boxes_or_trace(run: Call, stand_in: StandIn) -> None:
    run("generate", "--no-metadata")
    page = shown(run)
    assert "No boxes or masks were given." in page.text
    assert "No attention was traced" in page.text
    assert len(page.all("img")) == 2


def test_masks_are_to_be_given_again(run: Call, stand_in: StandIn) -> None:
    Image.new("L", (6, 4), 255).save("mask.png")
    run("generate", "--mask", "red circle=mask.png", "--box", "blue square=0,0,1,1")
    text = shown(run).text
    assert "red circle a mask" in text
    assert "--box 'blue square=0.0,0.0,1.0,1.0' --model" in text
    assert "with its masks given again" in text


def test_an_interrupted_run(run: Call, stand_in: StandIn) -> None:
    def interrupt(batch: int) -> None:
        if batch == 1:
            raise KeyboardInterrupt

    stand_in.before_batch = interrupt
    run("generate", *BOXES, "--count", "3")
    assert "Interrupted: 1 of 3 images were finished." in shown(run).text
    change(interrupted=False)
    assert "Ended by an error: 1 of 3 images were finished." in shown(run).text


def test_many_images_are_cut_and_prompts_are_told_apart(run: Call, made: dict[str, Any]) -> None:
    prompts = ["one <i>", "two", *["three"] * 101]
    change(images=[{**made["images"][0], "prompt": prompt, "energies": []} for prompt in prompts])
    page = shown(run)
    assert len(page.all("section", "image")) == 100
    assert "3 more images of this run are left out of this page" in page.text
    assert "3 prompts" in page.text
    assert "one <i>" in page.text


def test_images_of_different_settings(run: Call, made: dict[str, Any]) -> None:
    report = json.loads(Path("outputs/report.json").read_text())
    shared = report.pop("config")
    for i, image in enumerate(report["images"]):
        image["config"] = {**shared, "cfg": 1.0 if i else 9.0}
    Path("outputs/report.json").write_text(json.dumps(report))
    text = shown(run).text
    assert "Settings of seed 0" in text
    assert "Settings of the seeds 1, 2" in text


def test_small_pictures_are_enlarged_by_pixels_and_large_ones_are_not(run: Call, made: dict[str, Any]) -> None:
    sizes = {(int(a["width"]), int(a["height"]), a.get("class", "")) for a in shown(run).all("img")}
    assert (24 * 20, 16 * 20, "pixelated") in sizes
    assert (24 * 32, 16 * 32, "") in sizes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested"),
        ("[]", "expected a mapping with the format 'lsregen-report'"),
        ('{"format": "lsregen-evaluation"}', "not a report of lsregen generate"),
        ('{"format": "lsregen-report"}', "images: missing"),
        ('{"format": "lsregen-report", "images": []}', "images: there are none"),
        ('{"format": "lsregen-report", "images": 3}', "images: 3 is not a list"),
        ('{"format": "lsregen-report", "images": [3]}', "images[0]: 3 is not a mapping"),
        ('{"format": "lsregen-report", "images": [{"seed": 0}]}', "images[0].path: missing"),
    ],
)
def test_a_foreign_or_damaged_report(run: Call, text: str, said: str) -> None:
    Path("report.json").write_text(text)
    refused(run("show", "."), "report.json", said)
    refused(run("show", "report.json"), "report.json", said)
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("energy", "low", "images[0].energies[1].energy: 'low' is not"),
        ("energy", float("nan"), "energies[1].energy: nan is not"),
        ("energy", 1e300, "energy: 1e+300 is out of range"),
        ("strength", None, "energies[1].strength: None is not a number"),
        ("step", -1, "step: -1 is not in"),
        ("step", 10**400, "step: "),
        ("updated", 1, "updated: 1 is not true or false"),
    ],
)
def test_a_damaged_evaluation(run: Call, made: dict[str, Any], key: str, value: Any, said: str) -> None:
    images = made["images"]
    images[0]["energies"][1][key] = value
    change(images=images)
    refused(run("show", "outputs"), "a damaged report; make the run again", said)


def test_a_bad_layout_and_many_faults(run: Call, made: dict[str, Any]) -> None:
    change(layout={"regions": [{"phrase": "a", "box": [0, 0, 2, 1]}]})
    refused(run("show", "outputs"), "right=2 is out of range")
    change(layout={}, images=[{"seed": "x" * 1000, "path": i, "energies": []} for i in range(50)])
    result = run("show", "outputs")
    refused(result, "and 95 more")
    assert len(result.stderr) < 2000


def test_what_cannot_be_shown(run: Call, made: dict[str, Any]) -> None:
    Path("empty").mkdir()
    Image.new("RGB", (8, 8)).save("outputs/other.png")
    refused(run("show", "absent"), "absent: not there; expected the folder that lsregen generate wrote")
    refused(run("show", "empty"), "empty: no report.json in this folder")
    refused(run("show", "outputs/other.png"), "other.png: no report beside it speaks of this picture")
    refused(run("show", "outputs", "--out", "page.txt"), "--out 'page.txt': expected a file that ends in .html")


def test_only_its_own_pages_are_replaced(run: Call, made: dict[str, Any]) -> None:
    shown(run, "outputs", "--out", "new/page.html")
    before = Path("new/page.html").read_bytes()
    Path("new/page.html").write_bytes(before + b"<!-- -->")
    shown(run, "outputs", "--out", "new/page.html")
    assert Path("new/page.html").read_bytes() == before
    Path("mine.html").write_text("<p>mine</p>")
    refused(run("show", "outputs", "--out", "mine.html"), "mine.html exists and was not made by lsregen show")
    assert Path("mine.html").read_text() == "<p>mine</p>"
    Path("folder.html").mkdir()
    refused(run("show", "outputs", "--out", "folder.html"), "folder.html: in the way")
    refused(run("show", "outputs", "--out", "mine.html/page.html"), "in the way")


def test_half_a_character_is_no_crash(run: Call, made: dict[str, Any]) -> None:
    """No prompt of a run holds one: whatever wrote it, the report was changed since."""
    change(prompt="a \ud800 dog", images=[{**image, "prompt": "a \ud800 dog"} for image in made["images"]])
    refused(run("show", "outputs"), "half of a character")


def test_keys_that_are_not_known_are_ignored(run: Call, made: dict[str, Any]) -> None:
    images = made["images"]
    images[0]["energies"][0]["later"] = images[0]["later"] = 1
    change(images=images, later={"a": 1})
    assert read_record(Path("outputs/report.json")).images[0].seed == 0
    shown(run)
