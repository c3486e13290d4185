"""Results as Markdown, and what is not a result."""

import json
from pathlib import Path
from typing import Any

import pytest

from lsregen.evaluation.tables.markdown import FORMAT, markdown, read_result
from lsregen.framework.errors import ConfigError


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def row(guidance: str, **metrics: float) -> dict[str, Any]:
    settings = {"guidance": guidance, "model": "m", "objects": 2, "size": [96, 64], "cfg": 4.0, "count": 300, "seed": 0}
    return {**settings, "metrics": {name: interval(value) for name, value in metrics.items()}}


def test_rows_of_several_files_in_one_table() -> None:
    text = markdown([{"rows": [row("none", right=0.5)]}, {"rows": [row("a|b", right=0.75, peak_bytes=1234567)]}])
    head, rule, first, second = text.splitlines()[:4]
    assert head == "| guidance | model | objects | size | cfg | count | seed | right | peak_bytes |"
    assert rule.count("---:") == 2
    assert first == "| none | m | 2 | 96x64 | 4 | 300 | 0 | 0.500 [0.400, 0.600] |  |"
    assert second.startswith(r"| a\|b |")
    assert "1,234,567" in second
    assert "Paired" not in text
    assert "Diagnostics" not in text


def test_layers_of_attention_come_last_and_may_come_alone() -> None:
    entry = {"layer": "mid", "place": "mid", "grid": [8, 12], "heads": 4, "metrics": {"peak_in_box": interval(0.5)}}
    text = markdown([{"rows": [row("none", right=0.5)], "layers": {"m": [entry], "n": [{**entry, "layer": "all"}]}}])
    assert text.index("| none |") < text.index("| m | mid | 8x12 | 4 | 0.500") < text.index("| n | all | 8x12 | 4 | 0.500")
    alone = markdown([{"rows": [], "layers": {"m": [entry]}}], parts=("layers",))
    assert alone.startswith("Where attention is highest, on true images:\n\n| model | layer | grid | heads | peak_in_box |")


def test_differences_and_diagnostics_follow() -> None:
    change = {"first": "none", "second": "box", "count": 300, "metrics": {"right": interval(0.2)}}
    diagnostics = {"m": {"objects": 2, "size": [64, 64], "count": 5, "metrics": {"autoencoder_right": interval(0.9)}}}
    text = markdown([{"rows": [row("none", right=0.5)], "differences": [change], "diagnostics": diagnostics}])
    assert "| none | box | 300 | 0.200 [0.100, 0.300] |" in text
    assert "| m | 2 | 64x64 | 5 | 0.900 [0.800, 1.000] |" in text


def test_differences_of_several_files_are_told_apart() -> None:
    def result(objects: int, size: int, **more: Any) -> dict[str, Any]:
        pair = {"first": "none", "second": "box", "objects": objects, "size": [size, size], "count": 300, "seed": 0}
        return {"rows": [row("none", right=0.5)], "differences": [pair | more | {"metrics": {"right": interval(0.2)}}]}

    def head(*results: dict[str, Any]) -> list[str]:
        return markdown(results, None, ("differences",)).splitlines()[2:]

    assert head(result(1, 64), result(1, 64))[0] == "| first | second | count | right |"
    lines = head(result(1, 64), result(2, 96))
    assert lines[0] == "| first | second | objects | size | count | right |"
    assert [line[: line.index("0.200")] for line in lines[2:4]] == [
        "| none | box | 1 | 64x64 | 300 | ",
        "| none | box | 2 | 96x96 | 300 | ",
    ]
    lines = head(result(1, 64), result(1, 64, second_size=[96, 96], seed=4))
    assert lines[0] == "| first | second | second_size | count | seed | right |"
    assert lines[3].startswith("| none | box | 96x96 | 300 | 4 |")
    old = {"first": "none", "second": "box", "count": 300, "metrics": {"right": interval(0.2)}}
    lines = head(result(1, 64), {"rows": [], "differences": [old]})  # written before these were noted
    assert lines[0] == "| first | second | objects | size | count | seed | right |"
    assert lines[3].startswith("| none | box |  |  | 300 |  |")


