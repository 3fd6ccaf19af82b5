"""The user's own corpus folder, checked before the demo's first stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.data import SINGLE_LABEL, LabelSet
from monox_kit.errors import CorpusError

REQUIRED_FILES = ("labelled.jsonl", "unlabelled.jsonl", "dev.jsonl", "labels.json")
TEST_FILES = "test.*.jsonl"


def require_files(folder: Path) -> None:
    """Check that every file is there.

    Raises:
        CorpusError: some are not; the message names them.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any(folder.glob(TEST_FILES)):
        missing.append("test.LANG.jsonl")
    if missing:
        found = ", ".join(sorted(path.name for path in folder.glob("*.json*")))
        raise CorpusError(
            f"`data` {folder}: expected {', '.join(REQUIRED_FILES)} and, for each language, "
            f"test.LANG.jsonl; missing: {', '.join(missing)}; found: {found or 'none of them'}. "
            "Write the missing files; docs/data-debian.md describes each."
        )


def count_rows(folder: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """Rows per file of the user's own corpus; every file is checked on the way.

    Raises:
        CorpusError: a row cannot be used; or it may have any number of labels, which the demo's
            report has no tables for.
    """
    labels = LabelSet.read(folder / "labels.json")
    if labels.is_multi:
        raise CorpusError(
            f"{folder / 'labels.json'}: expected problem_type {SINGLE_LABEL} for the demo, found "
            f"{labels.problem_type}. Run its stages one by one: train-teacher, label, "
            "train-student, evaluate."
        )
    rows = {}
    for name in sorted(digests):
        config = CorpusConfig(paths=(str(folder / name),))
        if name == "unlabelled.jsonl":
            rows[name] = Corpus(config).scan(labels=labels).num_rows
        elif name.endswith(".jsonl"):
            rows[name] = len(read_labelled(config, labels))
    return {"folder": str(folder), "rows": rows}
