"""What stands behind an evaluation's numbers: results by class, confusions and wrong rows.

DIR/
    by_class.csv      language,label,rows,predicted,right,precision,recall,f1
    confusion.csv     language,gold,predicted,rows: the pairs that occur (of one label a row alone)
    wrong.jsonl       every row that is decided wrong, the surest first
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Document, Label, LabelSet, Logits
from monox_kit.durable import make_folder, write_file
from monox_kit.foreign import csv_row
from monox_kit.problem import Problem, f1, problem_of

BY_CLASS_FILE = "by_class.csv"
CONFUSION_FILE = "confusion.csv"
WRONG_FILE = "wrong.jsonl"

Row = Sequence[Any]


def write_details(
    folder: Path,
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
) -> None:
    """Write the files into a folder, in the place of those of an earlier evaluation.

    Args:
        folder: made where absent.
        labels: of the model.
        documents: gold-labelled, by language.
        logits: [N, C] of each language.

    Raises:
        ConfigError: something else than a folder stands there.
        StorageError: the disk refused.
    """
    problem = problem_of(labels)
    make_folder(folder)
    by_class, wrong = list[Row](), list[str]()
    confusion: list[Row] | None = None if labels.is_multi else []
    for language, rows in documents.items():
        decided = problem.decide(logits[language])
        by_class += _by_class(problem, language, rows, decided)
        if confusion is not None:
            confusion += _confusion(problem, language, rows, decided)
        wrong += _wrong(problem, language, rows, logits[language])
    head = ("language", "label", "rows", "predicted", "right", "precision", "recall", "f1")
    write_file(folder / BY_CLASS_FILE, _table(head, by_class))
    if confusion is not None:
        pairs = ("language", "gold", "predicted", "rows")
        write_file(folder / CONFUSION_FILE, _table(pairs, confusion))
    write_file(folder / WRONG_FILE, "".join(wrong).encode())


def _by_class(
    problem: Problem, language: str, rows: Sequence[Document], decided: Any
) -> Iterator[Row]:
    gold = problem.encode(rows, "test")
    expected, found = problem.count(gold), problem.count(decided)
    right = (problem.indicators(gold) & problem.indicators(decided)).sum(axis=0)
    for index, name in enumerate(problem.labels.names):
        yield (
            language,
            name,
            int(expected[index]),
            int(found[index]),
            int(right[index]),
            _share(right[index], found[index]),
            _share(right[index], expected[index]),
            f"{float(f1(right[index], expected[index] + found[index])):.4f}",
        )


def _share(part: int, whole: int) -> str:
    """A fraction; nothing where there is no row to take it of."""
    return f"{part / whole:.4f}" if whole else ""


def _confusion(
    problem: Problem, language: str, rows: Sequence[Document], decided: Any
) -> Iterator[Row]:
    pairs = Counter(zip((row.label for row in rows), problem.decode(decided)))
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return ((language, gold, found, count) for (gold, found), count in ordered)


def _wrong(
    problem: Problem, language: str, rows: Sequence[Document], logits: Logits
) -> Iterator[str]:
    decided = problem.decide(logits)
    is_wrong = ~problem.are_equal(problem.encode(rows, "test"), decided)
    names, sure = problem.decode(decided), problem.confidence(logits)
    probabilities = problem.probabilities(logits)
    at = np.flatnonzero(is_wrong)
    for index in at[np.argsort(-sure[at], kind="stable")]:
        document = rows[index]
        value = {
            "language": language,
            "id": document.id,
            "row": document.row,
            "gold": document.label,
            "predicted": names[index],
            "confidence": round(float(sure[index]), 6),
            "gold_probability": _of_gold(problem, document.label, probabilities[index]),
            "text": document.text,
        }
        if document.text_pair is not None:
            value["text_pair"] = document.text_pair
        yield json.dumps(value, ensure_ascii=False) + "\n"


def _of_gold(problem: Problem, label: Label | None, probabilities: Any) -> Any:
    """The probability of the gold label, or of each of several."""
    if label is None or isinstance(label, str):
        return round(float(probabilities[problem.labels.names.index(str(label))]), 6)
    return {
        name: round(float(probabilities[problem.labels.names.index(name)]), 6) for name in label
    }


def _table(head: Row, rows: Sequence[Row]) -> bytes:
    return "".join(map(csv_row, [head, *rows])).encode()
