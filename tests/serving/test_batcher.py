"""The batcher: nothing is lost, nothing runs twice, budgets are kept, the earliest goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monox_kit.serving.batcher import Batcher

ROWS = st.lists(
    st.tuples(st.integers(1, 600), st.floats(0, 10, allow_nan=False)), min_size=1, max_size=100
)


class Row:
    def __init__(self, length: int, due_s: float) -> None:
        self.length, self.due_s = length, due_s


def filled(rows: list[tuple[int, float]]) -> tuple[Batcher[Row], list[Row]]:
    batcher: Batcher[Row] = Batcher()
    made = [Row(*row) for row in rows]
    for row in made:
        batcher.add(row, row.length, row.due_s)
    return batcher, made


@given(ROWS, st.integers(1, 2048))
def test_every_row_runs_once_within_the_budget_and_the_earliest_first(
    rows: list[tuple[int, float]], budget: int
) -> None:
    batcher, waiting = filled(rows)
    while waiting:
        assert batcher.tokens == sum(row.length for row in waiting)
        assert len(batcher) == len(waiting)
        run = batcher.take(budget)
        assert len(run) == 1 or len(run) * max(row.length for row in run) <= budget
        assert min(row.due_s for row in run) == min(row.due_s for row in waiting)
        for row in run:
            waiting.remove(row)  # raises for one that has run before
    assert batcher.take(budget) == [] and batcher.tokens == len(batcher) == 0


@given(ROWS, st.integers(1, 2048))
def test_no_row_is_padded_to_more_than_four_times_its_length(
    rows: list[tuple[int, float]], budget: int
) -> None:
    batcher, _ = filled(rows)
    while run := batcher.take(budget):
        longest = max(row.length for row in run)
        assert longest <= max(4 * min(row.length for row in run), 16)


@given(ROWS, st.data())
def test_dropped_rows_do_not_run(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    batcher, made = filled(rows)
    gone = data.draw(st.lists(st.sampled_from(made), unique_by=id))
    batcher.drop(gone)
    batcher.drop(gone)
    ran = []
    while run := batcher.take(512):
        ran += run
    assert {id(row) for row in ran} == {id(row) for row in made} - {id(row) for row in gone}
    assert batcher.tokens == 0


@given(ROWS, st.floats(0, 10, allow_nan=False))
def test_what_a_row_waits_for_is_all_that_is_due_before_it(
    rows: list[tuple[int, float]], due_s: float
) -> None:
    batcher, made = filled(rows)
    assert batcher.tokens_due(due_s) == sum(row.length for row in made if row.due_s <= due_s)


def test_a_long_text_runs_alone_and_short_ones_together() -> None:
    batcher, _ = filled([(500, 0.0), *((10, 1.0 + number) for number in range(8))])
    assert [len(batcher.take(1024)), len(batcher.take(1024))] == [1, 8]


def test_equal_times_go_in_the_order_in_which_they_came() -> None:
    batcher, made = filled([(100, 1.0)] * 10)
    assert [batcher.take(200), batcher.take(200)] == [made[:2], made[2:4]]
