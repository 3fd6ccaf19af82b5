"""Made-up rows, and the formats that hold them: a text, C logits and a label a row.

Every format is written from the same rows and read in the same form. Packages other than the
store's own are imported when a format is used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from harness import seconds
from monox_kit.data import Document, LabelSet
from monox_kit.store import FolderWriter, LogitStore, ShardRange, StoreManifest

BATCH_ROWS = 256
BLOCK_ROWS = 1024
ROW_GROUP_ROWS = 1024
NUM_CLASSES = 7
# Bytes of UTF-8 per row come out at about 470: what 100 tokens of a multilingual corpus take.
MEAN_WORDS = 45
ALPHABETS = (
    "etaoinshrdlu",
    "eäöüßnrstaid",
    "éèàçêtaeiorn",
    "оеаинтсрвлкм",
    "的一是不了人我在有他这中",
)

Values = tuple[list[str], Any, Any]


class Rows:
    """What every contender has to give back.

    Attributes:
        texts: N texts.
        logits: [N, C] float32.
        labels: [N] int32.
    """

    def __init__(self, num_rows: int, seed: int, num_scripts: int = len(ALPHABETS)) -> None:
        """Make the rows up; equal arguments, equal rows.

        Args:
            num_rows: N.
            seed: decides everything.
            num_scripts: rows take turns among the first so many of `ALPHABETS`.
        """
        generator, draw = random.Random(seed), np.random.default_rng(seed)
        words = [
            ["".join(generator.choices(alphabet, k=generator.randint(2, 9))) for _ in range(2000)]
            for alphabet in ALPHABETS[:num_scripts]
        ]
        # Lengths of real texts are about log-normal.
        lengths = draw.lognormal(np.log(MEAN_WORDS) - 0.32, 0.8, num_rows).astype(int) + 1
        self.texts = [
            " ".join(generator.choices(words[row % len(words)], k=int(lengths[row])))
            for row in range(num_rows)
        ]
        self.logits = draw.standard_normal((num_rows, NUM_CLASSES), np.float32) * 4
        self.labels = draw.integers(0, NUM_CLASSES, num_rows, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, rows: Any) -> Values:
        """The values of some rows."""
        return [self.texts[row] for row in rows.tolist()], self.logits[rows], self.labels[rows]

    def table(self) -> Any:
        """The rows as an Arrow table, its logits as lists of fixed size."""
        import pyarrow

        logits = pyarrow.FixedSizeListArray.from_arrays(self.logits.reshape(-1), NUM_CLASSES)
        return pyarrow.table({"text": self.texts, "logits": logits, "label": self.labels})


class Contender(Protocol):
    """One format under one way of reading it, opened."""

    def one(self, row: int) -> Values:
        """One row, as n = 1."""

    def many(self, rows: Any) -> Values:
        """[n] rows in the order asked for."""

    def all(self) -> Iterator[Values]:
        """Every row in order, in blocks."""


class OurStore:
    """The logit store."""

    def __init__(self, path: Path, verify: Literal["open", "read"]) -> None:
        self.store = LogitStore.open(path, verify=verify)

    def one(self, row: int) -> Values:
        """One row."""
        here = slice(row, row + 1)
        return [self.store.text(row)], self.store.logits(here), [self.store.label(row)]

    def many(self, rows: Any) -> Values:
        """Rows by number."""
        return self.store.texts(rows), self.store.logits(rows), self.store.gold(rows)

    def all(self) -> Iterator[Values]:
        """Slices."""
        for start in range(0, len(self.store), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            yield self.store.texts(part), self.store.logits(part), self.store.gold(part)


def _from_arrow(table: Any) -> Values:
    """The values of an Arrow table or record batch."""
    logits = table.column("logits")
    if hasattr(logits, "combine_chunks"):
        logits = logits.combine_chunks()
    flat = logits.flatten().to_numpy(zero_copy_only=False)
    labels = table.column("label").to_numpy()
    return table.column("text").to_pylist(), flat.reshape(-1, NUM_CLASSES), labels


class ParquetGroups:
    """Parquet read by row groups, as pyarrow's documentation reads a part of a file."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.file = pyarrow.parquet.ParquetFile(path / "rows.parquet", memory_map=True)

    def one(self, row: int) -> Values:
        """One row of its group."""
        group, at = divmod(row, ROW_GROUP_ROWS)
        return _from_arrow(self.file.read_row_group(group).slice(at, 1))

    def many(self, rows: Any) -> Values:
        """The groups that hold the rows, then the rows of them."""
        groups, which = np.unique(rows // ROW_GROUP_ROWS, return_inverse=True)
        table = self.file.read_row_groups(groups.tolist())
        # Every group but the file's last is full, and the last can only come last.
        return _from_arrow(table.take(which * ROW_GROUP_ROWS + rows % ROW_GROUP_ROWS))

    def all(self) -> Iterator[Values]:
        """Batches."""
        return map(_from_arrow, self.file.iter_batches(BLOCK_ROWS))


class ParquetTake:
    """Parquet through `pyarrow.dataset` and its `take`."""

    def __init__(self, path: Path) -> None:
        import pyarrow.dataset

        self.dataset = pyarrow.dataset.dataset(path / "rows.parquet")

    def one(self, row: int) -> Values:
        """A take of one."""
        return _from_arrow(self.dataset.take([row]))

    def many(self, rows: Any) -> Values:
        """A take of n."""
        return _from_arrow(self.dataset.take(rows))

    def all(self) -> Iterator[Values]:
        """Batches."""
        return map(_from_arrow, self.dataset.to_batches(batch_size=BLOCK_ROWS))


class Datasets:
    """Hugging Face datasets: an Arrow file, memory-mapped."""

    def __init__(self, path: Path, form: Literal["numpy", "arrow"]) -> None:
        from datasets import load_from_disk

        self.dataset = load_from_disk(str(path)).with_format(form)
        self.values = _from_arrow if form == "arrow" else self._from_numpy

    def one(self, row: int) -> Values:
        """One row; as Arrow it comes as a table already."""
        found = self.dataset[row]
        if not isinstance(found, dict):
            return _from_arrow(found)
        return [str(found["text"])], found["logits"][None], np.array([found["label"]])

    def many(self, rows: Any) -> Values:
        """Rows by number."""
        return self.values(self.dataset[rows])

    def all(self) -> Iterator[Values]:
        """Batches."""
        return map(self.values, self.dataset.iter(BLOCK_ROWS))

    def _from_numpy(self, found: dict[str, Any]) -> Values:
        return found["text"].tolist(), found["logits"], found["label"]


class Mds:
    """mosaicml-streaming: MDS shards, through `LocalDataset` or, in order, `StreamingDataset`."""

    def __init__(self, path: Path, *, streamed: bool) -> None:
        from streaming import LocalDataset, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        self.dataset: Any = LocalDataset(str(path))
        if streamed:
            clean_stale_shared_memory()
            self.dataset = StreamingDataset(
                local=str(path), shuffle=False, batch_size=BLOCK_ROWS, num_canonical_nodes=1
            )

    def one(self, row: int) -> Values:
        """One sample."""
        return self._joined([self.dataset[row]])

    def many(self, rows: Any) -> Values:
        """Samples, one by one: MDS has nothing else."""
        return self._joined([self.dataset[row] for row in rows.tolist()])

    def all(self) -> Iterator[Values]:
        """Samples in order, put together in blocks."""
        block: list[Any] = []
        for sample in self.dataset:
            block.append(sample)
            if len(block) == BLOCK_ROWS:
                yield self._joined(block)
                block = []
        if block:
            yield self._joined(block)

    def _joined(self, samples: list[dict[str, Any]]) -> Values:
        logits = np.stack([sample["logits"] for sample in samples])
        labels = np.array([sample["label"] for sample in samples])
        return [sample["text"] for sample in samples], logits, labels


def write_store(rows: Rows, path: Path, shard_rows: int) -> list[float]:
    """Write the rows as a logit store; the seconds of each shard's commit."""
    manifest = StoreManifest(
        labels=LabelSet(tuple(f"class {index}" for index in range(NUM_CLASSES))),
        num_rows=len(rows),
        shard_rows=shard_rows,
        dtype="float32",
        has_pairs=False,
        fingerprint={"made": "up"},
    )
    taken_s = []
    with FolderWriter(path, manifest) as writer:
        for shard in writer.missing:
            here = slice(shard.start, shard.stop)
            documents = [
                Document(row=row, id=str(row), text=text)
                for row, text in enumerate(rows.texts[here], shard.start)
            ]

            def write(shard: ShardRange, here: slice, documents: list[Document]) -> None:
                sizes = {
                    "ids": sum(len(one.id) for one in documents),
                    "text": sum(len(one.text.encode()) for one in documents),
                }
                with writer.shard(shard, sizes) as builder:
                    builder.append(
                        logits=rows.logits[here],
                        documents=documents,
                        labels=rows.labels[here],
                        recomputed=np.zeros(len(shard), np.bool_),
                    )

            taken_s.append(seconds(partial(write, shard, here, documents)))
        writer.complete()
    return taken_s


def write_parquet(rows: Rows, path: Path) -> None:
    """Write the rows as one Parquet file."""
    import pyarrow.parquet

    path.mkdir()
    pyarrow.parquet.write_table(rows.table(), path / "rows.parquet", row_group_size=ROW_GROUP_ROWS)


def write_datasets(rows: Rows, path: Path) -> None:
    """Write the rows as a folder for `load_from_disk`."""
    from datasets import Dataset

    Dataset(rows.table()).save_to_disk(str(path))


def write_mds(rows: Rows, path: Path) -> None:
    """Write the rows as MDS shards."""
    from streaming import MDSWriter

    columns = {"text": "str", "logits": f"ndarray:float32:{NUM_CLASSES}", "label": "int32"}
    with MDSWriter(out=str(path), columns=columns) as writer:
        for text, logits, label in zip(rows.texts, rows.logits, rows.labels):
            writer.write({"text": text, "logits": logits, "label": label})


Formats = dict[str, tuple[Callable[[Rows, Path], object], dict[str, Callable[[Path], Contender]]]]


def formats(shard_rows: int) -> Formats:
    """By format, how it is written and the ways of reading it, by name."""
    return {
        "ours": (
            partial(write_store, shard_rows=shard_rows),
            {
                "ours (open)": partial(OurStore, verify="open"),
                "ours (read)": partial(OurStore, verify="read"),
            },
        ),
        "parquet": (
            write_parquet,
            {"parquet (row groups)": ParquetGroups, "parquet (dataset.take)": ParquetTake},
        ),
        "datasets": (
            write_datasets,
            {
                "datasets (numpy)": partial(Datasets, form="numpy"),
                "datasets (arrow)": partial(Datasets, form="arrow"),
            },
        ),
        "mds": (
            write_mds,
            {
                "mds (LocalDataset)": partial(Mds, streamed=False),
                "mds (StreamingDataset)": partial(Mds, streamed=True),
            },
        ),
    }
