"""How results and progress look: the only module that draws.

Results go to stdout, as a table on a terminal, as plain aligned text in a pipe, as JSON on request.
Progress and notes go to stderr, as live bars on a terminal, as plain lines elsewhere.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from monox_kit.errors import MonoxError
from monox_kit.foreign import shown, shown_lines
from monoxkit_cli.ending import Answered, begin_work, error_json, write_json
from monoxkit_cli.options import as_options

T = TypeVar("T")

# Seconds between two plain lines of one task where stderr is not a terminal.
PLAIN_INTERVAL_S = 10.0
# No table is wider; only a terminal wraps.
_PLAIN_WIDTH = 10_000


class Result(Protocol):
    """What a library call returns and a command shows."""

    def to_json(self) -> Mapping[str, Any]:
        """The result as JSON values."""


def emit(
    result: Result,
    as_json: bool,
    tables: Callable[[], Table | list[Table]],
    *,
    notes: str = "",
    check: Callable[[], None] | None = None,
) -> None:
    """Write a command's result to stdout.

    Args:
        result: what `--json` shows.
        as_json: whether `--json` was given; then stdout holds one JSON value and nothing else.
        tables: builds the tables to show otherwise; not called for JSON.
        notes: text below the tables; not part of the JSON.
        check: raises what the result ends in, once it is shown; the JSON has it under `error`.

    Raises:
        Answered: `check` raised.
    """
    error = None if check is None else _raised_by(check)
    if as_json:
        value = dict(result.to_json())
        write_json(value if error is None else {**value, "error": error_json(error)})
    else:
        built = tables()
        for table in (drawn := built if isinstance(built, list) else [built]):
            _make_safe(table)
        if sys.stdout.isatty():
            _console(sys.stdout).print(*drawn, sep="\n")
        else:
            sys.stdout.write("\n".join(map(_plain, drawn)))
        if notes:
            sys.stdout.write(f"\n{shown_lines(notes)}\n")
    sys.stdout.flush()
    if error is not None:
        raise Answered(error)


def _raised_by(check: Callable[[], None]) -> MonoxError | None:
    try:
        check()
    except MonoxError as error:
        return error
    return None


def _make_safe(table: Table) -> None:
    """Pass every text of a table through `shown`: names of files, labels and ids are foreign."""
    table.title, table.caption = (_safe(text) for text in (table.title, table.caption))
    for column in table.columns:
        column.header = _safe(column.header)
        column._cells = [_safe(cell) for cell in column._cells]  # rich reads them, sets none


def _safe(content: T) -> T | str:
    return shown(content) if isinstance(content, str) else content


def _console(stream: TextIO, **settings: Any) -> Console:
    """A console that shows text as it is: `[red]` is no colour and `:bug:` no picture."""
    return Console(file=stream, markup=False, emoji=False, highlight=False, **settings)


def _plain(table: Table) -> str:
    """The table as aligned columns without lines, colours or wrapping."""
    table.box = None
    table.pad_edge = False
    stream = io.StringIO()
    console = _console(stream, width=_PLAIN_WIDTH, color_system=None)
    if table.title:  # as a part of the table it would be wrapped to the table's width
        console.print(table.title)
        table.title = None
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


class Pace:
    """Counts one task's work and says how fast it goes.

    The rate covers this run alone: work that an earlier run finished counts as done, not as speed.

    Args:
        total: units of the whole task; None where unknown.
        unit: what is counted, in the plural (`rows`, `steps`), or `bytes`.
        done: units that an earlier run finished.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self.detail = ""
        self._done_before = done
        self._clock = clock
        self._started_s = clock()
        self._ended_s: float | None = None

    def end(self) -> None:
        """Stop the clock."""
        if self._ended_s is None:
            self._ended_s = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run."""
        return (self._clock() if self._ended_s is None else self._ended_s) - self._started_s

    @property
    def rate(self) -> float | None:
        """Units per second; None before the first unit."""
        done_here = self.done - self._done_before
        return done_here / self.elapsed_s if done_here > 0 and self.elapsed_s > 0 else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds to go at this rate; None where the rate or the total is unknown."""
        if self.rate is None or self.total is None or self._ended_s is not None:
            return None
        return max(self.total - self.done, 0) / self.rate

    def counted(self) -> str:
        """Such as `1,200/4,000 rows`."""
        if self.unit == "bytes":
            done = _bytes(self.done)
            return done if self.total is None else f"{done}/{_bytes(self.total)}"
        total = "" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{total} {self.unit}"

    def speed(self) -> str:
        """Such as `310 rows/s  0:12 elapsed  0:28 left`, then the detail text."""
        parts = []
        if self.rate is not None:
            if self.unit == "bytes":
                parts.append(f"{_bytes(self.rate)}/s")
            else:
                digits = 0 if self.rate >= 100 else 1 if self.rate >= 10 else 2
                parts.append(f"{self.rate:,.{digits}f} {self.unit}/s")
        parts.append(f"{duration(self.elapsed_s)} elapsed")
        if self.remaining_s is not None:
            parts.append(f"{duration(self.remaining_s)} left")
        return "  ".join([*parts, self.detail] if self.detail else parts)


