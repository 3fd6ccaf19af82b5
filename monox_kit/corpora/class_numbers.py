"""Labels as the library `datasets` stores them: whole numbers, and names in a description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from monox_kit.errors import CorpusError

# The value of a row without a label, where classes have names.
_NO_LABEL = -1
_MOST_NESTED = 8


def names_in_schema(
    metadata: Mapping[bytes, bytes] | None, column: str | None, where: str
) -> list[str]:
    """The class names of a Parquet file's column; none where it has none.

    Args:
        metadata: of the schema; `datasets` describes its columns under `huggingface`.
        column: of the labels, or of lists of them; None where they are not read.
        where: for messages.

    Raises:
        CorpusError: the description is damaged: labels would lose their names.
    """
    description = (metadata or {}).get(b"huggingface")
    if description is None:
        return []
    try:
        feature = json.loads(description)["info"]["features"].get(column)
        for _ in range(_MOST_NESTED):
            if isinstance(feature, list) and feature:  # how older versions write a list
                feature = feature[0]
            elif isinstance(feature, dict) and "names" not in feature and "feature" in feature:
                feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, dict) else None
        if names is None:
            return []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names of column {column!r} that are no texts")
        return names
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorpusError(
            f"{where}: the description of its columns by the library datasets is damaged: "
            f"{type(error).__name__}: {str(error)[:80]}. Write the file again with it, or "
            "without that description."
        ) from None


def named(value: Any, names: Sequence[str], where: str) -> Any:
    """A label by its class's name, in a list too; -1 stands for no label.

    Args:
        value: as the file holds it; what is no whole number stays as it is.
        names: of the classes; none leaves numbers as they are.
        where: of the row, for messages.

    Raises:
        CorpusError: there is no class of that number.
    """
    if not names:
        return value
    if isinstance(value, float) and value.is_integer():  # a column with gaps, as pandas holds it
        value = int(value)
    if isinstance(value, list):
        parts = [named(each, names, where) for each in value]
        return [each for each in parts if each is not None]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value == _NO_LABEL:
        return None
    if not 0 <= value < len(names):
        raise CorpusError.of_row(
            where,
            f"label {value} is the number of none of the {len(names)} classes",
            "Correct the row, or the names of the classes.",
            kind="a number that no class has",
            found=str(value),
        )
    return names[value]
