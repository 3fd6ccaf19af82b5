"""Texts to token ids, with the model's own fast tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Int64s
from monox_kit.errors import ModelError
from monox_kit.models.files import as_model_errors

# A text is cut at this many characters per token of `max_length` before it is tokenized: a
# megabyte costs what its first page costs. English needs 4 to 5, and long words at most 16.
CHARS_PER_TOKEN = 32
# What the cut may change lies near it: the last word, and a choice of pieces before it. A text
# whose last kept token ends in the last part before the cut is tokenized whole.
_CUT_MARGIN = 0.25


@dataclass(frozen=True)
class Encoded:
    """N tokenized texts, not padded, one after the other.

    Attributes:
        input_ids: [sum of lengths] int64 token ids, special tokens included.
        token_type_ids: the same for segment ids; None where the model has no segment embedding.
        lengths: [N] int64, the number of tokens of each text.
    """

    input_ids: Int64s
    token_type_ids: Int64s | None
    lengths: Int64s

    @cached_property
    def starts(self) -> Int64s:
        """[N] int64, where each text begins in `input_ids`."""
        return np.cumsum(self.lengths) - self.lengths


# Texts given to the tokenizer at once: what it returns takes some hundred bytes a token until it
# is an array. Enough for all cores.
_CALL_TEXTS = 1024


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

        step = "Put the tokenizer's files into the model's folder."
        with as_model_errors(folder, "a tokenizer", step):
            tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        if not tokenizer.is_fast or tokenizer.pad_token_id is None:
            raise ModelError(
                f"{folder}: expected a fast tokenizer with a padding token, found "
                f"{type(tokenizer).__name__}. Save it with tokenizer.json and a pad_token."
            )
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = int(tokenizer.pad_token_id)
        self.has_token_types = "token_type_ids" in tokenizer.model_input_names
        # The first call puts the cut into the tokenizer, which no call in another thread may be
        # using then; later ones find it there.
        self._call([""], None)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Token ids of N texts, or of N text pairs, on all cores.

        Long single texts are cut in characters first, where that cannot change a kept token.
        """
        short = list(texts) if pairs is not None else self._cut_long(texts)
        ids, types, lengths = [_flat([])], [_flat([])], [_flat([])]
        for start in range(0, len(short), _CALL_TEXTS):
            part = slice(start, start + _CALL_TEXTS)
            out = self._call(short[part], None if pairs is None else pairs[part])
            rows = out["input_ids"]
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            ids.append(_flat(rows))
            if self.has_token_types:
                types.append(_flat(out["token_type_ids"]))
        return Encoded(
            np.concatenate(ids),
            np.concatenate(types) if self.has_token_types else None,
            np.concatenate(lengths),
        )

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder under construction."""
        self._tokenizer.save_pretrained(str(folder))

    def _cut_long(self, texts: Sequence[str]) -> list[str]:
        """The texts, long ones cut well behind the last character that `max_length` keeps."""
        cut = self.max_length * CHARS_PER_TOKEN
        long = [index for index, text in enumerate(texts) if len(text) > cut]
        short = list(texts)
        if not long:
            return short
        out = self._call([texts[index][:cut] for index in long], None, offsets=True)
        for index, offsets in zip(long, out["offset_mapping"]):
            end = max(stop for _, stop in offsets)
            if len(offsets) == self.max_length and end <= cut * (1 - _CUT_MARGIN):
                short[index] = texts[index][:cut]
        return short

    def _call(
        self, texts: list[str], pairs: Sequence[str] | None, *, offsets: bool = False
    ) -> dict[str, Any]:
        return self._tokenizer(  # type: ignore[no-any-return]
            texts,
            list(pairs) if pairs is not None else None,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=self.has_token_types,
            return_offsets_mapping=offsets,
        )


def _flat(rows: Sequence[Sequence[int]]) -> Int64s:
    """The numbers of all rows, one row after the other."""
    return np.fromiter(chain.from_iterable(rows), np.int64, sum(map(len, rows)))
