"""Configurations as YAML: files, references, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsregen.framework import ConfigError
from lsregen.framework.config.merging import apply_sets, merge
from lsregen.framework.config.presets import load_preset
from lsregen.framework.config.yaml_text import load_yaml, parse_value, parse_yaml


def test_references_to_other_keys_are_resolved() -> None:
    text = "steps: 20\nguidance:\n  a-b: {gamma: 3}\n  c: {gamma: '${guidance.a-b.gamma}', until: '${.gamma}'}\nseed: ${steps}"
    found = parse_yaml(text, "here")
    assert found["seed"] == 20
    assert found["guidance"]["c"] == {"gamma": 3, "until": 3}


@pytest.mark.parametrize(
    "text",
    [
        "model: ${oc.env:HOME}",
        "model: '${ oc.env : HOME }'",
        'model: "\\x24{oc.env:HOME}"',
        "source: oc\nmodel: '${${source}.env:HOME}'",
        "guidance: {a: [{b: '${oc.decode:x}'}]}",
        "model: pre-${oc.env:HOME,x}-post",
    ],
)
def test_resolvers_are_refused_however_they_are_written(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^here: .*only references to other keys, such as .* are allowed, and no resolvers"):
        parse_yaml(text, "here")


def test_a_comment_may_say_anything() -> None:
    assert parse_yaml("steps: 3  # not ${oc.env:HOME}", "here") == {"steps": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "steps: [1",
            "not a usable YAML file: line 1, column 10: expected ',' or ']', but got '<stream end>', while parsing a flow "
            "sequence that begins in line 1, column 8",
        ),
        (
            "steps: 3\nguidance: {layout: 3\nseed: 2",
            "not a usable YAML file: line 3, column 5: expected ',' or '}', but got ':', while parsing a flow mapping "
            "that begins in line 2, column 11",
        ),
        (
            "guidance:\n  layout:\n    gamma: 3\n   until: 1",
            "not a usable YAML file: line 4, column 4: expected <block end>, but found '<block mapping start>'; check the "
            "indentation, while parsing a block mapping that begins in line 2, column 3",
        ),
        (
            "guidance:\n\tlayout: 3",
            "not a usable YAML file: line 2, column 1: found character '\\t' that cannot start any token; indent with spaces",
        ),
        ("steps: a: b", "not a usable YAML file: line 1, column 9: mapping values are not allowed here"),
        ("steps: 1\nsteps: 2", "not a usable YAML file: line 2, column 1: found duplicate key steps"),
        ("steps: ${nope}", "not a usable YAML file: Interpolation key 'nope' not found"),
        ("a: ${b}\nb: ${a}", "a: its reference leads to itself"),
        ("a: !!python/object/apply:os.getcwd []", "not a usable YAML file"),
        ("layout-guidance", "expected a mapping with keys"),
        ("- 1\n- 2", "expected a mapping with keys"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert str(caught.value).startswith(f"here: {message}")
    assert "\n" not in str(caught.value)


def test_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 3\n")
    assert load_yaml(file) == {"steps": 3}
    file.write_bytes(b"\xff\xfe\xff")
    for path in (file, tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_yaml(path)
        assert str(caught.value).startswith(f"configuration {path}: ")


def bomb(lines: int, twice: str) -> str:
    """Each line has what the line before it has, twice."""
    first = "k0: 'ha'\n" if "$" in twice else "k0: &k0 [ha, ha]\n"
    return first + "".join(f"k{i}: {twice.format(last=f'k{i - 1}', here=f'k{i}')}\n" for i in range(1, lines))


@pytest.mark.parametrize(
    "text",
    [
        bomb(40, "'${{{last}}}${{{last}}}'"),
        bomb(40, "{{a: '${{{last}}}', b: '${{{last}}}'}}"),
        bomb(40, "{{a: '${{{last}}}', b: '${{k0}}', c: '${{.a}}'}}"),
        bomb(40, "&{here} [*{last}, *{last}]"),
        bomb(40, "&{here} [*{last}, *{last}]")
        .replace("k0: &k0 [ha, ha]", "k0: &k0 {ha: 1}")
        .replace("[*", "{<<: [*")
        .replace("]", "]}"),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: {b: '${a}'}",
        "a: '${b.x}'\nb: '${a}'",
        "a: " + "[" * 100 + "]" * 100,
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 70 + "1" + "}" * 70,
    ],
    ids=range(12),
)
def test_a_file_that_grows_without_end_is_refused_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        parse_yaml(text, "here")


def test_references_that_share_what_they_lead_to_are_resolved() -> None:
    text = "a: {x: 1, l: [5, 6]}\nb: '${a}'\nc: '${b.x}'\nd: '${a.l}'\ne: 'n${a.l.1}-${ a.x }'"
    found = parse_yaml(text, "here")
    assert found == {"a": {"x": 1, "l": [5, 6]}, "b": {"x": 1, "l": [5, 6]}, "c": 1, "d": [5, 6], "e": "n6-1"}
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", "here") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"# " + b"a" * 2**20)
    for path in (tmp_path / "large.yaml", Path("/dev/zero"), tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(ConfigError):
            load_yaml(path)


@pytest.mark.parametrize("text", ["", "  ", "#7", "# a comment"])
def test_a_setting_that_says_nothing_is_no_default(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        parse_value(text, "here")
    assert parse_value("null", "here") is None
    assert parse_value("~", "here") is None


@pytest.mark.parametrize("text", ["3\nseed: 5", "3\nseed: 5\n", "{a: 1}\nseed: 2", "\nseed: 5", "3\nvalue: 4", "[" * 100])
def test_a_setting_is_one_value(text: str) -> None:
    with pytest.raises(ConfigError, match="steps"):
        apply_sets({}, [f"steps={text}"])
    with pytest.raises(ConfigError, match="here"):
        parse_value(text, "here")


@pytest.mark.parametrize("parts", [65, 3000])
def test_a_setting_has_a_key_of_few_parts(parts: int) -> None:
    with pytest.raises(ConfigError, match="layout"):
        apply_sets(load_preset("layout-guidance"), [f"guidance{'.layout' * parts}=3"])


def test_a_configuration_that_is_nested_deeply_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"guidance": deep}
    with pytest.raises(ConfigError, match="nested"):
        merge(deep)


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert load_yaml(tmp_path / "empty.yaml") == {}
