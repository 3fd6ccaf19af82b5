"""Copying and counting hold the format's rules even where every digest fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import StoreCorrupt
from monox_kit.store import LogitStore, builder, contents, merge_stores, store_stats
from tests.store_samples import FINGERPRINT, manifest, write_store


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 4 rows are read in two parts."""
    monkeypatch.setattr(contents, "_PART_ROWS", 3)


def put(index: int, value: Any) -> Callable[[Any], Any]:
    """Another value at one place of an array."""

    def change(array: Any) -> Any:
        array[index] = value
        return array

    return change


def write_wrong_store(folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """A store whose writer changed one array of shard 0, and took the digests of that."""
    kinds = {"rows": "<i8", "logits": "<f4", "labels": "<i4"}
    kind = kinds.get(name, "<i8" if name.endswith("_offsets") else "u1")
    real = builder._ArrayFile.write

    def wrong(self: Any, content: memoryview) -> None:
        # After the 128 bytes of the header; offsets begin with a zero of their own.
        is_values = self._num_bytes >= 128 + 8 * name.endswith("_offsets")
        is_first_shard = self._path.parent.name.startswith(".tmp-000000-")
        if self._path.name == f"{name}.npy" and is_first_shard and is_values:
            changed = change(np.frombuffer(content, kind).copy())
            content = memoryview(changed).cast("B")
        real(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder._ArrayFile, "write", wrong)
        return write_store(folder)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("rows", put(2, 9), r"rows\.npy: expected the row's own number in row 2"),
        ("logits", put(10, np.nan), r"logits\.npy: expected finite logits in row 3"),
        ("labels", put(3, 3), r"labels\.npy: expected labels from -1 to 2 in row 3"),
        ("labels", put(0, -2), r"labels\.npy: expected labels from -1 to 2 in row 0"),
        ("labels", put(0, 1), r"shard\.json: expected num_labelled 3, found 2"),
        ("recomputed", put(1, 2), r"recomputed\.npy: expected 0 or 1 in row 1"),
        ("recomputed", put(0, 1), r"shard\.json: expected num_recomputed 2, found 1"),
        ("text_offsets", put(1, 10_000), r"text_offsets\.npy: expected ascending offsets"),
        ("text_offsets", put(0, -1), r"text_offsets\.npy: expected ascending offsets"),
        ("ids_offsets", put(-1, 15), r"ids_offsets\.npy: expected ascending offsets from 0 to 16"),
        ("text", put(0, 0xFF), r"text\.npy: expected UTF-8 text in row 0, found"),
    ],
)
def test_no_forged_value_is_copied_or_counted(
    tmp_path: Path, name: str, change: Callable[[Any], Any], says: str
) -> None:
    wrong = write_wrong_store(tmp_path / "wrong", name, change)
    assert len(LogitStore.open(wrong, verify="read")) == 11
    other = manifest(fingerprint={**FINGERPRINT, "corpus_digest": "other"})
    write_store(tmp_path / "other", other)
    with pytest.raises(StoreCorrupt, match=rf"wrong/shards/000000/{says}"):
        merge_stores([wrong, tmp_path / "other"], tmp_path / "out")
    assert not list((tmp_path / "out" / "shards").iterdir())
    if name != "text":  # texts are not decoded to be counted
        with pytest.raises(StoreCorrupt, match=rf"wrong/shards/000000/{says}"):
            store_stats(wrong)
