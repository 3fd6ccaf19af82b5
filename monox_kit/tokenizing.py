"""Texts to token ids, with the model's own fast tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Int64s
from monox_kit.errors import ModelError, first_line


@dataclass(frozen=True, slots=True)
class Encoded:
    """N tokenized texts, not yet padded.

    Attributes:
        input_ids: N lists of token ids, special tokens included, each at most `max_length` long.
        token_type_ids: the same for segment ids; None where the model has no segment embedding.
        lengths: [N] int64, the number of tokens of each.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    lengths: Int64s


class Tokenizer:
    """A model folder's tokenizer with a fixed cut.

    Attributes:
        max_length: the cut in tokens, special tokens included; of a pair the longer text loses
            tokens first.
        pad_id: the id that fills a batch.
        has_token_types: whether the model takes segment ids.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder}: expected a tokenizer, found: {first_line(error)}. "
                "Put the tokenizer's files into the model's folder."
            ) from error
        if not tokenizer.is_fast or tokenizer.pad_token_id is None:
            raise ModelError(
                f"{folder}: expected a fast tokenizer with a padding token, found "
                f"{type(tokenizer).__name__}. Save it with tokenizer.json and a pad_token."
            )
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = int(tokenizer.pad_token_id)
        self.has_token_types = "token_type_ids" in tokenizer.model_input_names

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Token ids of N texts, or of N text pairs."""
        if not texts:
            return Encoded([], [] if self.has_token_types else None, np.zeros(0, np.int64))
        out = self._tokenizer(
            list(texts),
            list(pairs) if pairs is not None else None,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=self.has_token_types,
        )
        ids: list[list[int]] = out["input_ids"]
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        return Encoded(ids, out["token_type_ids"] if self.has_token_types else None, lengths)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder under construction."""
        self._tokenizer.save_pretrained(str(folder))
