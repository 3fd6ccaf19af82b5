"""What the calls on stores are given: settings of `monoxkit store`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from monox_kit.config import Config
from monox_kit.store.export import PARQUET


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
