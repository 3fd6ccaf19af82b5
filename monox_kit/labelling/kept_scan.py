"""The file `scan` of a begun store: what the scan of the corpus found, for every run that fills it.

A line that names the form, a line of JSON, the packed marks, and the SHA-256 of all that in 32
bytes. A file that was changed under the same size and time cannot pass either: a shard's rows are
compared with its mark before they are committed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.corpora.marks import Marks
from monox_kit.data import Document
from monox_kit.digest import digest_json
from monox_kit.store import StoreManifest
from monox_kit.store.record import PlainFolder

# Documents of the scan's sample that are kept; the run plan is chosen by their lengths.
SAMPLE_ROWS = 512
_FORM = b"monoxkit scan 2\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_STEP = "It is made anew."
# Of `CorpusSummary`, what stands in the line of JSON as it is.
_LISTS = ("label_names", "languages")
_PLAIN = ("num_rows", "digest", "has_pairs", "num_labelled", "text_bytes", *_LISTS)


def scan_key(corpus: Corpus, shard_rows: int) -> str | None:
    """A digest of what a scan depends on: the files as they are now, and how they are read.

    None where a file does not tell of changes: what a scan finds there cannot be believed later.
    """
    state = corpus.state()
    # Another version may check rows otherwise.
    key = {"version": __version__, "shard_rows": shard_rows, "corpus": state}
    return None if state is None else digest_json(key)


def encode_scan(scan: CorpusSummary, key: str) -> bytes:
    """The file's bytes for a scan that began when `scan_key` was `key`."""
    header = {
        "key": key,
        **{name: getattr(scan, name) for name in _PLAIN},
        "sample": [
            [d.row, d.id, d.text, d.text_pair, d.label, d.lang] for d in scan.sample[:SAMPLE_ROWS]
        ],
    }
    content = _FORM + json.dumps(header).encode() + b"\n" + scan.marks.packed
    return content + hashlib.sha256(content).digest()


def read_scan(path: Path, key: str, manifest: StoreManifest) -> CorpusSummary | None:
    """What the file holds; None where there is none.

    Raises:
        ValueError, KeyError, TypeError, OSError, StoreCorrupt, StorageError: the file is damaged,
            cannot be read, or is of another store, of other files or of other settings.
    """
    content = _content(path)
    if content is None:
        return None
    header, marks = _decoded(content)
    found = _summary(header, marks)
    of_store = manifest.fingerprint.get("corpus_digest"), manifest.num_rows, manifest.num_shards
    if of_store != (found.digest, found.num_rows, len(marks)):
        raise ValueError("of another store")
    if header["key"] != key:
        raise ValueError("of other files, times of modification or settings than now")
    return found


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
    """The values and marks of a file."""
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(_FORM):
        raise ValueError("not a scan of this form")
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("not as it was written")
    line, _, packed = body.removeprefix(_FORM).partition(b"\n")
    return json.loads(line), Marks(packed)


def _summary(header: Mapping[str, Any], marks: Marks) -> CorpusSummary:
    values = {name: header[name] for name in _PLAIN}
    lists = {name: values.pop(name) for name in _LISTS}
    return CorpusSummary(
        **values,
        label_names=None if lists["label_names"] is None else tuple(lists["label_names"]),
        languages=tuple(lists["languages"]),
        marks=marks,
        sample=tuple(map(_document, header["sample"])),
    )


def _document(fields: Sequence[Any]) -> Document:
    """A document of its fields as JSON has them: several labels are a list there."""
    row, key, text, pair, label, lang = fields
    return Document(row, key, text, pair, tuple(label) if type(label) is list else label, lang)
