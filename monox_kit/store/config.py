"""What the calls on stores are given: settings of `monoxkit store`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge

from monox_kit.config import Config
from monox_kit.errors import ConfigError
from monox_kit.store.export import PARQUET

# How sure a row is, and which end of that comes first.
Measure: TypeAlias = Literal["confidence", "margin", "entropy"]
Order: TypeAlias = Literal["highest", "lowest"]
SelectionForm: TypeAlias = Literal["store", "jsonl", "csv", "label-studio", "argilla"]
STORE_FORM = "store"
_SUFFIXES = {"jsonl": ".jsonl", "csv": ".csv", "label-studio": ".json", "argilla": ".json"}


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig(Config):
    """Which store is told about.

    Attributes:
        folder: folder or URL of the store.
    """

    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig(Config):
    """Which store is read and checked.

    Attributes:
        folder: folder or URL of the store.
        staging: folder for shards on their way from a URL [default: in the cache].
    """

    folder: str
    staging: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StatsConfig(Config):
    """Which store is counted.

    Attributes:
        folder: folder of the store.
    """

    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeConfig(Config):
    """Which stores are put together.

    Attributes:
        parts: folders of the stores to put together.
        shard_rows: rows of each shard [default: as in the first part].
    """

    parts: tuple[Path, ...]
    shard_rows: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig(Config):
    """Which store is copied.

    Attributes:
        url: URL of the store.
    """

    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreExportConfig(Config):
    """Which store is written for other programs.

    Attributes:
        folder: folder of the store.
        format: format of the file: parquet, which datasets.Dataset.from_parquet reads too.
    """

    folder: Path
    format: str = PARQUET


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig(Config):
    """Which rows of a store are chosen, and as what they are written.

    Attributes:
        folder: folder of the store.
        form: what is written: a store to learn from (store), or a file for annotators: jsonl, csv,
            tasks of Label Studio (label-studio) or records of Argilla (argilla).
        by: what rows are compared by, at T = 1: confidence, margin (by how much the decided class
            leads, in logits) or entropy.
        per_language: most rows of each language, shared evenly by its classes. What a class is
            short of the others have.
        per_class: most rows of each class of each language.
        order: which rows come first: highest or lowest [default: the surest for a store, the least
            sure for annotators].
        diverse: choose rows whose texts differ, among the first ones.
    """

    folder: Path
    form: SelectionForm = "store"
    by: Measure = "confidence"
    per_language: Annotated[int, Ge(1)] | None = None
    per_class: Annotated[int, Ge(1)] | None = None
    order: Order | None = None
    diverse: bool = False

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        if self.per_language is None and self.per_class is None:
            raise ConfigError(
                "`per_language`, `per_class`: neither is given, and all rows would be chosen. Give "
                "`per_class` 100 for the first hundred of each class of each language."
            )

    @property
    def output_suffix(self) -> str:
        """The end of what is written in a recipe."""
        return _SUFFIXES.get(self.form, "")
