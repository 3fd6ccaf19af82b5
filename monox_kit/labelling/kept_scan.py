"""What a scan of the corpus found, kept in the store until it is complete, for the runs to come.

The file `scan`: a line that names the form, a line of JSON, the packed marks, and the SHA-256 of
all that in 32 bytes. It is believed where that fits, where it belongs to the store, and where the
corpus's files and settings are those that were scanned; else the corpus is scanned again. A file
that was changed under the same size and time cannot pass either: a shard's rows are compared with
its mark before they are committed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.corpora.marks import Marks
from monox_kit.data import Document
from monox_kit.digest import digest_json
from monox_kit.errors import StorageError, StoreCorrupt
from monox_kit.progress import Progress
from monox_kit.store import StoreManifest, StorePlace, beginning, has_begun, keep_scan
from monox_kit.store.format import SCAN_FILE
from monox_kit.store.record import PlainFolder

_FORM = b"monoxkit scan 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_STEP = "It is made anew."
# Of `CorpusSummary`, what stands in the line of JSON as it is.
_PLAIN = ("num_rows", "digest", "has_pairs", "num_labelled", "label_names", "text_bytes")


class KeptScan:
    """A run's access to the scan that its store keeps."""

    def __init__(
        self, corpus: Corpus, shard_rows: int, place: StorePlace, progress: Progress
    ) -> None:
        """Notes the corpus's files as they are now; they are not read.

        Args:
            corpus: what is to be scanned.
            shard_rows: rows of a mark.
            place: the store's.
            progress: told why a kept scan is not taken, that one is, and that none can be kept.
        """
        self._corpus = corpus
        self._shard_rows = shard_rows
        self._place = place
        self._progress = progress
        # None where nothing is kept: at a URL, or where the files do not tell of changes.
        self._folder = place.folder
        self._key = self._key_now()
        if self._key is None:
            self._folder = None

    def _key_now(self) -> str | None:
        """What a scan depends on; None where nothing is kept."""
        state = None if self._folder is None else self._corpus.state()
        # Another version may check rows otherwise.
        key = {"version": __version__, "shard_rows": self._shard_rows, "corpus": state}
        return None if state is None else digest_json(key)

    def begun(self, turn: ExitStack, about: Mapping[str, Any]) -> StoreManifest | None:
        """What the store was begun as; None where this run is to begin it.

        Where a scan can be kept, one run begins the store and others wait for it here, instead of
        scanning too. What is wrong with the corpus is found for all of them.

        Args:
            turn: entered for the turn to begin the store; close it when that is done.
            about: beside the corpus, what it depends on whether its rows are right.

        Raises:
            CorpusError: the run that was waited for ended with it.
            StoreError: the folder is damaged or something else.
            StorageError: the disk refused, or has no locks.
        """
        if self._folder is not None and not has_begun(self._folder):

            def depends() -> str:
                self._key = self._key_now()  # files may have been changed during the wait
                return digest_json({"corpus": self._key, **about})

            turn.enter_context(beginning(self._folder, depends, self._tell_of_wait))
            if has_begun(self._folder):
                turn.close()
        return self._place.begun()

    def take(self, begun: StoreManifest | None) -> CorpusSummary | None:
        """What an earlier run's scan has found; None where there is none to go by."""
        if begun is None or self._folder is None:
            return None
        path = self._folder / SCAN_FILE
        try:
            found = self._read(path, begun)
        except (ValueError, KeyError, TypeError, OSError, StoreCorrupt, StorageError) as error:
            reason = str(error).removeprefix(f"{path}: ").rstrip(".")
            self._progress.note(f"{path}: {reason}: the corpus is checked again")
            return None
        if found is not None:
            self._progress.note(
                f"{found.num_rows:,} rows were checked by an earlier run; their files are unchanged"
            )
        return found

    def _read(self, path: Path, begun: StoreManifest) -> CorpusSummary | None:
        """What the file holds; None where there is none.

        Raises:
            ValueError: it is damaged, or of something else.
        """
        content = _content(path)
        if content is None:
            return None
        header, marks = _decoded(content)
        found = _summary(header, marks)
        of_store = begun.fingerprint.get("corpus_digest"), begun.num_rows, begun.num_shards
        if of_store != (found.digest, found.num_rows, len(marks)):
            raise ValueError("of another store")
        if header["key"] != self._key:
            raise ValueError("of other files, times of modification or settings than now")
        return found

    def encode(self, summary: CorpusSummary, sample: Sequence[Document]) -> bytes | None:
        """The bytes to keep of a scan; None where nothing could be believed later.

        Args:
            summary: what the scan found, with marks.
            sample: the documents to keep of its sample.
        """
        if self._key is None:
            return None
        header = {
            "key": self._key,
            **{name: getattr(summary, name) for name in _PLAIN},
            "sample": [[d.row, d.id, d.text, d.text_pair, d.label, d.lang] for d in sample],
        }
        content = _FORM + json.dumps(header).encode() + b"\n" + summary.marks.packed
        return content + hashlib.sha256(content).digest()

    def keep(self, content: bytes) -> None:
        """Put what `encode` gave into the store, which has been begun.

        Where the disk refuses, it is noted: the store is the same without it.

        Raises:
            StoreError: a folder stands in its place, which would keep the store from completion.
        """
        assert self._folder is not None  # else nothing is encoded
        try:
            keep_scan(self._folder, content)
        except StorageError as error:
            self._progress.note(f"{error} Until then, each run of this store checks the corpus.")

    def _tell_of_wait(self, holder: str) -> None:
        self._progress.note(
            f"{self._place}: another run checks the corpus and begins the store, waiting for "
            f"{holder or 'it'}"
        )


def _content(path: Path) -> bytes | None:
    """The file's bytes; None where there is no file."""
    try:
        num_bytes = os.lstat(path).st_size
    except FileNotFoundError:
        return None
    with (
        PlainFolder(path.parent, _STEP, may_be_link=True) as folder,
        folder.open_file(path.name, num_bytes) as stream,
    ):
        return stream.readall()


def _decoded(content: bytes) -> tuple[Mapping[str, Any], Marks]:
    """The values and marks of a file.

    Raises:
        ValueError: the bytes are not those that were written.
    """
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(_FORM):
        raise ValueError("not a scan of this form")
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("not as it was written")
    line, _, packed = body.removeprefix(_FORM).partition(b"\n")
    return json.loads(line), Marks(packed)


def _summary(header: Mapping[str, Any], marks: Marks) -> CorpusSummary:
    values = {name: header[name] for name in _PLAIN}
    names = values.pop("label_names")
    return CorpusSummary(
        **values,
        label_names=None if names is None else tuple(names),
        marks=marks,
        sample=tuple(map(_document, header["sample"])),
    )


def _document(fields: Sequence[Any]) -> Document:
    """A document of its fields as JSON has them: several labels are a list there."""
    row, key, text, pair, label, lang = fields
    return Document(row, key, text, pair, tuple(label) if type(label) is list else label, lang)
