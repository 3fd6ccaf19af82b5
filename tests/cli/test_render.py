"""Where results and progress go, and how they look on a terminal, in a pipe and in a log."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.table import Table

from monoxkit_cli.render import Pace, RichProgress, duration, emit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Answer:
    def to_json(self) -> dict[str, Any]:
        return {"label": "日本", "accuracy": 0.5}


def table() -> Table:
    built = Table("language", "accuracy", title="Accuracy")
    built.add_row("de", "0.5")
    built.add_row("日本 [x]", "0.25")
    return built


def test_json_is_all_of_stdout(capsys: Any) -> None:
    emit(Answer(), True, lambda: pytest.fail("no table is built for JSON"), notes="a note")
    assert json.loads(capsys.readouterr().out) == {"label": "日本", "accuracy": 0.5}


def test_json_refuses_what_is_not_json() -> None:
    class Broken:
        def to_json(self) -> dict[str, Any]:
            return {"loss": float("nan")}

    with pytest.raises(ValueError, match="JSON compliant"):
        emit(Broken(), True, table)


def test_a_pipe_gets_aligned_text(capsys: Any) -> None:
    emit(Answer(), False, table, notes="done")
    assert capsys.readouterr().out == (
        "Accuracy\nlanguage  accuracy\nde        0.5\n日本 [x]  0.25\n\ndone\n"
    )


def test_a_pipe_gets_a_long_title_on_one_line(capsys: Any) -> None:
    long = Table("a", title="runs/a folder with a name that is wider than the table")
    emit(Answer(), False, lambda: long)
    title = "runs/a folder with a name that is wider than the table"
    assert capsys.readouterr().out.splitlines()[0] == title


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    emit(Answer(), False, table)
    assert "━" in terminal.getvalue()


def test_a_log_gets_a_line_in_ten_seconds_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = RichProgress(stream, clock)
    with progress.task("label", total=4000, unit="rows", done=1000) as task:
        for _ in range(25):
            clock.now_s += 1
            task.advance(100)
        task.detail("padding 3 %")
        clock.now_s += 5
        task.advance(500)
    progress.note("done [all]")
    assert stream.getvalue().splitlines() == [
        # 1,000 rows of an earlier run are done, and no part of the rate.
        "label: 2,000/4,000 rows  100 rows/s  0:10 elapsed  0:20 left",
        "label: 3,000/4,000 rows  100 rows/s  0:20 elapsed  0:10 left",
        "label: 4,000/4,000 rows  100 rows/s  0:30 elapsed  0:00 left  padding 3 %",
        "label: done: 4,000/4,000 rows  100 rows/s  0:30 elapsed  padding 3 %",
        "done [all]",
    ]


def test_a_log_says_where_a_task_stopped() -> None:
    stream = io.StringIO()
    with (
        pytest.raises(OSError, match="disk"),
        RichProgress(stream).task("train", 10, "steps") as task,
    ):
        task.advance(3)
        raise OSError("disk")
    assert stream.getvalue().startswith("train: stopped at 3/10 steps")


def test_a_terminal_gets_live_bars_and_notes_between() -> None:
    stream = Terminal()
    progress = RichProgress(stream)
    with progress.task("train [1]", total=2, unit="steps") as outer:
        outer.advance()
        with progress.task("evaluate", total=None, unit="rows") as inner:
            inner.advance(7)
            progress.note("halfway [x]")
        outer.advance()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "train [1]" in shown
    assert "2/2 steps" in shown
    assert "7 rows" in shown
    assert "halfway [x]" in shown
    assert "\x1b[?25h" in stream.getvalue(), "the cursor stays hidden"


def test_meter_of_bytes() -> None:
    clock = Clock()
    pace = Pace(3_000_000, "bytes", clock=clock)
    clock.now_s += 2
    pace.done = 1_500_000
    assert pace.counted() == "1.5 MB/3.0 MB"
    assert pace.speed() == "750.0 kB/s  0:02 elapsed  0:02 left"


def test_meter_before_the_first_unit() -> None:
    pace = Pace(None, "rows", done=5)
    assert (pace.rate, pace.remaining_s) == (None, None)
    assert pace.counted() == "5 rows"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
