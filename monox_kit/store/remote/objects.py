"""The objects below a URL: put where none is, listed, and read in blocks of known length."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from monox_kit.errors import ConfigError, MonoxError, StorageError, first_line
from monox_kit.store.remote.drivers import driver_of, open_url

PROBE_NAME = "probe"
_PROBE = b"Put twice when labelling begins: the second time must be refused.\n"
_BLOCK_BYTES = 16 << 20
_HEADS_AT_ONCE = 256
# Of a put that failed without a trace. Drivers have repeated what is worth repeating within one
# request; what is left is S3's answer 409 to two writers at once, which is to be asked again.
_TRIES = 4
_PAUSE_S = 1.0


class ObjectFolder:
    """The objects whose names begin with a URL. Nothing is ever replaced or deleted.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        """Open the URL's driver.

        Raises:
            ConfigError: no store may lie there, or the driver is not installed.
            StorageError: the driver refused.
        """
        self.url = url
        self._driver = driver_of(url)
        self._filesystem, self._root = open_url(url)

    def where(self, name: str) -> str:
        """An object's URL."""
        return f"{self.url}/{name}"

    def require_put_if_absent(self) -> None:
        """Check by trying that an object which is there is not replaced.

        Raises:
            StorageError: it is, or nothing can be put at all.
        """
        # Others than a refusal because it is there must not pass: a right to write is needed too.
        self._put(PROBE_NAME, _PROBE, accepts_lost_answer=False)
        if self._put(PROBE_NAME, _PROBE, accepts_lost_answer=False):
            raise StorageError(
                f"{self.where(PROBE_NAME)}: expected a second put to be refused, found that it "
                f"replaced the first. What answers at this {self.url.partition('://')[0]}:// "
                "address has no put-if-absent: label to a folder, or to another service."
            )

    def put(self, name: str, content: bytes) -> bool:
        """Put an object, unless there is one of that name.

        Returns:
            False where there was one; it may be this one, if an earlier answer was lost.

        Raises:
            ConfigError: it is larger than the service takes.
            StorageError: it could not be put, and none is there.
        """
        return self._put(name, content, accepts_lost_answer=True)

    def _put(self, name: str, content: bytes, *, accepts_lost_answer: bool) -> bool:
        """See `put`; a failed put counts as one whose answer was lost if the object is there."""
        if len(content) > self._driver.most_bytes:
            raise ConfigError(
                f"{self.where(name)}: expected at most {self._driver.most_bytes} bytes, found "
                f"{len(content)}. Give smaller `shard_rows`."
            )
        put = self._filesystem.pipe_file
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                put(self._path(name), content, mode="create", **self._driver.options)
                return True
            except Exception as error:  # each driver has errors of its own
                if _is_taken(error) or (accepts_lost_answer and self._is_there(name)):
                    return False
                last = error
        raise self._refused(name, "to put the object", last) from last

    def size(self, name: str) -> int | None:
        """An object's bytes; None where there is none.

        Raises:
            StorageError: the service does not tell.
        """
        with self._refusals(name, "to find out about the object"):
            self._filesystem.invalidate_cache()  # drivers keep what they have listed
            try:
                found = self._filesystem.info(self._path(name))
            except FileNotFoundError:
                return None
        return int(found["size"]) if found["type"] == "file" else None

    def _is_there(self, name: str) -> bool:
        """Whether an object is known to be there; no where the service does not tell."""
        try:
            return self.size(name) is not None
        except StorageError:
            return False

    def sizes(self, folder: str) -> dict[str, int | None]:
        """Name to bytes of what lies in a folder, in order; None for folders in it.

        Raises:
            StorageError: the service does not tell.
        """
        path = self._path(folder)
        with self._refusals(folder, "to list the objects"):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        entries = sorted((str(entry["name"]).rstrip("/"), entry) for entry in found)
        return {
            name.rpartition("/")[2]: int(entry["size"]) if entry["type"] == "file" else None
            for name, entry in entries
            # Consoles put an empty object to stand for the folder itself.
            if name.strip("/") != path.strip("/")
        }

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """A small object's bytes, one more than `most_bytes` at most; None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        size = self.size(name)
        return None if size is None else b"".join(self.blocks(name, 0, min(size, most_bytes + 1)))

    def blocks(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of an object, in blocks.

        Raises:
            StorageError: they cannot be read, or others than that many came.
        """
        for first in range(start, stop, _BLOCK_BYTES):
            last = min(first + _BLOCK_BYTES, stop)
            with self._refusals(name, "to read the object"):
                block = self._filesystem.cat_file(self._path(name), start=first, end=last)
            if len(block) != last - first:
                raise StorageError(
                    f"{self.where(name)}: expected the bytes {first} to {last - 1}, found "
                    f"{len(block)} of {last - first}. Run the same command again."
                )
            yield block

    def heads(self, names: Sequence[str], num_bytes: int) -> Iterator[bytes]:
        """The first bytes of some objects, fewer where an object has fewer; many are read at once.

        Raises:
            StorageError: one cannot be read.
        """
        for first in range(0, len(names), _HEADS_AT_ONCE):
            part = names[first : first + _HEADS_AT_ONCE]
            with self._refusals(part[0], "to read the object"):
                paths = [self._path(name) for name in part]
                found = self._filesystem.cat_ranges(paths, 0, num_bytes, on_error="return")
            for name, head in zip(part, found):
                if isinstance(head, Exception):
                    raise self._refused(name, "to read the object", head) from head
                yield bytes(head)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _refusals(self, name: str, what: str) -> Iterator[None]:
        """Turn the driver's errors, of whatever class, into our own."""
        try:
            yield
        except MonoxError:
            raise
        except Exception as error:
            raise self._refused(name, what, error) from error

    def _refused(self, name: str, what: str, error: Exception) -> StorageError:
        return StorageError(
            f"{self.where(name)}: expected {what}, found: {first_line(error).rstrip('.')}. Check "
            "the address, the access to it and the network, then run the same command again."
        )


def _is_taken(error: Exception) -> bool:
    """Whether a put was refused because an object is there."""
    if isinstance(error, FileExistsError):
        return True
    # s3fs knows the answer 412 by a detail that S3 work-alikes leave out.
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return False
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412)
