"""Stages of a stream that work at the same time, each in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Final, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_END: Final = object()


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items; the next one is made in a thread while the caller works on this one.

    Errors of `items` are raised where the item would have come. At most one item waits.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        pending = pool.submit(next, items, _END)
        while (item := pending.result()) is not _END:
            pending = pool.submit(next, items, _END)
            yield item  # type: ignore[misc]  # never the sentinel


def made_ahead(
    function: Callable[[S], T], items: Iterator[S], workers: int
) -> Generator[T, None, None]:
    """`function` of every item, in order; up to `workers` of them are made ahead, in threads.

    Errors of `function` are raised where its result would have come. Close the generator to end
    the threads.

    Args:
        function: of one item; with several workers it runs for several items at once.
        items: taken in the caller's thread, so many ahead; there may be no end of them.
        workers: threads; 0 makes each when it is asked for, in the caller's thread.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    pending: deque[Future[T]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Behind:
    """Does jobs in the order given, one at a time, in a thread, at most one ahead of the caller.

    Use as a context manager: leaving it waits for the last job and raises what it raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._pending: Future[None] | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Hand over a job, once the one before is done; raises what that one raised."""
        self.wait()
        self._pending = self._pool.submit(job)

    def wait(self) -> None:
        """Wait for the job at hand; raises what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Work that was handed over is done in any case; of two errors the caller's is the first.
        try:
            with suppress(Exception) if error[0] is not None else nullcontext():
                self.wait()
        finally:
            self._pool.shutdown(wait=True)
