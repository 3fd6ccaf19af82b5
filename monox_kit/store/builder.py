"""Building one shard from parts of its rows, in memory that does not grow with the shard.

Every array file is open at once, and a part's values go to all of them: the headers come first,
because the rows and the bytes of text are known before any of them is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from monox_kit.data import Document, Logits
from monox_kit.durable import disk_errors, new_folder, new_member
from monox_kit.errors import ConfigError, StorageError, StoreCorrupt, StoreError
from monox_kit.problem import Bools, Labels
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import (
    SHARD_FILE,
    ShardRange,
    StoreManifest,
    array_header,
    array_layout,
    text_fields,
)
from monox_kit.store.record import corrupt, encode_record
from monox_kit.store.rules import stored_arrays, stored_texts
from monox_kit.store.shard import FileRecord, shard_json


class ShardBuilder:
    """Takes the rows of one shard part by part; made by `StoreWriter.shard`.

    Attributes:
        shard: the rows to append.
        next_row: the first row that the next part must hold.
    """

    def __init__(
        self,
        manifest: StoreManifest,
        shard: ShardRange,
        text_bytes: Mapping[str, int],
        files: Mapping[str, _ArrayFile],
        where: str,
    ) -> None:
        """Used by `new_shard`, which has opened `files` and checked `text_bytes`."""
        self.shard = shard
        self.next_row = shard.start
        self.num_labelled = self.num_recomputed = 0
        self._manifest = manifest
        self._announced = text_bytes
        self._arrived = dict.fromkeys(text_bytes, 0)
        self._files = files
        self._where = where
        self._broken: str | None = None

    def append(
        self, *, logits: Logits, documents: Sequence[Document], labels: Labels, recomputed: Bools
    ) -> None:
        """Add the shard's next n rows; a part that is refused for its content changes nothing.

        Args:
            logits: [n, C] float32, finite.
            documents: the documents of rows `next_row` to `next_row` + n, in order.
            labels: the gold labels, as `Problem.encode` gives them.
            recomputed: [n] bool, whether the reference graph of the run's fidelity guard gave the
                row's logits.

        Raises:
            StoreError: something does not fit the shard, the store or the announced bytes.
            StorageError: the disk refused; the shard cannot be continued.
        """
        self._require_usable()
        where, shard = self._where, self.shard
        rows = range(self.next_row, self.next_row + len(documents))
        if rows.stop > shard.stop:
            raise StoreError(
                f"{where}: expected the {len(shard)} rows {shard.start} to {shard.stop - 1}, found "
                f"{rows.stop - shard.start} with this part. Give every row of the shard once."
            )
        arrays = stored_arrays(
            self._manifest, rows, logits=logits, labels=labels, recomputed=recomputed, where=where
        )
        texts = stored_texts(self._manifest, rows, documents, where)
        for field, (content, ends) in texts.items():
            arrays[f"{field}.npy"] = np.frombuffer(content, np.uint8)
            arrays[f"{field}_offsets.npy"] = ends + self._arrived[field]
            arrived = self._arrived[field] + len(content)
            if arrived > self._announced[field]:
                raise self._other_bytes(field, arrived)
        # Where a write fails or is interrupted, the files no longer agree with each other.
        self._broken = f"a part, from row {rows.start} on, that was not written to its end"
        for name, array in arrays.items():
            self._files[name].write(array.data)
        for field, (content, _) in texts.items():
            self._arrived[field] += len(content)
        self.num_labelled += int(self._manifest.problem.are_given(labels).sum())
        self.num_recomputed += int(arrays["recomputed.npy"].sum())
        self.next_row = rows.stop
        self._broken = None

    def finish(self) -> dict[str, FileRecord]:
        """Size and digest of every array file; nothing can be appended afterwards.

        Raises:
            StoreError: other rows or other bytes came than the shard's, or a part was cut off.
        """
        self._require_usable()
        shard = self.shard
        if self.next_row != shard.stop:
            raise StoreError(
                f"{self._where}: expected the {len(shard)} rows {shard.start} to {shard.stop - 1}, "
                f"found {self.next_row - shard.start}. Append every row before the block ends."
            )
        for field, arrived in self._arrived.items():
            if arrived != self._announced[field]:
                raise self._other_bytes(field, arrived)
        self.close()
        return {name: file.record() for name, file in self._files.items()}

    def close(self) -> None:
        """Refuse everything from now on."""
        self._broken = "a shard whose block has ended"

    def _require_usable(self) -> None:
        if self._broken is not None:
            raise StoreError(
                f"{self._where}: expected a shard under construction, found {self._broken}. "
                "Begin it again with StoreWriter.shard."
            )

    def _other_bytes(self, field: str, arrived: int) -> StoreError:
        return StoreError(
            f"{self._where}: expected {self._announced[field]} bytes of {field} as announced, "
            f"found {arrived}. Give StoreWriter.shard the UTF-8 bytes of exactly these rows."
        )


@contextmanager
def new_shard(
    store: StoreFolder,
    shard: ShardRange,
    text_bytes: Mapping[str, int],
    require_own: Callable[[], object],
) -> Iterator[ShardBuilder]:
    """Build a shard aside; commit it when the block ends without an error.

    An exception of the block leaves as it is, also one of the disk: it need not be the store's.

    Args:
        store: where to.
        shard: which.
        text_bytes: the bytes of each text field.
        require_own: called last before the commit, and where that fails; raises where the shard is
            another's by now.

    Raises:
        StoreError: other rows or bytes came than the shard's and the announced ones.
        StorageError: the disk refused, or gave back other bytes than were written.
    """
    final = store.shard_folder(shard)
    where = f"{store.path} shard {shard.name}"
    announced = _checked_text_bytes(store.manifest, text_bytes, where)
    content = b""
    abandoned: BaseException | None = None
    try:
        with new_folder(
            final, verify=lambda folder: _read_back(store, shard, folder, content, require_own)
        ) as temporary:
            with ExitStack() as stack:
                files = _begin_files(store.manifest, shard, announced, temporary, stack)
                builder = ShardBuilder(store.manifest, shard, announced, files, where)
                try:
                    yield builder
                except BaseException as error:
                    abandoned = error
                    builder.close()
                    raise
                records = builder.finish()
            value = shard_json(
                store.digest, shard, builder.num_labelled, builder.num_recomputed, records
            )
            content = encode_record(value, final / SHARD_FILE)
            with new_member(temporary / SHARD_FILE) as stream:
                stream.write(content)
    except Exception as error:
        if abandoned is None:
            _name_loss(error, require_own)
            raise
    if abandoned is not None:
        raise abandoned


def copy_shard(
    store: StoreFolder,
    shard: ShardRange,
    content: bytes,
    files: Iterable[tuple[str, bytes]],
    require_own: Callable[[], object],
) -> None:
    """Commit a shard of another copy of the store, byte for byte; see `new_shard`.

    Args:
        store: where to.
        shard: which.
        content: the bytes of its `shard.json`.
        files: names of array files with their next bytes, in order.
        require_own: as in `new_shard`.
    """
    try:
        with new_folder(
            store.shard_folder(shard),
            verify=lambda folder: _read_back(store, shard, folder, content, require_own),
        ) as temporary:
            for name, parts in groupby(files, key=itemgetter(0)):
                with new_member(temporary / name) as stream:
                    for _, part in parts:
                        stream.write(part)
            with new_member(temporary / SHARD_FILE) as stream:
                stream.write(content)
    except Exception as error:
        _name_loss(error, require_own)
        raise


def _name_loss(error: Exception, require_own: Callable[[], object]) -> None:
    """Raise the loss of the shard where it is behind an error of its folder.

    Whoever has the shard by now removes what is half-built of it, or has committed it.
    """
    if isinstance(error, (OSError, StorageError, ConfigError)):
        require_own()


def _read_back(
    store: StoreFolder,
    shard: ShardRange,
    folder: Path,
    content: bytes,
    require_own: Callable[[], object],
) -> None:
    """Check a finished shard before its commit.

    Raises:
        StorageError: something is not as `content`, the bytes of its `shard.json`, states.
    """
    try:
        record = store.shards.read_record(folder, shard)
        for name in record.files:
            store.shards.map_array(folder, record, name, check_digest=True)
        if (folder / SHARD_FILE).read_bytes() != content:
            raise corrupt(folder / SHARD_FILE, "the bytes written", "others", "")
    except StoreCorrupt as error:
        raise StorageError(
            f"{store.shard_folder(shard)}: expected the disk to give back what was written, found: "
            f"{error} Check the disk, then run the same command again."
        ) from error
    require_own()


class _ArrayFile:
    """One array file under construction, with a running digest."""

    def __init__(self, path: Path, stream: BinaryIO, header: bytes) -> None:
        self._path = path
        self._stream = stream
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self.write(memoryview(header))

    def write(self, content: memoryview) -> None:
        """Append values.

        Raises:
            StorageError: the disk refused.
        """
        with disk_errors(self._path):
            self._stream.write(content)
        self._digest.update(content)
        self._num_bytes += content.nbytes

    def record(self) -> FileRecord:
        """Size and SHA-256 of all that was written."""
        return FileRecord(self._num_bytes, self._digest.hexdigest())


def _begin_files(
    manifest: StoreManifest,
    shard: ShardRange,
    text_bytes: Mapping[str, int],
    folder: Path,
    stack: ExitStack,
) -> dict[str, _ArrayFile]:
    """Every array file of the shard with its header, to be closed by `stack`."""
    files = {}
    for name, (descr, shape) in array_layout(manifest, len(shard)).items():
        known = tuple(text_bytes[Path(name).stem] if size is None else size for size in shape)
        stream = stack.enter_context(new_member(folder / name))
        files[name] = _ArrayFile(folder / name, stream, array_header(descr, known))
    for field in text_fields(manifest):
        files[f"{field}_offsets.npy"].write(np.zeros(1, "<i8").data)
    return files


def _checked_text_bytes(
    manifest: StoreManifest, text_bytes: Mapping[str, int], where: str
) -> dict[str, int]:
    """A copy of the announced bytes, which may not change while the shard is built."""
    fields = text_fields(manifest)
    if set(text_bytes) != set(fields):
        raise StoreError(
            f"{where}: expected the bytes of {', '.join(fields)}, found those of "
            f"{', '.join(text_bytes) or 'nothing'}. Give the bytes of each text field."
        )
    for field in fields:
        if not 0 <= text_bytes[field] < 2**63:
            raise StoreError(
                f"{where}: expected a number of bytes of {field}, found {text_bytes[field]}. "
                "Count the UTF-8 bytes of the shard's rows."
            )
    return dict(text_bytes)
