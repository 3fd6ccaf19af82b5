"""Stages that overlap: order, errors, bounds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from monox_kit.overlap import Behind, ahead, made_ahead


def test_items_come_in_order_and_at_most_one_waits() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(items()):
        assert len(made) <= number + 2
        assert made[: number + 1] == list(range(number + 1))
    assert made == list(range(20))


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    stream = ahead(items())
    assert next(stream) == 1
    assert begun.wait(5), "nothing was made until it was asked for"
    assert list(stream) == [2]


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("row 2")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="row 2"):
        next(stream)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_their_items_whoever_is_first(workers: int) -> None:
    third_done = threading.Event()

    def square(number: int) -> int:
        if number == 2:
            third_done.set()
        elif number == 0 and workers == 3:
            assert third_done.wait(5), "three workers make three at once"
        return number**2

    assert list(made_ahead(square, iter(range(20)), workers)) == [n**2 for n in range(20)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_so_many_are_made_ahead_of_an_endless_stream_as_there_are_workers(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken = number + 1
            yield number

    with closing(made_ahead(str, items(), workers)) as stream:
        for number in range(10):
            assert next(stream) == str(number)
            assert taken == number + 1 + workers
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_of_one_comes_after_the_results_before_it(workers: int) -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("row 2")
        return number

    stream = made_ahead(fail_at_two, iter(range(9)), workers)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="row 2"):
        next(stream)


def test_jobs_are_done_in_order_by_the_end_of_the_block() -> None:
    done: list[int] = []
    with Behind() as behind:
        for number in range(10):
            behind.do(lambda number=number: done.append(number))
            assert len(done) >= number - 1
    assert done == list(range(10))


def test_a_jobs_error_is_raised_at_the_next_job_or_at_the_end() -> None:
    def fail() -> None:
        raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"), Behind() as behind:
        behind.do(fail)
        behind.do(lambda: None)
    with pytest.raises(ValueError, match="disk"), Behind() as behind:
        behind.do(fail)


def test_what_was_handed_over_is_done_when_the_block_fails_and_the_blocks_error_wins() -> None:
    done: list[str] = []

    def job() -> None:
        done.append("job")
        raise ValueError("later")

    with pytest.raises(RuntimeError, match="first"), Behind() as behind:
        behind.do(job)
        raise RuntimeError("first")
    assert done == ["job"]
