"""What `monoxkit store` shows of a store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from monox_kit.data import LabelSet
from monox_kit.store import FolderWriter, LogitStore
from monoxkit_cli.app import main
from tests.store_samples import manifest, shard_arguments, write_shard, write_store

PARTS = {"a": range(2), "b": range(2, 3)}


def test_info_counts_gold_labels_and_recomputed_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_store(tmp_path / "s"))
    assert main(["store", "info", folder]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    shown = {line[0]: line[-1].strip() for line in lines}
    assert shown["rows with a gold label"] == "7"
    assert shown["rows recomputed by the guard"] == "3"
    assert main(["store", "info", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_labelled"], found["num_recomputed"]) == (7, 3)


def shown_lines(out: str) -> dict[str, str]:
    """The plain tables' lines: first column to last."""
    lines = [line.split("  ") for line in out.splitlines()]
    return {line[0]: line[-1].strip() for line in lines}


def write_part(folder: Path, shards: range) -> Path:
    with FolderWriter(folder, manifest(), shards) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
    return folder


def test_stats_show_labels_spread_and_duplicates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_store(tmp_path / "s"))
    assert main(["store", "stats", folder]) == 0
    shown = shown_lines(capsys.readouterr().out)
    assert shown["state"] == "complete"
    assert shown["rows"] == "11 of 11"
    assert shown["of these with the gold label predicted"] == "42.86%"
    # Words repeat every 6 rows and their repetitions every 3: rows 6 to 10 repeat 0 to 4, and the
    # empty text stands in row 5 alone.
    assert shown["duplicates of an earlier row"] == "5"
    assert shown["rows recomputed by the guard"] == "3"
    assert shown["sound"] == "3"
    assert shown["confidence"] == "0.4192"
    assert main(["store", "stats", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"][2] == {"label": "sound", "predicted": 11, "gold": 3, "agreeing": 3}
    assert found["num_duplicates"] == 5


def test_stats_of_an_unfinished_store_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(tmp_path / "s", range(1))
    assert main(["store", "stats", str(tmp_path / "s")]) == 0
    shown = shown_lines(capsys.readouterr().out)
    assert shown["state"].startswith("incomplete")
    assert shown["rows"] == "4 of 11"


def test_stats_before_the_first_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_part(tmp_path / "s", range(0))
    assert main(["store", "stats", str(tmp_path / "s")]) == 0
    assert shown_lines(capsys.readouterr().out)["rows"] == "0 of 11"


def test_many_labels_are_cut_in_the_table_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = LabelSet(tuple(f"class {index:02}" for index in range(30)))
    folder = str(write_store(tmp_path / "s", manifest(labels=labels)))
    assert main(["store", "stats", folder]) == 0
    out = capsys.readouterr().out
    assert out.count("class ") == 20
    assert "10 more, see --json" in out
    assert main(["store", "stats", folder, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["labels"]) == 30


def test_merge_takes_parts_and_names_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [str(write_part(tmp_path / name, shards)) for name, shards in PARTS.items()]
    command = ["store", "merge", *parts, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    shown = shown_lines(capsys.readouterr().out)
    assert shown["made from"] == "2 parts of one store"
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    digest = LogitStore.open(write_store(tmp_path / "whole")).digest
    assert (found["store_digest"], found["num_resumed_rows"]) == (digest, 11)
    assert shown["digest"] == digest


def test_merge_exits_with_the_stores_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, out = str(write_part(tmp_path / "a", range(2))), str(tmp_path / "out")
    assert main(["store", "merge", part, part, "--out", out]) == 4
    assert "--shard-range 2:3" in capsys.readouterr().err
    assert main(["store", "merge", part, "--out", out]) == 2
    assert "expected at least 2 parts, found 1" in capsys.readouterr().err
    assert main(["store", "merge", part, part, "--out", out, "--shard-rows", "9"]) == 2
    assert "--shard-rows 9: expected 4" in capsys.readouterr().err


def test_export_writes_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = str(write_store(tmp_path / "s")), tmp_path / "s.parquet"
    assert main(["store", "export", folder, "--out", str(out)]) == 0
    assert shown_lines(capsys.readouterr().out)["rows"] == "11"
    assert pq.read_table(out).num_rows == 11
    assert main(["store", "export", folder, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["num_bytes"]) == ("parquet", out.stat().st_size)
    assert main(["store", "export", folder, "--out", str(out), "--format", "csv"]) == 2
    assert "found 'csv'" in capsys.readouterr().err
