"""Whatever goes into a store comes out of it, exactly once and in order."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monox_kit.data import Document
from monox_kit.store import LogitStore, StoreManifest, StoreWriter
from tests.store_samples import LABELS, manifest, shard_arguments, tree

# Any text that UTF-8 can hold: empty, NUL, line ends, beyond the basic plane.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: what reaches it when is the subject of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[StoreManifest, list[Document], Any]:
    """A manifest with documents and float32 logits [N, C] that its dtype can hold."""
    num_rows = draw(st.integers(1, 9))
    has_pairs = draw(st.booleans())
    dtype = draw(st.sampled_from(["float32", "float16"]))
    documents = [
        Document(
            row=row,
            id=draw(TEXTS),
            text=draw(TEXTS),
            text_pair=draw(TEXTS) if has_pairs else None,
            label=draw(st.sampled_from([None, *LABELS.names])),
        )
        for row in range(num_rows)
    ]
    width = 32 if dtype == "float32" else 16
    values = st.floats(allow_nan=False, allow_infinity=False, width=width)
    logits = draw(arrays.arrays(np.float32, (num_rows, len(LABELS)), elements=values))
    store = manifest(
        num_rows=num_rows,
        shard_rows=draw(st.integers(1, num_rows + 1)),
        dtype=dtype,
        has_pairs=has_pairs,
    )
    return store, documents, logits


@settings(max_examples=40, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_everything_comes_back(
    corpus: tuple[StoreManifest, list[Document], Any], data: st.DataObject
) -> None:
    store, documents, logits = corpus
    names = [document.label for document in documents]
    gold = np.array([-1 if n is None else LABELS.index(n, "") for n in names], np.int32)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "s"
        with StoreWriter(folder, store) as writer:
            for shard in data.draw(st.permutations(writer.missing)):
                part = slice(shard.start, shard.stop)
                writer.write_shard(
                    shard, logits=logits[part], documents=documents[part], labels=gold[part]
                )
            writer.complete()
        found = LogitStore.open(folder, verify="full")
        assert list(found.documents()) == documents
        np.testing.assert_array_equal(found.logits(slice(None)), logits)
        rows = data.draw(arrays.arrays(np.int64, 5, elements=st.integers(0, len(documents) - 1)))
        np.testing.assert_array_equal(found.logits(rows), logits[rows])
        np.testing.assert_array_equal(found.gold(rows), gold[rows])


@settings(max_examples=15, deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 12), shard_rows=st.integers(1, 5))
def test_runs_in_parts_give_the_store_of_one_run(
    data: st.DataObject, num_rows: int, shard_rows: int
) -> None:
    store = manifest(num_rows=num_rows, shard_rows=shard_rows)

    def run(folder: Path, most: int) -> bool:
        with StoreWriter(folder, store) as writer:
            for shard in writer.missing[:most]:
                writer.write_shard(shard, **shard_arguments(store, shard))
            if not writer.missing:
                writer.complete()
            return not writer.missing

    with tempfile.TemporaryDirectory() as parent:
        assert run(Path(parent) / "whole", 99)
        while not run(Path(parent) / "parts", data.draw(st.integers(1, 3))):
            pass
        assert tree(Path(parent) / "parts") == tree(Path(parent) / "whole")
