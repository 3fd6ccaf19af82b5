"""The log of a training run: JSON lines, and TensorBoard's events where they are asked for.

Every finished step has one line, whatever interrupted the run: what was logged after the checkpoint
that a run resumes from is dropped, for those steps are done again; errors stay. A line has `event`
and `step`:

    start         the run's fingerprint
    step          loss, learning_rate, grad_norm, rows, tokens, rows_per_s, tokens_per_s
    evaluation    accuracy or micro_f1, loss and rows by dev set, and is_best
    checkpoint
    resume        missing_steps: finished ones without a line, where the log was lost or damaged
    error         message: why the run stopped, a value that is not finite among the reasons
    end           the step whose weights were kept, and whether patience ended the run
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from monox_kit.durable import AppendedFile, disk_errors, make_folder, write_file
from monox_kit.errors import CheckpointError, ConfigError
from monox_kit.progress import Progress
from monox_kit.training.state import TrainingState

# The model folder's copy.
LOG_FILE = "training.jsonl"
_WINDOW_STEPS = 20


class TrainingLog:
    """Use as a context manager; one process of a run has it open.

    Args:
        path: the JSON lines.
        tensorboard: folder of TensorBoard's events; None for none.
        progress: where unreadable lines are told of.
    """

    def __init__(self, path: Path, tensorboard: str | None, progress: Progress) -> None:
        self._path, self._tensorboard, self._progress = path, tensorboard, progress
        self._file: AppendedFile | None = None
        self._board: Any = None
        if tensorboard is not None:
            _board_class()  # where the package is missing, that is said before the first step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.__exit__(*error)
        if self._board is not None:
            self._board.close()

    def begin(self, state: TrainingState | None, fingerprint: Mapping[str, Any]) -> None:
        """Drop what is not before `state`, and log that the run starts or resumes.

        Args:
            state: what the run resumes from; None where it starts.
            fingerprint: what the run is made from.

        Raises:
            CheckpointError: the log tells of checkpoints, and there is none to resume from.
            StorageError: the disk refused.
        """
        lines = list(self._lines())
        if state is None:
            told = ("checkpoint", "resume")
            saved = [event["step"] for _, event in lines if event["event"] in told]
            if saved:
                raise CheckpointError(
                    f"{self._path}: expected the checkpoint of step {saved[-1]}, found none. "
                    f"Restore it, or delete {self._path.parent} to start again."
                )
        kept = [(line, event) for line, event in lines if _stays(event, state)]
        write_file(self._path, b"".join(line for line, _ in kept))
        self._file = AppendedFile(self._path)
        if self._tensorboard is not None:
            step = state.step + 1 if state is not None else 0
            with disk_errors(self._tensorboard):
                if "://" not in self._tensorboard:
                    make_folder(Path(self._tensorboard))
                self._board = _board_class()(log_dir=self._tensorboard, purge_step=step)
        if state is None:
            self.add("start", 0, fingerprint=dict(fingerprint))
        else:
            logged = {event["step"] for _, event in kept if event["event"] == "step"}
            missing = len(set(range(1, state.step + 1)) - logged)
            if missing:
                self._progress.note(
                    f"{self._path}: {missing} of the {state.step} finished steps have no line: the "
                    "log was lost or damaged. The run goes on, and the log says so."
                )
            self.add("resume", state.step, missing_steps=missing)
        self.sync()

    def add(self, event: str, step: int, **values: Any) -> None:
        """Append one line.

        Raises:
            StorageError: the disk refused.
        """
        assert self._file is not None, "begin comes first"
        line = {"event": event, "step": step, **values}
        self._file.append(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n".encode())
        if self._board is not None:
            with disk_errors(self._tensorboard or ""):
                for name, value in _numbers(values):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def sync(self) -> None:
        """Make the lines so far durable: before a checkpoint that counts on them."""
        assert self._file is not None, "begin comes first"
        self._file.sync()
        if self._board is not None:
            with disk_errors(self._tensorboard or ""):
                self._board.flush()

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The lines of an earlier process that can be read, with what they hold."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    event = json.loads(line)
                    if not (type(event["step"]) is int and isinstance(event["event"], str)):
                        raise ValueError("no step")
                except (ValueError, TypeError, KeyError, RecursionError):
                    if line.endswith(b"\n"):  # else a killed process had not finished it
                        self._progress.note(
                            f"{self._path}: line {number} is no event. It is left out."
                        )
                    continue
                if line.endswith(b"\n"):
                    yield line, event


class RecentSteps:
    """What the last steps were on the whole: their mean loss, and rows and tokens a second."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, int, int]] = deque(maxlen=_WINDOW_STEPS)

    def add(self, seconds: float, loss: float, num_rows: int, num_tokens: int) -> None:
        """Count one step."""
        self._steps.append((seconds, loss, num_rows, num_tokens))

    def mean_loss(self) -> float:
        """The mean of the steps' own losses."""
        return sum(step[1] for step in self._steps) / len(self._steps)

    def rates(self) -> tuple[float, float]:
        """Rows and tokens a second."""
        seconds = max(sum(step[0] for step in self._steps), 1e-9)
        rows, tokens = (sum(step[i] for step in self._steps) for i in (2, 3))
        return rows / seconds, tokens / seconds


def _stays(event: Mapping[str, Any], state: TrainingState | None) -> bool:
    """Whether an event of an earlier process is still true: errors always are."""
    if event["event"] == "error":
        return True
    if state is None or event["event"] == "end":
        return False
    if event["event"] == "evaluation":
        return any(result["step"] == event["step"] for result in state.history)
    return bool(event["step"] <= state.step)


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of an event by their path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, number in _numbers(value):
                yield f"{name}/{inner}", number
        elif type(value) in (int, float):
            yield name, value


def _board_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "`tensorboard`: the package tensorboard is not installed. Install it with "
            "pip install 'monoxkit[tensorboard]'."
        ) from error
    return SummaryWriter