def test_chosen_metrics_in_their_order_and_one_part() -> None:
    change = {"first": "none", "second": "box", "count": 300, "metrics": {"right": interval(0.2)}}
    result = {"rows": [row("none", right=0.5, map50=0.1, kid=0.3)], "differences": [change]}
    text = markdown([result], ["kid", "right"])
    assert text.startswith("| guidance | model | objects | size | cfg | count | seed | kid | right |")
    assert "| first | second | count | right |" in text
    assert "first" not in markdown([result], ["kid"], ("rows",))
    assert markdown([result], None, ("differences",)).startswith("Paired differences")
    with pytest.raises(ConfigError, match=r"metric 'map5': not in these results \(did you mean 'map50'\?\)"):
        markdown([result], ["map5"])


def test_differences_from_a_baseline() -> None:
    def change(first: str, second: str, value: float, **sizes: list[int]) -> dict[str, Any]:
        return {"first": first, "second": second, "count": 300, **sizes, "metrics": {"right": interval(value)}}

    changes = [
        change("none", "box", 0.2),
        change("box", "large", 0.5, size=[64, 64], second_size=[96, 96]),
        change("none", "large", 1),
    ]
    result = {"rows": [row("none", right=0.5)], "differences": changes}
    lines = markdown([result], None, ("differences",), baseline="box").splitlines()[4:6]
    assert lines[0].startswith("| box | none |")
    assert lines[0].endswith("| 300 | -0.200 [-0.300, -0.100] |")
    assert lines[1] == "| box | large | 64x64 | 96x96 | 300 | 0.500 [0.400, 0.600] |"
    line = markdown([result], None, ("differences",), baseline="large").splitlines()[4]
    assert line == "| large | box | 96x96 | 64x64 | 300 | -0.500 [-0.600, -0.400] |"
    said = r"--baseline 'boxx': no paired difference is of this row \(did you mean 'box'\?\); they are of 'none', 'box', 'large'"
    with pytest.raises(ConfigError, match=said):
        markdown([result], baseline="boxx")
    with pytest.raises(ConfigError, match="they have none"):
        markdown([{"rows": []}], baseline="box")


def test_settings_that_no_row_has_are_left_out() -> None:
    few = [{key: value for key, value in row(name, right=0.5).items() if key not in ("objects", "seed")} for name in ("a", "b")]
    assert markdown([{"rows": few}]).startswith("| guidance | model | size | cfg | count | right |")
    assert markdown([{"rows": []}]).startswith("In brackets")


def test_an_interval_of_no_width_is_explained() -> None:
    agreed = {**row("a"), "metrics": {"right": {"value": 1.0, "low": 1.0, "high": 1.0}, "frechet": interval(2.0)}}
    said = "up to 3/n of all possible ones may still differ."
    assert markdown([{"rows": [agreed]}]).endswith(f"{said}\n")
    assert said not in markdown([{"rows": [agreed]}], ["frechet"])
    assert said not in markdown([{"rows": [row("a", right=1.0)]}])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    data = {"rows": [row("none", right=0.5)], "differences": [], "diagnostics": {}}
    path.write_text(json.dumps(data))
    assert read_result(path) == data
    path.write_text(json.dumps({"format": FORMAT, **data}))
    assert read_result(path) == {"format": FORMAT, **data}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "not a result"),
        ('{"rows": 3}', "not a result"),
        ('{"rows": [{"metrics": {"right": 1}}]}', "not a result"),
        ('{"rows": [], "diagnostics": {"frechet": 3}}', "not a result"),
        ('{"rows": [], "layers": {"m": {"layer": "mid"}}}', "not a result"),
        ('{"rows": [], "layers": 3}', "not a result"),
    ],
)
def test_what_is_not_a_result(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_result(path)


def test_a_number_without_an_interval_stands_alone(tmp_path: Path) -> None:
    alone: dict[str, Any] = {"value": 1.0, "low": None, "high": None}
    change = {"first": "none", "second": "m", "count": 300, "metrics": {"map50": alone}}
    result = {"format": FORMAT, "rows": [{**row("none"), "metrics": {"map50": alone}}], "differences": [change]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    read = read_result(tmp_path / "result.json")
    assert "| 300 | 0 | 1.000 |" in markdown([read])
    assert "| m | none | 300 | -1.000 |" in markdown([read], baseline="m")
    (tmp_path / "half.json").write_text(json.dumps({"rows": [{"metrics": {"map50": {**alone, "low": 0.5}}}]}))
    with pytest.raises(ConfigError, match="not a result"):
        read_result(tmp_path / "half.json")
