"""The harness's arithmetic against values by hand, the order of turns, and what a result holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
from monox_kit.hardware import read_hardware


def test_medians_are_the_middle_ones() -> None:
    values = {"odd": [9.0, 1.0, 5.0], "even": [1.0, 8.0, 2.0, 4.0], "whole": [3, 1, 8]}
    assert harness.medians(values) == {"odd": 5.0, "even": 3.0, "whole": 3}
    assert isinstance(harness.medians(values)["whole"], int)
    assert harness.medians({"one": [1.23456]}, 2) == {"one": 1.23}


def test_a_ratio_is_of_one_round_and_has_a_spread() -> None:
    # The machine is three times as slow in the second round: medians would give 30 / 12 = 2.5.
    values = {"base": [10.0, 30.0, 12.0], "twice": [20.0, 60.0, 30.0], "half": [5.0, 15.0, 6.0]}
    assert harness.ratios(values, to="base") == {
        "twice": {"median": 2.0, "least": 2.0, "most": 2.5},
        "half": {"median": 0.5, "least": 0.5, "most": 0.5},
    }


def test_rounds_that_one_of_two_lacks_are_left_out() -> None:
    values = {"base": [2.0, None, 4.0], "other": [None, 9.0, 12.0], "never": [1.0, 1.0, None]}
    found = harness.ratios(values, to="base")
    assert found["other"] == {"median": 3.0, "least": 3.0, "most": 3.0}
    assert found["never"] == {"median": 0.5, "least": 0.5, "most": 0.5}
    assert harness.ratios({"a": [None], "b": [1.0]}, to="a") == {}
    with pytest.raises(ValueError, match=r"zip\(\)"):
        harness.ratios({"a": [1.0, 2.0], "b": [1.0]}, to="a")


def test_each_round_begins_with_another_way() -> None:
    called: list[tuple[str, int]] = []

    def way(name: str) -> Any:
        def call(number: int) -> int:
            called.append((name, number))
            return 10 * number + ord(name)

        return call

    found = harness.take_turns({name: way(name) for name in "abc"}, 4, warm_up=True)
    assert called[:3] == [("a", harness.WARM_UP), ("b", harness.WARM_UP), ("c", harness.WARM_UP)]
    orders = ["".join(name for name, number in called if number == round_) for round_ in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]
    # Values stand by round, whatever the order; the warm-up is not among them.
    assert found == {name: [10 * number + ord(name) for number in range(4)] for name in "abc"}


def test_figures_of_runs_are_put_together_by_way() -> None:
    runs = {
        "a": [{"s": 3.0, "bytes": 10, "kind": "x"}, {"s": 1.0, "bytes": 30, "kind": "x"}],
        "b": [{"s": 5.0, "bytes": 7, "kind": "y"}],
    }
    assert harness.by_way(runs, "s") == {"a": [3.0, 1.0], "b": [5.0]}
    assert harness.median_of_each(runs) == {
        "a": {"s": 2.0, "bytes": 20, "kind": "x"},
        "b": {"s": 5.0, "bytes": 7, "kind": "y"},
    }


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two"])
def test_a_number_of_rounds_is_whole_and_positive(text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        harness.parser(__file__, __doc__, rounds=3).parse_args(["--rounds", text])
    assert ended.value.code == 2


def test_a_result_holds_the_machine_and_the_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "result.json"
    parser = harness.parser("some/where/racing.py", "First line.\n\nMore.", rounds=3)
    assert parser.description == "First line."
    assert parser.parse_args([]).out == harness.RESULTS / "racing.json"
    arguments = parser.parse_args(["--out", str(out), "--plot"])
    harness.publish(
        arguments, {"s": {"a": 1.5}, "long": [1] * 9}, bars={"a": 1.5}, unit="s", hidden=["long"]
    )
    written, printed = json.loads(out.read_text("utf-8")), json.loads(capsys.readouterr().out)
    assert written["s"] == {"a": 1.5}
    assert written["hardware"] == json.loads(json.dumps(read_hardware().to_json()))
    assert {"python", "numpy", "torch", "onnxruntime"} <= set(written["versions"])
    assert printed == {key: value for key, value in written.items() if key != "long"}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_without_plot_there_is_none(tmp_path: Path) -> None:
    parser = harness.parser(__file__, __doc__, rounds=1)
    arguments = parser.parse_args(["--out", str(tmp_path / "result.json")])
    harness.publish(arguments, {}, bars={"a": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_bars_stand_in_order_with_the_limits_as_lines() -> None:
    values = {"other": 3.0, "monoxkit": 7.0, "slow": 1.0}
    axes = harness.draw_bars(values, unit="tokens", lines={"fp32": 9.0}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["monoxkit", "other", "slow"]
    assert [bar.get_width() for bar in axes.patches] == [7.0, 3.0, 1.0]
    assert axes.get_xlim()[1] > 9.0
    assert {text.get_text() for text in axes.texts} == {"7", "3", "1", "fp32 limit"}


def test_a_process_is_read_by_its_last_line() -> None:
    code = "print('noise'); print('{\"s\": 1.5}')"
    assert harness.last_line([sys.executable, "-c", code]) == {"s": 1.5}
    with pytest.raises(subprocess.CalledProcessError):
        harness.last_line([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_peak_is_the_processs_own() -> None:
    code = "import harness; print(harness.peak_bytes())"
    found = harness.last_line([sys.executable, "-c", code], cwd=harness.ROOT / "benchmarks")
    assert 2**20 < found < 2**28  # an interpreter, without what this process has loaded


def test_the_harness_needs_the_standard_library_alone() -> None:
    code = "import harness, contenders.table; harness.versions(); print('[]')"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = ['.', '..']; {code}"]
    assert harness.last_line(command, cwd=harness.ROOT / "benchmarks") == []