class RichProgress:
    """`monox_kit.progress.Progress` on stderr.

    Args:
        stream: where to draw; None takes the process's stderr.
        clock: seconds, monotonic.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._live: Progress | None = None
        self._num_open = 0

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> MeteredTask:
        """Open a bar of `total` units (None: unknown), of which an earlier run finished `done`."""
        begin_work()
        pace = Pace(total, unit, done, self._clock)
        description = shown(description)
        if not self._stream.isatty():
            return PlainTask(self._stream, description, pace, self._clock)
        if self._live is None:
            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                _MeterColumn(),
                console=_console(self._stream),
                redirect_stdout=False,  # stdout holds results, even while a bar is drawn
            )
            self._live.start()
        self._num_open += 1
        return BarTask(self._live, description, pace, self._close_bar)

    def note(self, message: str) -> None:
        """Show one line that the user should see."""
        message = shown(as_options(message))
        if self._live is not None:
            self._live.console.print(message, soft_wrap=True)
        else:
            self._stream.write(f"{message}\n")
            self._stream.flush()

    def _close_bar(self) -> None:
        """Leave the finished bars on the terminal once the last open one ends."""
        self._num_open -= 1
        if self._num_open == 0 and self._live is not None:
            self._live.stop()
            self._live = None


class MeteredTask:
    """One task of `RichProgress`; its two forms differ in what they draw."""

    def __init__(self, pace: Pace) -> None:
        self._meter = pace

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""
        self._meter.done += amount
        self._draw()

    def detail(self, text: str) -> None:
        """Replace the short free text beside the bar."""
        self._meter.detail = shown(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._meter.end()
        self._draw_end(stopped=error[0] is not None)

    def _draw(self) -> None:
        raise NotImplementedError

    def _draw_end(self, stopped: bool) -> None:
        raise NotImplementedError


class PlainTask(MeteredTask):
    """Lines without control codes, for logs and pipes: one in ten seconds, and one at the end."""

    def __init__(
        self, stream: TextIO, description: str, pace: Pace, clock: Callable[[], float]
    ) -> None:
        super().__init__(pace)
        self._stream = stream
        self._description = description
        self._clock = clock
        self._drawn_s = clock()

    def _draw(self) -> None:
        now_s = self._clock()
        if now_s - self._drawn_s >= PLAIN_INTERVAL_S:
            self._drawn_s = now_s
            self._write("")

    def _draw_end(self, stopped: bool) -> None:
        self._write("stopped at " if stopped else "done: ")

    def _write(self, state: str) -> None:
        pace = self._meter
        self._stream.write(f"{self._description}: {state}{pace.counted()}  {pace.speed()}\n")
        self._stream.flush()


class BarTask(MeteredTask):
    """One live bar."""

    def __init__(
        self, live: Progress, description: str, pace: Pace, on_end: Callable[[], None]
    ) -> None:
        super().__init__(pace)
        self._live = live
        self._on_end = on_end
        self._task: TaskID = live.add_task(
            description, total=pace.total, completed=pace.done, pace=pace
        )

    def _draw(self) -> None:
        self._live.update(self._task, completed=self._meter.done)

    def _draw_end(self, stopped: bool) -> None:
        if not stopped and self._meter.total is None:
            # A task of unknown size ends as a full bar, not as one that still moves.
            self._live.update(self._task, total=self._meter.done)
        self._live.stop_task(self._task)
        self._on_end()


class _MeterColumn(ProgressColumn):
    """What the task's pace says, drawn anew at every refresh."""

    def render(self, task: Task) -> Text:
        pace: Pace = task.fields["pace"]
        return Text(f"{pace.counted()}  {pace.speed()}", overflow="ellipsis", no_wrap=True)


def duration(seconds: float) -> str:
    """Such as `0:07`, `12:30` or `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _bytes(count: float) -> str:
    """Such as `12.3 MB`, in powers of 1,000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
