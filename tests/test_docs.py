"""Whatever docs/ shows works: every block of a page, in order, in a folder of its own. Only the numbers of steps are less."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner

from lsregen import framework
from lsregen.apps.cli import COMMANDS, cli
from lsregen.evaluation.shapeworld.rows import read_rows
from lsregen.framework import discover
from lsregen.framework.config.presets import presets
from lsregen.framework.config.resolve import validate
from lsregen.framework.config.yaml_text import parse_yaml
from lsregen.framework.pipeline.engine import Engine, Renders
from lsregen.framework.pipeline.request import Request
from lsregen.framework.protocols import Run
from lsregen.framework.testing import check_distance
from lsregen.models import EMBEDDED
from recipes.shapeworld.export_coco import categories, export_coco
from tests.evaluation import networks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for folder in ("tutorial", "how-to", "reference", "explanation") for path in (DOCS / folder).glob("*.md"))
STEPS, SCENES, ITEMS = 2, 2, 5
LANGUAGES = {"sh", "text", "python", "yaml", "json", "", "eval-rst"}
WRITTEN = {"literalinclude", "toctree"} | {f"lsregen-{what}" for what in ("plugins", "presets", "properties")}  # by the builder
LONG = {"measure", "1-first-image", "2-own-layout", "lsregen", "compare"}


@dataclass(frozen=True)
class Block:
    """What stands between fences. `language`: of a plain fence; else the directive's name. `name`: of its file, if any."""

    language: str
    text: str
    name: str | None = None
    argument: str = ""


def blocks(page: Path) -> Iterator[Block]:
    content = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", content, flags=re.MULTILINE | re.DOTALL):
        fence, text = found.groups()
        directive = re.fullmatch(r"\{([\w-]+)\} ?(.*)", fence)
        name = re.search(r"`([\w.-]+)`:\n\n\Z", content[: found.start()])
        if directive:
            yield Block(directive[1], re.sub(r"\A(?::\w+:.*\n)+", "", text), argument=directive[2])
        else:
            yield Block(fence, text, name[1] if name else None)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody who types what a page shows, in the folder of the repository, with few steps; all is as it was afterwards."""
    begin, modules = Engine.begin, set(sys.modules)

    def short(self: Engine, request: Request, renders: Renders) -> Run:
        return begin(self, replace(request, config=replace(request.config, steps=STEPS)), renders)

    monkeypatch.setattr(Engine, "begin", short)
    monkeypatch.delenv("LSREGEN_PLUGINS", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("docs", "examples", "plugins", "constraints.txt"):
        (home / name).symlink_to(ROOT / name)
    monkeypatch.chdir(home)
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    yield Reader(site, monkeypatch)
    for name in set(sys.modules) - modules:
        if name.startswith("lsregen_"):
            del sys.modules[name]


def stand_ins(home: Path) -> None:
    """What the page on COCO expects on the machine, tiny: a model, a data set, and networks that know nothing."""
    (home / "stable-diffusion-v1-5").symlink_to(EMBEDDED / "shapeworld-base")
    export_coco(home / "coco", count=ITEMS, objects=2)
    (home / "coco" / "images").rename(home / "val2017")
    for path in (home / "coco" / "annotations").iterdir():
        path.rename(path.with_name(path.name.replace("eval", "val2017")))
    (home / "coco" / "annotations").rename(home / "annotations")
    networks.yolos(home / "detr", tuple(categories()))
    networks.inception(home / "inception-2015-12-05.pt")
    networks.clip(home / "clip")


def answer(page: Path, files: list[str]) -> None:
    """People who prefer what is on the left."""
    data = json.loads(page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0])
    answers = {pair: dict.fromkeys(data["questions"], "left") for pair in data["pairs"]}
    for name in files:
        said = {"format": data["format"], "key": data["key"], "id": name, "rater": name, "answers": answers}
        Path(name).write_text(json.dumps(said), encoding="utf-8")


@dataclass
class Reader:
    site: Path
    monkeypatch: pytest.MonkeyPatch
    names: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    ran: int = 0

    def does(self, block: Block) -> None:
        self.ran += 1
        if block.language == "sh":
            lines = block.text.replace("\\\n", " ").splitlines()
            self.said = "".join(self.types(shlex.split(line, comments=True)) for line in lines if line.strip())
        elif block.language == "python":
            output = StringIO()
            with redirect_stdout(output):
                exec(compile(block.text, "page", "exec"), self.names)
            self.said = output.getvalue()
        elif block.language == "text":
            sees(block.text, self.said)
        elif block.language in ("yaml", "json"):
            assert block.name is not None, f"a file without a name:\n{block.text}"
            Path(block.name).write_text(block.text, encoding="utf-8")
            if block.language == "yaml":
                values = parse_yaml(block.text, block.name)
                assert read_rows(block.name) if "rows" in values else validate(values, discover()).terms
        else:
            self.ran -= 1
            assert block.language in LANGUAGES | WRITTEN, f"a block of {block.language!r}, which nobody checks"

    def types(self, words: list[str]) -> str:
        if words[0] == "lsregen":
            if words[1:3] == ["study", "score"]:
                answer(Path("study.html"), words[3:])
            shorter = ["--count", str(SCENES)] if words[1:3] == ["evaluate", "shapeworld"] else []
            result = CliRunner().invoke(cli, [*words[1:], *shorter])
            assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
            return result.output
        if words[:2] == ["pip", "install"]:
            self.installs(words[2:])
            return ""
        assert words[:3] == ["python", "-m", "pytest"], f"a command that nobody checks: {shlex.join(words)}"
        assert all(Path(path).is_dir() for path in words[3:]), f"{shlex.join(words)}: run by tests/test_examples.py, if it exists"
        return ""

    def installs(self, what: list[str]) -> None:
        """Packages of the repository are found as if they were installed; others are expected to be there."""
        for name in what:
            if not name.startswith("./"):
                assert name in ("-c", "-e", "constraints.txt", ".[eval]", "pytest"), (
                    f"pip install {name}: nobody knows this package"
                )
                continue
            project = tomllib.loads(Path(name, "pyproject.toml").read_text(encoding="utf-8"))["project"]
            points = [
                "\n".join([f"[{group}]", *(f"{point} = {module}" for point, module in found.items())])
                for group, found in project["entry-points"].items()
            ]
            info = self.site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
            (info / "entry_points.txt").write_text("\n".join(points) + "\n")
            self.monkeypatch.syspath_prepend(str(Path(name, "src").resolve()))


def sees(wanted: str, said: str) -> None:
    """Output as a page shows it: `...` stands for anything, and lines may be broken elsewhere."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(wanted, said, flags), f"the page shows\n{wanted}\nbut this was printed\n{said}"


