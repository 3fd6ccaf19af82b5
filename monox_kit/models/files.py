"""The files of a model folder: plain ones, inside it, unchanged, and of a bearable size."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monox_kit.cache import true_folders
from monox_kit.digest import digest_file
from monox_kit.errors import ModelError, MonoxError, first_line

# What a configuration, an index or a record may have; an index of 100,000 tensors has 10 MB.
MAX_JSON_BYTES = 16 << 20
_MAX_JSON_DEPTH = 64
_LFS_START = b"version https://git-lfs.github.com/"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model folder, as it was when the folder was opened.

    Attributes:
        shown: its path in the folder, for messages.
        path: the plain file that it is, links followed.
        stamp: size in bytes, time of change in ns, device and inode.
    """

    shown: Path
    path: Path
    stamp: tuple[int, int, int, int]

    @property
    def num_bytes(self) -> int:
        """The file's size."""
        return self.stamp[0]

    def require_unchanged(self) -> None:
        """Check that the file is the one that the folder was opened with.

        Raises:
            ModelError: it was written to, exchanged or removed since.
        """
        try:
            found = _stamp(self.path.stat())
        except OSError:
            found = None
        if found != self.stamp:
            raise ModelError(
                f"{self.shown}: the file changed while it was in use. Run the command again when "
                "nothing writes to the folder."
            )

    def digest(self) -> str:
        """The SHA-256 of the file's bytes, in hexadecimal.

        Raises:
            ModelError: the file changed.
        """
        self.require_unchanged()
        digest = digest_file(self.path)
        self.require_unchanged()
        return digest


def find_file(folder: Path, name: str) -> ModelFile | None:
    """A file of a model folder; None where there is none of that name.

    Raises:
        ModelError: it is no plain file, or a link to a file elsewhere.
    """
    shown = folder / name
    if not os.path.lexists(shown):
        return None
    try:
        path = shown.resolve(strict=True)
        found = path.stat()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{shown}: the link leads to no file ({first_line(error)}). Restore the file."
        ) from error
    if not any(path.is_relative_to(home) for home in true_folders(folder)):
        raise ModelError(
            f"{shown}: the file is a link to {path}, outside the model's folder. Links are "
            "followed inside the folder and its hub cache only: put a copy in its place."
        )
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"{shown}: expected a plain file, found another kind. Restore the file.")
    file = ModelFile(shown, path, _stamp(found))
    if file.num_bytes < 1024:
        _require_content(file)
    return file


def read_json(file: ModelFile) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: the file holds something else, too much, or is nested too deeply.
    """
    if file.num_bytes > MAX_JSON_BYTES:
        raise ModelError(
            f"{file.shown}: expected at most {MAX_JSON_BYTES} bytes of JSON, found "
            f"{file.num_bytes}. Restore the file."
        )
    try:
        value = json.loads(file.path.read_text(encoding="utf-8"))
        is_deep = _is_deep(value)
    except RecursionError:
        value, is_deep = {}, True
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file.shown}: expected JSON, found: {error}. Restore the file or export the model "
            "again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{file.shown}: expected a JSON object, found {type(value).__name__}. Restore the file."
        )
    if is_deep:
        raise ModelError(
            f"{file.shown}: the JSON is nested more than {_MAX_JSON_DEPTH} deep. Restore the file."
        )
    return value


@contextmanager
def as_model_errors(
    where: Path, expected: str, step: str, view: Path | None = None
) -> Iterator[None]:
    """Turn whatever another library raises on a model's files into an error that names them.

    Args:
        where: the file or folder that the library was given.
        expected: what the block does, such as `a model that transformers loads`.
        step: the next step, a sentence.
        view: a temporary folder that stands for `where` in the library's messages.

    Raises:
        ModelError: in place of any error but our own, of Python's panics in Rust too.
    """
    try:
        yield
    except MonoxError:
        raise
    except BaseException as error:
        # A panic in Rust is no Exception; nor are the signals that end a command, which go on.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        found = first_line(error).replace(str(view), str(where)) if view else first_line(error)
        raise ModelError(f"{where}: expected {expected}, found: {found}. {step}") from error


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MAX_JSON_DEPTH):
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _require_content(file: ModelFile) -> None:
    """Check that a small file is not what Git keeps in place of a large one."""
    with file.path.open("rb") as stream:
        if stream.read(len(_LFS_START)) == _LFS_START:
            raise ModelError(
                f"{file.shown}: the file is a Git LFS pointer, not the file itself. Fetch it: "
                "git lfs pull"
            )
