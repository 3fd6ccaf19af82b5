"""The folder of a prepared corpus: written as a whole, and reused while nothing changes.

Every task writes the same files: `labelled.jsonl`, `unlabelled.jsonl`, `dev.jsonl`, a
`test.<language>.jsonl` for each language, where it is asked for an `unlabelled.<language>.jsonl`,
`labels.json`, and `provenance.json`, which says what they were made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monox_kit.data import LabelSet
from monox_kit.digest import digest_file
from monox_kit.durable import is_free, new_folder, new_member, write_json
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.results import Result

FORMAT = 1
PROVENANCE = "provenance.json"
LABELS = "labels.json"
LABELLED = "labelled.jsonl"
UNLABELLED = "unlabelled.jsonl"
DEV = "dev.jsonl"
_KEYS = frozenset({"format", "config", "release", "files", "labels", "left_out"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSummary(Result):
    """What lies in the folder of a prepared corpus.

    Attributes:
        folder: where it is.
        reused: whether an earlier call had written it, so that nothing was made.
        release: which release of the data it was made from.
        rows: rows of each file.
        labels: rows of each label of each labelled file.
        left_out: documents that were not used, by reason.
    """

    folder: str
    reused: bool
    release: str
    rows: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]


def language_file(language: str) -> str:
    """The name of a language's test set."""
    return f"test.{language}.jsonl"


def unlabelled_file(language: str) -> str:
    """The name of the unlabelled text in a target language."""
    return f"unlabelled.{language}.jsonl"


def is_unlabelled(name: str) -> bool:
    """Whether the rows of a file have no labels."""
    return name.startswith("unlabelled.")


class RowWriter:
    """The files of a corpus folder that is being written, a row at a time.

    Attributes:
        head: the provenance's own fields, which may grow until the folder is finished.
        left_out: documents that are not written, by reason.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.head = dict(head)
        self.left_out: Counter[str] = Counter()
        self._folder = folder
        self._files: dict[str, _RowFile] = {}

    def begin(self, name: str) -> None:
        """Begin a file, which may stay empty."""
        stream = self._open.enter_context(new_member(self._folder / name))
        self._files[name] = _RowFile(stream)

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Write one row, whose fields stand in the order of the line."""
        if name not in self._files:
            self.begin(name)
        self._files[name].add(row)

    def __enter__(self) -> RowWriter:
        self._open = contextlib.ExitStack()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def provenance(self) -> dict[str, Any]:
        """What `provenance.json` says, once every row is written."""
        files = dict(sorted(self._files.items()))
        return {
            **self.head,
            "files": {
                name: {"rows": file.num_rows, "sha256": file.digest.hexdigest()}
                for name, file in files.items()
            },
            "labels": {
                name: dict(file.labels.most_common())
                for name, file in files.items()
                if not is_unlabelled(name)
            },
            "left_out": dict(sorted(self.left_out.items())),
        }


class _RowFile:
    """One file of rows: what is written to it is counted and digested on the way."""

    def __init__(self, stream: BinaryIO) -> None:
        self.num_rows = 0
        self.labels: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self._stream = stream

    def add(self, row: Mapping[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        self._stream.write(line)
        self.digest.update(line)
        self.num_rows += 1
        if "label" in row:
            self.labels[row["label"]] += 1


@contextlib.contextmanager
def new_corpus(out: Path, head: Mapping[str, Any], labels: LabelSet) -> Iterator[RowWriter]:
    """Write the corpus folder `out`: the rows that the block adds, the labels, the provenance.

    Args:
        out: the folder; an older corpus there gives way.
        head: `kind`, `format`, `release` and `config`, and what else tells where the rows are from.
        labels: all labels, in their order.

    Yields:
        What rows are added to. On any error in the block `out` stays as it was.

    Raises:
        StorageError: the disk refused.
    """
    with new_folder(out, replace=True) as folder:
        with RowWriter(folder, head) as writer:
            yield writer
        write_json(folder / LABELS, labels.to_json())
        write_json(folder / PROVENANCE, writer.provenance())


def read_provenance(out: Path, kind: str) -> dict[str, Any] | None:
    """The provenance of a corpus folder of a kind; None where `out` is something else."""
    try:
        value = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(value, dict) and value.get("kind") == kind and value.keys() >= _KEYS
    return value if is_ours else None


def require_replaceable(out: Path, kind: str, command: str) -> None:
    """Refuse a folder that holds anything that this task did not write.

    Raises:
        ConfigError: it does.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`out` {out}: expected a folder, found a file. Give another folder.")
    if is_free(out):
        return
    provenance = read_provenance(out, kind)
    ours = {PROVENANCE, LABELS, *(provenance or {}).get("files", {})}
    strange = sorted(path.name for path in out.iterdir() if path.name not in ours)
    if provenance is None or strange:
        raise ConfigError(
            f"`out` {out}: expected a new folder or a corpus of `monoxkit {command}`, found "
            f"{', '.join(strange[:5]) or 'a damaged ' + PROVENANCE}. Give another folder."
        )


def require_setting(holds: bool, option: str, expected: str, found: object) -> None:
    """Refuse a setting of a task that does not hold, with both values.

    Raises:
        ConfigError: it does not.
    """
    if not holds:
        raise ConfigError(f"`{option}`: expected {expected}, found {found}. Correct it.")


def reusable(out: Path, head: Mapping[str, Any], labels: LabelSet) -> dict[str, Any] | None:
    """The provenance of a finished folder that was made from the same; None without one.

    Args:
        out: the folder.
        head: `kind`, `format`, `config` and the other fields that must be equal.
        labels: the labels that it must have.

    Raises:
        CorpusError: a file was changed since.
        LabelMismatchError: `labels.json` was.
    """
    provenance = read_provenance(out, head["kind"])
    wanted = json.loads(json.dumps(head))  # as it reads from a file
    if provenance is None or any(provenance.get(key) != wanted[key] for key in wanted):
        return None
    for name, record in provenance["files"].items():
        path = out / name
        if not path.is_file() or digest_file(path) != record["sha256"]:
            raise CorpusError(
                f"{path}: expected the content that {PROVENANCE} lists, found "
                f"{'another' if path.is_file() else 'no file'}. Remove {out} and run again."
            )
    labels.require_equal(LabelSet.read(out / LABELS), PROVENANCE, LABELS)
    return provenance


def task_summary(
    out: Path, provenance: Mapping[str, Any], release: str, *, reused: bool
) -> TaskSummary:
    """What a folder's provenance says, for the caller."""
    return TaskSummary(
        folder=str(out),
        reused=reused,
        release=release,
        rows={name: record["rows"] for name, record in provenance["files"].items()},
        labels=provenance["labels"],
        left_out=provenance["left_out"],
    )


def ranks(total: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """The place of each of `total` rows in an order that the seed alone decides.

    The rows below a smaller place are among those below a larger one, so that a smaller share of a
    corpus is a part of a larger share. Digests, not a generator of random numbers, whose streams
    change between versions.

    Args:
        total: number of rows.
        seed: any whole number.
        purpose: keeps several orders of one seed apart.

    Returns:
        [total] places from 0.
    """
    keys = np.fromiter(
        (
            int.from_bytes(hashlib.sha256(f"{seed}:{purpose}:{row}".encode()).digest()[:8], "big")
            for row in range(total)
        ),
        dtype=np.uint64,
        count=total,
    )
    places = np.empty(total, dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(total)
    return places
