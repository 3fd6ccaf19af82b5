"""Datasets of a hub by name, streamed by the `datasets` package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monox_kit.corpora.class_numbers import named
from monox_kit.corpora.paths import HUB_PREFIX, one_line
from monox_kit.corpora.rows import Columns, Meter, ReadRow, package
from monox_kit.errors import CorpusError, CorpusUnreadable, MonoxError

DEFAULT_SPLIT = "train"


def read_hub(name: str, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    """The rows of `hub:NAME[:CONFIG][@SPLIT]`, counted from 0; the split is `train` by default.

    Where the label column has class names, they are the labels, in lists too; -1 means no label.

    Raises:
        CorpusUnreadable: `datasets` is not installed, or the dataset cannot be read.
        CorpusError: a needed column is missing.
    """
    datasets = package("datasets", name, "hub datasets", '"monoxkit[hub]"')
    key, _, split = name.removeprefix(HUB_PREFIX).partition("@")
    dataset_name, _, config = key.partition(":")
    row = 0
    try:
        dataset = datasets.load_dataset(
            dataset_name, config or None, split=split or DEFAULT_SPLIT, streaming=True
        )
        class_names = _class_names(dataset, columns.label)
        answer_names = _class_names(dataset, columns.answer)
        for record in dataset:
            if row == 0:
                columns.check(record.keys(), name, meter)
            text, pair, label, key, lang, answer = map(record.get, columns.fields)
            try:
                where = f"{name}, row {row}"
                label, answer = named(label, class_names, where), named(answer, answer_names, where)
                yield row, text, pair, label, key, lang, answer
            except CorpusError as error:
                yield error
            row += 1
    except MonoxError:
        raise
    # Network, hub and builder errors have no common base class.
    except Exception as error:
        raise CorpusUnreadable(
            f"{name}, row {row}: expected a hub dataset hub:NAME[:CONFIG][@SPLIT], found: "
            f"{type(error).__name__}: {one_line(error)}. Check the name, configuration and split."
        ) from error


def _class_names(dataset: Any, column: str | None) -> list[str]:
    """The class names of a column of labels, or of its lists; nothing where it has none."""
    features = getattr(dataset, "features", None) or {}
    feature = features.get(column)
    return list(getattr(getattr(feature, "feature", feature), "names", None) or [])
