"""Random and sequential reads of the same rows from a logit store and from other formats.

A row is a text, C logits and a label. Each contender holds the same rows and gives them in the same
form: a list of str, float32 logits [n, C] in numpy, labels in numpy. All run in one process, in
alternating rounds, over the same seeded rows, with everything in the page cache; a contender's
values are compared with what was written before it is timed. Four rates, in rows per second:

    single      one row at a time, in random order
    batch       256 random rows at a time
    sequential  all rows in order, 1,024 at a time
    from_open   the same, with opening: here `read` pays for its SHA-256 of every file

Parquet is written in row groups of 1,024 rows, which suits random reads better than the default of
a million. Other packages than the store's own need not be installed: what is absent is named.

    python benchmarks/store_io.py --rows 200000 --rounds 7
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

import numpy as np

from monox_kit.data import Document, LabelSet
from monox_kit.hardware import read_hardware
from monox_kit.store import LogitStore, StoreManifest, StoreWriter

RESULT = Path(__file__).parent / "results" / "store_io.json"
PACKAGES = ("numpy", "pyarrow", "datasets", "mosaicml-streaming", "torch")
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


def _write_ours(rows: Rows, path: Path, shard_rows: int) -> None:
    names = tuple(f"class {index}" for index in range(NUM_CLASSES))
    manifest = StoreManifest(
        labels=LabelSet(names),
        num_rows=len(rows),
        shard_rows=shard_rows,
        dtype="float32",
        has_pairs=False,
        fingerprint={"made": "up"},
    )
    with StoreWriter(path, manifest) as writer:
        for shard in writer.missing:
            here = slice(shard.start, shard.stop)
            texts = rows.texts[here]
            writer.write_shard(
                shard,
                logits=rows.logits[here],
                labels=rows.labels[here],
                documents=[
                    Document(row=row, id=str(row), text=text)
                    for row, text in enumerate(texts, shard.start)
                ],
            )
        writer.complete()


def _write_parquet(rows: Rows, path: Path) -> None:
    import pyarrow.parquet

    path.mkdir()
    pyarrow.parquet.write_table(rows.table(), path / "rows.parquet", row_group_size=ROW_GROUP_ROWS)


def _write_datasets(rows: Rows, path: Path) -> None:
    from datasets import Dataset

    Dataset(rows.table()).save_to_disk(str(path))


def _write_mds(rows: Rows, path: Path) -> None:
    from streaming import MDSWriter

    columns = {"text": "str", "logits": f"ndarray:float32:{NUM_CLASSES}", "label": "int32"}
    with MDSWriter(out=str(path), columns=columns) as writer:
        for text, logits, label in zip(rows.texts, rows.logits, rows.labels):
            writer.write({"text": text, "logits": logits, "label": label})


def _written(rows: Rows, scratch: Path, shard_rows: int) -> tuple[dict[str, Any], dict[str, str]]:
    """How to open each contender, and why others are absent."""
    formats: list[tuple[str, Callable[[Path], None], dict[str, Callable[[Path], Contender]]]] = [
        (
            "ours",
            lambda path: _write_ours(rows, path, shard_rows),
            {
                "ours (open)": lambda path: OurStore(path, "open"),
                "ours (read)": lambda path: OurStore(path, "read"),
            },
        ),
        (
            "parquet",
            lambda path: _write_parquet(rows, path),
            {"parquet (row groups)": ParquetGroups, "parquet (dataset.take)": ParquetTake},
        ),
        (
            "datasets",
            lambda path: _write_datasets(rows, path),
            {
                "datasets (numpy)": lambda path: Datasets(path, "numpy"),
                "datasets (arrow)": lambda path: Datasets(path, "arrow"),
            },
        ),
        (
            "mds",
            lambda path: _write_mds(rows, path),
            {
                "mds (LocalDataset)": lambda path: Mds(path, streamed=False),
                "mds (StreamingDataset)": lambda path: Mds(path, streamed=True),
            },
        ),
    ]
    opened, absent = {}, {}
    for name, write, readers in formats:
        path = scratch / name
        try:
            write(path)
        except ImportError as error:
            absent[name] = str(error)
            continue
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for reader, open_it in readers.items():
            opened[reader] = (path, open_it, size)
    return opened, absent


def _require_equal(name: str, found: Values, expected: Values) -> None:
    texts, logits, labels = found
    right = (
        texts == expected[0]
        and logits.dtype == np.float32
        and np.array_equal(logits, expected[1])
        and np.array_equal(labels, expected[2])
    )
    if not right:
        raise SystemExit(f"{name}: expected the rows that were written, found others.")


def _check(name: str, contender: Contender, rows: Rows, asked: Any) -> None:
    """End where a contender gives other values than were written."""
    start = 0
    for block in contender.all():
        stop = start + len(block[0])
        _require_equal(name, block, rows.at(np.arange(start, stop)))
        start = stop
    if start != len(rows):
        raise SystemExit(f"{name}: expected {len(rows)} rows in a pass, found {start}.")
    _require_equal(name, contender.many(asked[:BATCH_ROWS]), rows.at(asked[:BATCH_ROWS]))
    for row in asked[:8].tolist():
        _require_equal(name, contender.one(row), rows.at(np.array([row])))


def _single(contender: Contender, asked: Any, limit_s: float) -> float:
    done, started, wanted = 0, time.perf_counter(), asked.tolist()
    while done < len(wanted) and time.perf_counter() - started < limit_s:
        for row in wanted[done : done + 16]:
            contender.one(row)
            done += 1
    return done / (time.perf_counter() - started)


def _batches(contender: Contender, asked: Any, limit_s: float) -> float:
    done, started = 0, time.perf_counter()
    while done < len(asked) and time.perf_counter() - started < limit_s:
        done += len(contender.many(asked[done : done + BATCH_ROWS])[0])
    return done / (time.perf_counter() - started)


def _pass(contender: Callable[[], Contender]) -> float:
    started = time.perf_counter()
    done = sum(len(block[0]) for block in contender().all())
    return done / (time.perf_counter() - started)


def _measure(opened: dict[str, Any], rows: Rows, rounds: int, limit_s: float) -> dict[str, Any]:
    """By contender and kind of read, the rates of every round."""
    draw = np.random.default_rng(2)
    rates: dict[str, dict[str, list[float]]] = {}
    ready = {name: open_it(path) for name, (path, open_it, _) in opened.items()}
    for name, contender in ready.items():
        _check(name, contender, rows, draw.permutation(len(rows)))
        rates[name] = {"single": [], "batch": [], "sequential": [], "from_open": []}
    names = list(ready)
    for round_ in range(rounds):
        asked = draw.permutation(len(rows))
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            path, open_it, _ = opened[name]
            contender, found = ready[name], rates[name]
            if "StreamingDataset" not in name:  # it is made for passes alone
                found["single"].append(_single(contender, asked[:20_000], limit_s))
                found["batch"].append(_batches(contender, asked, limit_s))
            found["sequential"].append(_pass(lambda made=contender: made))
            found["from_open"].append(_pass(lambda made=open_it, at=path: made(at)))
        print(f"round {round_ + 1} of {rounds}", flush=True)
    return rates


def main() -> None:
    """Write every format, measure, print and write the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--shard-rows", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=1.0, help="for one kind of random read")
    parser.add_argument("--scratch", type=Path, help="where the formats lie meanwhile")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = Rows(arguments.rows, seed=1)
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        opened, absent = _written(rows, scratch, arguments.shard_rows)
        rates = _measure(opened, rows, arguments.rounds, arguments.limit_s)
    finally:
        shutil.rmtree(scratch)
    medians = {
        name: {kind: round(median(values)) for kind, values in kinds.items() if values}
        for name, kinds in rates.items()
    }
    result = {
        "rows": len(rows),
        "classes": NUM_CLASSES,
        "mean_text_bytes": round(sum(len(text.encode()) for text in rows.texts) / len(rows), 1),
        "shard_rows": arguments.shard_rows,
        "row_group_rows": ROW_GROUP_ROWS,
        "batch_rows": BATCH_ROWS,
        "block_rows": BLOCK_ROWS,
        "rounds": arguments.rounds,
        "bytes_on_disk": {name: size for name, (_, _, size) in opened.items()},
        "rows_per_s": medians,
        "ours_to_the_fastest_other": _ratios(medians),
        "absent": absent,
        "rows_per_s_of_each_round": {
            name: {kind: [round(value) for value in values] for kind, values in kinds.items()}
            for name, kinds in rates.items()
        },
        "hardware": read_hardware().to_json(),
        "versions": {"python": platform.python_version(), **_versions()},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in list(result)[:12]}, indent=1))


def _ratios(medians: dict[str, dict[str, int]]) -> dict[str, dict[str, Any]]:
    """By kind of read: the fastest other contender, and how many times its rate ours has."""
    others = {name: kinds for name, kinds in medians.items() if not name.startswith("ours")}
    ratios: dict[str, dict[str, Any]] = {}
    for kind in ("single", "batch", "sequential", "from_open"):
        rates = {name: kinds[kind] for name, kinds in others.items() if kind in kinds}
        if rates:
            fastest = max(rates, key=lambda name: rates[name])
            ours = {
                name: round(medians[name][kind] / rates[fastest], 2)
                for name in ("ours (open)", "ours (read)")
            }
            ratios[kind] = {"fastest_other": fastest, **ours}
    return ratios


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


if __name__ == "__main__":
    main()
