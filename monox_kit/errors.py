"""Every error a caller can trigger, with the exit code that the command line gives it.

Messages read ``where: what is wrong. Next step.`` What they quote of files and arguments is made
safe to show as the error is made, so that a log or a traceback shows it so too.
"""

from __future__ import annotations

from typing import Any

from monox_kit.foreign import shown_lines


class MonoxError(Exception):
    """An error that the user can act on; `exit_code` is the command line's exit status."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(shown_lines(message))


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class ConfigError(MonoxError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class OtherRun(ConfigError):
    """What stands at the output was made by another run: with other inputs or settings."""


class CorpusError(MonoxError):
    """Input text or labels that cannot be read as documented.

    Attributes:
        where: file and line or row of the one row that it is of; nothing where it is of more.
        kind: what is wrong with that row, in words that other rows share.
        found: the value, escaped and cut; nothing where the kind says it.
        step: what to do about all rows of the kind; nothing where each is corrected or left out.
    """

    exit_code = 3
    where = kind = found = step = ""

    @classmethod
    def of_row(
        cls,
        where: str,
        problem: str,
        step: str,
        *,
        kind: str,
        found: str = "",
        is_step_of_all: bool = False,
    ) -> CorpusError:
        """The error of one row, told by itself or, with others, by its kind and what was found."""
        error = cls(f"{where}: {problem}. {step}")
        error.where, error.kind, error.found = where, kind, found
        error.step = step if is_step_of_all else ""
        return error


class CorpusUnreadable(CorpusError):
    """Input that this machine could not read: refused, damaged, or its package not installed.

    It says nothing of what another machine finds in the same file.
    """


class StoreError(MonoxError):
    """A logit store that cannot be used as asked."""

    exit_code = 4


class StoreNotBegun(StoreError):
    """The store is to be filled in parts, and no run has begun it."""


class StoreIncomplete(StoreError):
    """The store has no completion record: its labelling run has not finished."""


class StoreCorrupt(StoreError):
    """A file of the store differs from what its record says."""


class StoreMismatch(StoreError):
    """The store was written under another teacher, corpus or setting."""


class StoreLocked(StoreError):
    """Another process is writing to the store."""


class StoreLockLost(StoreLocked):
    """The file that a writer locks was removed or replaced: another may hold the new one."""


class ModelError(MonoxError):
    """A model folder or bundle that cannot be loaded or does not fit its task."""

    exit_code = 5


class LabelMismatchError(ModelError):
    """Two label sets that should be equal differ."""


class ProviderError(ModelError):
    """An execution provider, dtype or runtime that was asked for and is not there."""


class MissingExtra(ProviderError):
    """A package of one of the extras that is not installed; the message says how to add it."""


class StorageError(MonoxError):
    """The disk refused a write: no space, no permission, an I/O fault."""

    exit_code = 6


class FolderBusy(StorageError):
    """Another process is writing the folder of a model, a corpus or a benchmark."""


class CheckpointError(StorageError):
    """A checkpoint of a training run that differs from its record."""


class NotFinite(ModelError):
    """NaN or an infinity in logits, or in a training run's loss, gradient, weights or state."""


class ClusterError(MonoxError):
    """A cluster that cannot be reached, or that loses its workers again and again."""

    exit_code = 8


class GateError(MonoxError):
    """A quality check failed; what was checked is not released.

    Attributes:
        result: what was measured, which the command line shows beside the error; it has `to_json`.
            None where there is nothing to show.
    """

    exit_code = 7
    result: Any = None
