"""What is trimmed for which texts, and what a trim reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from annotated_types import Ge, Gt, Le

from monox_kit.config import Config
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.results import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class TrimConfig(Config):
    """What is trimmed for which texts.

    Attributes:
        model: PyTorch model folder with or without a classification head, packaged:NAME or hub
            name.
        corpus: files of texts in every language that the model is to read.
        coverage: smallest share of each language's tokens that must survive; 1 keeps every token
            that occurs. The most frequent ones are kept.
        max_length: truncate texts at this many tokens, as the trimmed model's default [default: the
            model's own]. Tokens are counted in whole texts.
    """

    model: str
    corpus: CorpusConfig
    coverage: Annotated[float, Gt(0), Le(1)] = 1.0
    max_length: Annotated[int, Ge(4)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageTrim:
    """What trimming means for one language's texts; special tokens around texts do not count.

    Attributes:
        num_rows: its rows.
        num_tokens: distinct tokens in them.
        num_kept_tokens: those of them that the trimmed model has.
        coverage: share of the tokens in its texts, counted as often as they occur, that survive.
        num_same_rows: rows whose tokens all survive: the trimmed model reads them as the whole one.
        unknown_before: share of tokens that are the unknown one.
        unknown_after: the same under the trimmed tokenizer.
        tokens_per_text_before: mean number of tokens.
        tokens_per_text_after: the same under the trimmed tokenizer.
    """

    num_rows: int
    num_tokens: int
    num_kept_tokens: int
    coverage: float
    num_same_rows: int
    unknown_before: float
    unknown_after: float
    tokens_per_text_before: float
    tokens_per_text_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrimSummary(Result):
    """What a trim did.

    Attributes:
        path: the trimmed model's folder.
        num_tokens_before: V, the vocabulary of the whole model's tokenizer.
        num_tokens: of the trimmed one.
        num_rows_compared: rows whose outputs were computed with both models and are equal in every
            bit.
        bytes: before and after, of each part: `embedding` and `layers` in float32, and `tokenizer`.
        languages: by language tag; `und` where rows do not say theirs.
        reused: whether the folder held the model of the same run.
    """

    path: str
    num_tokens_before: int
    num_tokens: int
    num_rows_compared: int
    bytes: Mapping[str, tuple[int, int]]
    languages: Mapping[str, LanguageTrim]
    reused: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The summary that `to_json` gave."""
        languages = {tag: LanguageTrim(**one) for tag, one in values["languages"].items()}
        parts = {part: (before, after) for part, (before, after) in values["bytes"].items()}
        return cls(**{**values, "languages": languages, "bytes": parts})
