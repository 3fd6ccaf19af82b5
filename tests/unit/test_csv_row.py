"""A row of CSV stays one row, whatever its cells hold."""

from __future__ import annotations

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from monox_kit.foreign import csv_row


@given(rows=st.lists(st.lists(st.text(), min_size=2, max_size=3), max_size=4))
@example(rows=[["a\rb", "c"], ["\r", "\n"], ["d\r\n", '"']])
def test_rows_are_read_back_as_they_were(rows: list[list[str]]) -> None:
    text = "".join(map(csv_row, rows))
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