def named(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def with_blocks() -> list[Any]:
    runnable = ("sh", "python", "yaml", "json")
    pages = [page for page in PAGES if any(block.language in runnable for block in blocks(page))]
    return [
        pytest.param(page, id=named(page), marks=[pytest.mark.long if page.stem in LONG else pytest.mark.slow]) for page in pages
    ]


@pytest.mark.parametrize("page", with_blocks())
def test_every_block_of_a_page_works(page: Path, reader: Reader) -> None:
    if page.stem == "compare":
        stand_ins(Path.cwd())
    for block in blocks(page):
        reader.does(block)
    assert reader.ran


def test_the_pages_have_something_of_everything() -> None:
    found = [block.language for page in PAGES for block in blocks(page)]
    assert {"sh", "text", "python", "yaml", "json", "literalinclude"} <= set(found)
    assert len(with_blocks()) >= 13
    commands = [line.split()[1] for page in PAGES for block in blocks(page) if block.language == "sh"
                for line in block.text.splitlines() if line.startswith("lsregen ")]  # fmt: skip
    more = [(DOCS / name).read_text(encoding="utf-8") for name in ("protocol.md", "scale.md")]
    elsewhere = re.findall(r"^lsregen (\w+)", "\n".join(more), flags=re.MULTILINE)
    packages = [tomllib.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("plugins/*/pyproject.toml")]
    added = {name for package in packages for name in package["project"]["entry-points"].get("lsregen.commands", {})}
    assert {"study", "caption"} <= added
    assert {*commands, *elsewhere} == {*COMMANDS, *added}


@pytest.mark.parametrize("shown", ["a\n... c\n", "a b c\n"])
def test_shown_output_is_compared(shown: str) -> None:
    sees(shown, "a b c\n")
    with pytest.raises(AssertionError, match="but this was printed"):
        sees(shown, "a b d\n")


def test_a_block_that_nobody_checks_is_refused(reader: Reader) -> None:
    for block in (Block("ruby", "puts 1"), Block("sh", "curl -O x"), Block("sh", "pip install y"), Block("yaml", "steps: 5")):
        with pytest.raises(AssertionError):
            reader.does(block)
    with pytest.raises(AssertionError, match="No such option"):
        reader.does(Block("sh", "lsregen tokens --loud x"))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_refers_to_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in link or (page.parent / link).exists(), link
    for path in re.findall(r"`((?:framework|examples|docs|recipes|evaluation)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    for block in blocks(page):
        if block.language == "literalinclude":
            assert (page.parent / block.argument).is_file(), block.argument


def test_the_tutorial_shows_every_file_of_its_packages() -> None:
    shown = {
        (page.parent / block.argument).resolve() for page in PAGES for block in blocks(page) if block.language == "literalinclude"
    }
    folder = ROOT / "examples" / "lsregen-centre"
    wanted = {path for kind in ("*.py", "*.toml", "*.yaml") for path in folder.rglob(kind) if "build" not in path.parts}
    mosaic = DOCS / "tutorial" / "lsregen-mosaic" / "src" / "lsregen_mosaic"
    assert shown >= wanted | {mosaic / "background.py", mosaic / "mosaic.py"}


def test_every_public_name_is_in_the_reference_once() -> None:
    text = (DOCS / "reference" / "framework.md").read_text(encoding="utf-8")
    names = re.findall(r"^\.\. auto(?:class|function|data|exception):: (\w+)$", text, flags=re.MULTILINE)
    assert sorted(names) == sorted(framework.__all__)


def test_the_distance_of_the_docstring_conforms() -> None:
    parts = re.findall(r"((?:^(?: {4}.*)?\n)+)", framework.__doc__ or "", flags=re.MULTILINE)
    (source,) = (dedent(part) for part in parts if "register_distances" in part)
    names: dict[str, Any] = {}
    exec(compile(source, "docstring", "exec"), names)
    registered: dict[str, type] = {}
    names["register_distances"](registered.__setitem__)
    check_distance(registered["spread"]())


def test_every_preset_has_a_page() -> None:
    for name in presets():
        assert f"`{name}`" in (DOCS / "presets.md").read_text() or f"--guidance {name}" in (
            DOCS / "how-to" / f"{name.partition('@')[0]}.md"
        ).read_text(encoding="utf-8")


def test_every_picture_is_shown_and_made_by_the_script() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (*PAGES, DOCS / "index.md", ROOT / "README.md")]
    shown = {name for page in pages for name in re.findall(r"\((?:docs/|\.\./)?pictures/([\w-]+)\.png", page)}
    assert shown == {path.stem for path in (DOCS / "pictures").glob("*.png")}
    script = (DOCS / "pictures.py").read_text(encoding="utf-8")
    assert shown == set(re.findall(r'^    "([\w-]+)": ', script, flags=re.MULTILINE))
