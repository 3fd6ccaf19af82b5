"""Sentence pairs of XNLI, MultiNLI and XNLI-MT, as their files are released.

Source: XNLI 1.0 (Conneau et al. 2018), MultiNLI 1.0 (Williams et al. 2018), and the machine
translations of the latter that come with XNLI. Tabs part the columns, and nothing is quoted: a
quotation mark is a character like any other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monox_kit.corpora.hub import read_hub
from monox_kit.corpora.paths import SourceFile
from monox_kit.corpora.rows import Columns, Meter, place, shown
from monox_kit.errors import CorpusError
from monox_kit.tasks.fields import BLANK, text_of
from monox_kit.tasks.members import lines_of

LABELS = ("entailment", "neutral", "contradiction")
NO_AGREEMENT = "no agreement on the label"
# The machine translations write one of the labels otherwise.
_NAMES = {**{name: name for name in LABELS}, "contradictory": "contradiction"}
# What annotators did not agree on.
_WITHOUT_LABEL = frozenset({"-", ""})
# Columns by what they hold, under the names that the releases give them.
_PREMISE = ("sentence1", "premise")
_HYPOTHESIS = ("sentence2", "hypo")
_LABEL = ("gold_label", "label")
# Columns at the end of a line that MultiNLI's training rows may lack: one annotator judged each.
_OPTIONAL = frozenset({"label2", "label3", "label4", "label5"})
_HUB_COLUMNS = Columns(text="premise", pair="hypothesis", label="label", id="id", lang="language")


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair of a release.

    Attributes:
        id: `pairID`, or the row's number where the release has none.
        premise: the first sentence.
        hypothesis: the second, which follows from the first or does not.
        label: one of `LABELS`.
        language: as the release writes it; None where the file is of one language.
    """

    id: str
    premise: str
    hypothesis: str
    label: str
    language: str | None


def read_pairs(
    file: SourceFile | str, languages: frozenset[str] | None, left_out: Counter[str]
) -> Iterator[Pair]:
    """The pairs of a file, or of a dataset of the hub, one in memory at a time.

    Args:
        file: `.jsonl`, or tab-separated with a header; or `hub:NAME:LANGUAGE@SPLIT`.
        languages: the languages that are read; None for all. Rows of others are not looked at.
        left_out: counts the pairs that have no label or no text.

    Raises:
        CorpusError: the file or a row is damaged; the message names file and line.
    """
    if isinstance(file, str):
        rows = _hub_rows(file)
    else:
        rows = _objects(file) if file.name.endswith(".jsonl") else _lines(file)
    for position, (where, row) in enumerate(rows):
        language = row.get("language")
        if languages is not None and language not in languages:
            continue
        label = _first(row, _LABEL, where)
        if isinstance(label, str) and label in _WITHOUT_LABEL:
            left_out[NO_AGREEMENT] += 1
            continue
        if not isinstance(label, str) or label not in _NAMES:
            raise CorpusError(
                f"{where}: expected one of {', '.join(_NAMES)} or - as the label, found "
                f"{shown(label)}. The file is damaged: fetch it again."
            )
        premise = text_of(_first(row, _PREMISE, where), where, "sentence1")
        hypothesis = text_of(_first(row, _HYPOTHESIS, where), where, "sentence2")
        if premise is None or hypothesis is None:
            left_out[BLANK] += 1
            continue
        key = str(row.get("pairID") or position)
        yield Pair(key, premise, hypothesis, _NAMES[label], language)


def _first(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The value of a row under the first of several names that it has."""
    for name in names:
        if name in row:
            return row[name]
    raise CorpusError(
        f"{where}: expected {' or '.join(names)}, found {', '.join(sorted(row)) or 'nothing'}. "
        "Give the file as it was released."
    )


def _objects(file: SourceFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of JSON lines with their places; blank lines are none."""
    for number, line in lines_of(file):
        if not line.strip():
            continue
        where = place(file.name, "line", number)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                f"{where}: expected a JSON object, found: {error}. The file is damaged: fetch it "
                "again."
            ) from error
        if not isinstance(value, dict):
            raise CorpusError(
                f"{where}: expected a JSON object, found {type(value).__name__}. Give the file as "
                "it was released."
            )
        yield where, value


def _lines(file: SourceFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file of tab-separated columns with their places; blank lines are none."""
    header: list[str] | None = None
    fits: Callable[[int], bool] = bool
    for number, line in lines_of(file):
        if not line.strip():
            continue
        fields = line.split("\t")
        if header is None:
            header, fits = fields, _widths(fields)
            continue
        if not fits(len(fields)):
            raise CorpusError(
                f"{place(file.name, 'line', number)}: expected {len(header)} columns as in the "
                f"header, found {len(fields)}. The file is damaged: fetch it again."
            )
        yield place(file.name, "line", number), dict(zip(header, fields))


def _widths(header: Sequence[str]) -> Callable[[int], bool]:
    """Whether a row may have so many columns: all, or those before the optional ones."""
    least = len(header)
    while least and header[least - 1] in _OPTIONAL:
        least -= 1
    return lambda found: least <= found <= len(header)


def _hub_rows(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in read_hub(name, _HUB_COLUMNS, Meter()):
        if isinstance(row, CorpusError):
            raise row
        position, premise, hypothesis, label, *_ = row
        where = place(name, "row", position)
        yield (
            where,
            {"premise": premise, "hypo": hypothesis, "label": "" if label is None else label},
        )
