"""Whatever goes into a store comes out of it, exactly once and in order."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monox_kit.data import Document
from monox_kit.store import FolderWriter, LogitStore, StoreManifest, fetch_store
from tests.object_store import object_store, url_writer
from tests.store_samples import (
    LABELS,
    manifest,
    part,
    shard_arguments,
    text_bytes,
    tree,
    write_shard,
)

# Any text that UTF-8 can hold: empty, NUL, line ends, beyond the basic plane.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[StoreManifest, dict[str, Any]]:
    """A manifest, and what `write_shard` takes for all of its rows."""
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
    names = [document.label for document in documents]
    return store, {
        "logits": logits,
        "documents": documents,
        "labels": np.array([-1 if n is None else LABELS.index(n, "") for n in names], np.int32),
        "recomputed": draw(arrays.arrays(np.bool_, num_rows)),
    }


@settings(max_examples=40, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_everything_comes_back(
    corpus: tuple[StoreManifest, dict[str, Any]], data: st.DataObject
) -> None:
    store, values = corpus
    documents, logits = values["documents"], values["logits"]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "s"
        with FolderWriter(folder, store) as writer:
            for shard in data.draw(st.permutations(writer.missing)):
                write_shard(writer, shard, **part(values, shard.start, shard.stop))
            writer.complete()
        found = LogitStore.open(folder, verify="full")
        assert list(found.documents()) == documents
        np.testing.assert_array_equal(found.logits(slice(None)), logits)
        rows = data.draw(arrays.arrays(np.int64, 5, elements=st.integers(0, len(documents) - 1)))
        np.testing.assert_array_equal(found.logits(rows), logits[rows])
        np.testing.assert_array_equal(found.gold(rows), values["labels"][rows])
        np.testing.assert_array_equal(found.recomputed(rows), values["recomputed"][rows])
        assert found.info().num_recomputed == values["recomputed"].sum()


@settings(max_examples=40, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_no_split_into_parts_shows_in_the_bytes(
    corpus: tuple[StoreManifest, dict[str, Any]], data: st.DataObject
) -> None:
    store, values = corpus
    with tempfile.TemporaryDirectory() as parent:
        with FolderWriter(Path(parent) / "whole", store) as writer:
            for shard in writer.missing:
                write_shard(writer, shard, **part(values, shard.start, shard.stop))
        with FolderWriter(Path(parent) / "parts", store) as writer:
            for shard in writer.missing:
                places = st.integers(shard.start, shard.stop)
                # Two cuts at one place make a part without rows.
                cuts = sorted(data.draw(st.lists(places, max_size=6)))
                sizes = text_bytes(values["documents"][shard.start : shard.stop])
                with writer.shard(shard, sizes) as builder:
                    for start, stop in pairwise([shard.start, *cuts, shard.stop]):
                        builder.append(**part(values, start, stop))
        assert tree(Path(parent) / "parts") == tree(Path(parent) / "whole")


@settings(max_examples=25, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_what_is_fetched_from_a_url_is_what_a_local_run_writes(
    corpus: tuple[StoreManifest, dict[str, Any]], data: st.DataObject
) -> None:
    store, values = corpus
    with tempfile.TemporaryDirectory() as parent, object_store():
        url, staging, most = "memory://bucket/store", Path(parent) / "staging", 0
        while most < store.num_shards:  # in several runs
            most += data.draw(st.integers(1, store.num_shards))
            with url_writer(url, staging, store) as remote:
                for shard in remote.missing[:most]:
                    sizes = text_bytes(values["documents"][shard.start : shard.stop])
                    with remote.shard(shard, sizes) as builder:
                        builder.append(**part(values, shard.start, shard.stop))
                if not remote.missing:
                    remote.complete(command="label")
        fetch_store(url, Path(parent) / "fetched")
        with FolderWriter(Path(parent) / "local", store) as writer:
            for shard in writer.missing:
                write_shard(writer, shard, **part(values, shard.start, shard.stop))
            writer.complete(command="label")
        assert tree(Path(parent) / "fetched") == tree(Path(parent) / "local")


@settings(max_examples=15, deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 12), shard_rows=st.integers(1, 5))
def test_runs_in_parts_give_the_store_of_one_run(
    data: st.DataObject, num_rows: int, shard_rows: int
) -> None:
    store = manifest(num_rows=num_rows, shard_rows=shard_rows)

    def run(folder: Path, most: int) -> bool:
        with FolderWriter(folder, store) as writer:
            for shard in writer.missing[:most]:
                write_shard(writer, shard, **shard_arguments(store, shard))
            if not writer.missing:
                writer.complete()
            return not writer.missing

    with tempfile.TemporaryDirectory() as parent:
        assert run(Path(parent) / "whole", 99)
        while not run(Path(parent) / "parts", data.draw(st.integers(1, 3))):
            pass
        assert tree(Path(parent) / "parts") == tree(Path(parent) / "whole")
