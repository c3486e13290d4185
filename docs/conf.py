"""The documentation, built by `make docs`: pages in Markdown, and a reference made from docstrings and from what is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lsregen.apps.plugins import help_of, options_of
from lsregen.framework import LoadOptions, discover
from lsregen.framework.config.options import Option, describe_options
from lsregen.framework.config.presets import load_preset, presets
from lsregen.framework.testing import (
    DETECTOR_PROPERTIES,
    DISTANCE_PROPERTIES,
    EXTRACTOR_PROPERTIES,
    MODEL_PROPERTIES,
    SAMPLER_PROPERTIES,
)

project = "lsregen"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
exclude_patterns = ["tutorial/lsregen-mosaic"]
html_theme = "furo"
html_title = "lsregen"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"  # docstrings put code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__, __weakref__"}
napoleon_use_rtype = False
suppress_warnings = ["autodoc.mocked_object"]


class Listing(SphinxDirective):
    """A directive without options, whose content is Markdown made at build time."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(StringList(list(self.lines()), source=self.name), self.content_offset, holder, match_titles=True)
        return holder.children


class PluginListing(Listing):
    """`{lsregen-plugins}`: every plugin that lsregen itself registers, with its options."""

    def lines(self) -> Iterator[str]:
        for plugin in discover(only=()).all():
            yield from (f"## {plugin.kind} `{plugin.name}`", "", help_of(plugin), "")
            yield from option_table(options_of(plugin))


class LoadOptionListing(Listing):
    """`{lsregen-load-options}`: how a model is loaded."""

    def lines(self) -> Iterator[str]:
        yield from option_table(describe_options(LoadOptions))


def option_table(described: Sequence[Option]) -> Iterator[str]:
    if described:
        yield from ("| option | type | default | meaning |", "|---|---|---|---|")
    for option in described:
        default = "(required)" if option.required else f"`{json.dumps(option.default)}`"
        yield f"| `{option.key}` | {option.type} | {default} | {escaped(option.help)} |"
    yield ""


class PresetListing(Listing):
    """`{lsregen-presets}`: every preset with its description and its source."""

    def lines(self) -> Iterator[str]:
        yield from ("| preset | what it does | from |", "|---|---|---|")
        for name in presets():
            config = load_preset(name)
            yield f"| `{name}` | {escaped(config['description'])} | {escaped(config['source'])} |"


class PropertyListing(Listing):
    """`{lsregen-properties}`: the properties that the testing kit checks."""

    def lines(self) -> Iterator[str]:
        kinds = {"extractor": EXTRACTOR_PROPERTIES, "distance": DISTANCE_PROPERTIES, "sampler": SAMPLER_PROPERTIES}
        for kind, properties in (kinds | {"model": MODEL_PROPERTIES, "detector": DETECTOR_PROPERTIES}).items():
            yield from (f"## Of a {kind}".replace("a e", "an e"), "", "| property | meaning |", "|---|---|")
            yield from (f"| `{name}` | {escaped(meaning)} |" for name, meaning in properties.items())
            yield ""


def escaped(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", r"\|")


def readable_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are written for people who read code; here what Sphinx would take for markup is marked as what it is."""
    code, text = False, 0  # within code; the last line of text
    for i, line in enumerate(lines):
        indented, new = line.startswith("    "), i > 0 and not lines[i - 1]
        if not line:
            continue
        if indented and new and not code:  # a paragraph that is indented by itself
            lines[text] += ":" if lines[text].endswith(":") else " ::"
            code = True
        elif not indented:
            code, text = False, i
        if not code:
            lines[i] = outside_code(line)


def outside_code(line: str) -> str:
    """A line with the characters escaped that would begin markup, if they are not in code."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts)


def outward_links(app: Sphinx, page: str, content: list[str]) -> None:
    """Links to files of the repository outside of these pages, and to folders, become their names."""

    def named(link: re.Match[str]) -> str:
        target = (Path(app.srcdir, page).parent / link[2].partition("#")[0]).resolve()
        inside = target.is_relative_to(app.srcdir) and not target.is_dir()
        return link[0] if inside else f"{link[1]} (`{target.relative_to(Path(app.srcdir).parent)}`)"

    content[0] = re.sub(r"(?<!!)\[([^]]*)\]\((\.\.?/[^)]*)\)", named, content[0])


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", readable_docstring, priority=400)  # before napoleon reads `Args:`
    app.connect("source-read", outward_links)
    app.add_directive("lsregen-properties", PropertyListing)
    app.add_directive("lsregen-load-options", LoadOptionListing)
    app.add_directive("lsregen-plugins", PluginListing)
    app.add_directive("lsregen-presets", PresetListing)
