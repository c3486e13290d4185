"""Configurations as YAML: files, references, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsregen.framework import ConfigError
from lsregen.framework.config import load_yaml, parse_yaml


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
        ("a: ${b}\nb: ${a}", "not a usable YAML file"),
        ("a: !!python/object/apply:os.getcwd []", "not a usable YAML file"),
        ("layout-guidance", "expected a mapping with keys such as description, source"),
        ("- 1\n- 2", "expected a mapping with keys such as description, source"),
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
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load_yaml(path)
        assert str(caught.value).startswith(f"configuration {path}: ")


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert load_yaml(tmp_path / "empty.yaml") == {}
