"""Texts to token ids, with the model's own fast tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from monox_kit.data import Int64s
from monox_kit.digest import digest_json
from monox_kit.models.files import as_model_errors
from monox_kit.models.golden import GOLDEN_PAIRS, GOLDEN_TEXTS
from monox_kit.models.long_texts import (
    HEAD,
    Long,
    kept_of_pair,
    lost_part,
    reads_windows,
    require_single_texts,
    window_starts,
)
from monox_kit.models.tokenizer_files import Padding, Side, parse_tokenizer, write_tokenizer
from monox_kit.models.tokenizer_origin import read_tokenizer
from monox_kit.stage import IDS_FIELD, LIBRARY_FIELD

# A text is cut at this many characters per token of `max_length` before it is tokenized: a
# megabyte costs what its first page costs. English needs 4 to 5, and long words at most 16.
CHARS_PER_TOKEN = 32
# What the cut may change lies near it: the last word, and a choice of pieces before it. A text
# whose last kept token ends in the last part before the cut is tokenized whole.
_CUT_MARGIN = 0.25
# What we write beside a model that we trained or exported.
_RECORD_FILE = "monoxkit.json"


@dataclass(frozen=True)
class Encoded:
    """N tokenized texts as R rows of tokens, not padded, one after the other.

    Attributes:
        input_ids: [sum of lengths] int64 token ids, special tokens included.
        token_type_ids: the same for segment ids; None where the model has no segment embedding.
        lengths: [R] int64, the number of tokens of each row.
        truncated: [N] int64, the tokens that each text lost to the cut. Of a text so long that it
            was cut in characters first, those behind are estimated from those before.
        windows: [N] int64, the rows of each text; None where each text is one row.
    """

    input_ids: Int64s
    token_type_ids: Int64s | None
    lengths: Int64s
    truncated: Int64s
    windows: Int64s | None = None

    @cached_property
    def starts(self) -> Int64s:
        """[R] int64, where each row begins in `input_ids`."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def text_lengths(self) -> Int64s:
        """[N] int64, the tokens of each text, over all of its rows."""
        if self.windows is None:
            return self.lengths
        return np.add.reduceat(self.lengths, np.cumsum(self.windows) - self.windows)

    def rows_of(self, texts: Int64s) -> tuple[Int64s, Int64s]:
        """The rows of some texts, text by text: [r] which they are, [r] the place of each's text.

        Args:
            texts: [n] int64 positions of texts.
        """
        if self.windows is None:
            return texts, np.arange(len(texts), dtype=np.int64)
        sizes = self.windows[texts]
        first = (np.cumsum(self.windows) - self.windows)[texts]
        places = np.repeat(np.arange(len(texts), dtype=np.int64), sizes)
        within = np.arange(len(places), dtype=np.int64) - (np.cumsum(sizes) - sizes)[places]
        return first[places] + within, places


class _Row(NamedTuple):
    """A row's ids, its segment ids, and how many tokens its text lost."""

    ids: list[int]
    types: list[int]
    truncated: int


# Texts given to the tokenizer at once: what it returns takes some hundred bytes a token until it
# is an array. Enough for all cores.
_CALL_TEXTS = 1024


class Tokenizer:
    """A model folder's tokenizer with a fixed cut.

    What it runs is never changed after it was opened: any number of threads may call it.

    Attributes:
        max_length: the cut in tokens, special tokens included; of a pair the longer text loses
            tokens first.
        long: what is read of longer texts.
        padding: how a batch is filled.
        has_token_types: whether the model takes segment ids.
        num_ids: V, one more than the largest id that can occur.
    """

    def __init__(self, folder: Path, max_length: int, long: Long = HEAD) -> None:
        """Open the tokenizer.

        Raises:
            ModelError: there is none, it has no padding token, or the folder's files contradict
                each other.
        """
        is_ours = (folder / _RECORD_FILE).is_file()
        self._tokenizer, self._settings = read_tokenizer(folder, is_ours=is_ours)
        self._where = folder
        self.max_length, self.long = max_length, long
        self.padding: Padding = self._settings.padding
        self.has_token_types = self._settings.has_token_types
        self.num_ids = _num_ids(self._tokenizer)

    @property
    def truncation_side(self) -> Side:
        """On which side long texts lose tokens."""
        return self._settings.truncation_side

    @property
    def template_ids(self) -> frozenset[int]:
        """The ids that stand around a text and have no place in it."""
        return self._ids_of(("bos_token", "eos_token", "cls_token", "sep_token", "pad_token"))

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of all tokens that have a name, such as `mask_token`."""
        return self._ids_of(self._settings.special_tokens)

    @property
    def content(self) -> str:
        """The tokenizer as a `tokenizer.json`, with neither truncation nor padding."""
        return self._tokenizer.to_str()

    @cached_property
    def ids_digest(self) -> str:
        """A digest of the ids of golden texts: equal where texts are tokenized alike."""
        whole = self._call(list(GOLDEN_TEXTS), None)
        first, second = zip(*GOLDEN_PAIRS)
        whole += self._call(list(first), list(second))
        return digest_json([[each.ids, each.type_ids] for each in whole])

    def fingerprint(self) -> dict[str, str]:
        """What a run keeps to be continued only under the same tokenization."""
        return {IDS_FIELD: self.ids_digest, LIBRARY_FIELD: f"tokenizers {version('tokenizers')}"}

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Token ids of N texts, or of N text pairs, on all cores.

        Long single texts of which the head is read are cut in characters first, where that cannot
        change a kept token.

        Raises:
            ConfigError: pairs are to be read in windows.
            ModelError: the tokenizer breaks off.
        """
        require_single_texts(self.long, pairs is not None)
        ids, types, lengths, truncated = [_flat([])], [_flat([])], [_flat([])], [_flat([])]
        windows = [_flat([])]
        for start in range(0, len(texts), _CALL_TEXTS):
            part = slice(start, start + _CALL_TEXTS)
            found = self._rows(list(texts[part]), None if pairs is None else list(pairs[part]))
            rows = list(chain.from_iterable(found))
            lengths.append(np.fromiter((len(row.ids) for row in rows), np.int64, len(rows)))
            truncated.append(np.fromiter((one[0].truncated for one in found), np.int64, len(found)))
            windows.append(np.fromiter(map(len, found), np.int64, len(found)))
            ids.append(_flat([row.ids for row in rows]))
            if self.has_token_types:
                types.append(_flat([row.types for row in rows]))
        return Encoded(
            np.concatenate(ids),
            np.concatenate(types) if self.has_token_types else None,
            np.concatenate(lengths),
            np.concatenate(truncated),
            np.concatenate(windows) if reads_windows(self.long) else None,
        )

    def with_max_length(self, max_length: int) -> Tokenizer:
        """The same tokenizer with another cut."""
        changed = copy(self)
        changed.max_length = max_length
        return changed

    def with_truncation_side(self, side: Side) -> Tokenizer:
        """The same tokenizer, whose long texts lose tokens on that side."""
        changed = copy(self)
        changed._settings = replace(self._settings, truncation_side=side)
        return changed

    def without_windows(self) -> Tokenizer:
        """The same tokenizer where each text is one row of tokens; the head is read in place."""
        changed = copy(self)
        changed.long = HEAD if reads_windows(self.long) else self.long
        return changed

    def with_content(self, content: str) -> Tokenizer:
        """A tokenizer with other tokens and ids; the special ones are called as they are here.

        Args:
            content: a `tokenizer.json` that has all of the special tokens.

        Raises:
            ModelError: the `tokenizers` package cannot build it.
        """
        changed = self.with_max_length(self.max_length)
        changed.__dict__.pop("ids_digest", None)
        changed._tokenizer = parse_tokenizer(content, self._where)
        changed._tokenizer.encode_special_tokens = self._settings.split_special_tokens
        (pad_id,) = changed._ids_of(("pad_token",))
        changed.padding = replace(self.padding, token_id=pad_id)
        changed._settings = replace(self._settings, padding=changed.padding)
        changed.num_ids = _num_ids(changed._tokenizer)
        return changed

    def save(self, folder: Path, accepted: Collection[str] | None = None) -> None:
        """Write the tokenizer's files into a folder under construction, the cut among them.

        Args:
            folder: where to.
            accepted: the inputs that the model's own code takes; None for those of any encoder.
        """
        write_tokenizer(folder, self._tokenizer, self._settings, self.max_length, accepted)

    def _ids_of(self, names: Collection[str]) -> frozenset[int]:
        tokens = (self._settings.special_tokens.get(name) for name in names)
        ids = (self._tokenizer.token_to_id(token) for token in tokens if token is not None)
        return frozenset(one for one in ids if one is not None)

    def _rows(self, texts: list[str], pairs: list[str] | None) -> list[list[_Row]]:
        """The rows of each of one call's texts."""
        short = self._cut_long(texts) if pairs is None else {}
        rest = [index for index in range(len(texts)) if index not in short]
        found = self._call(
            [texts[index] for index in rest],
            None if pairs is None else [pairs[index] for index in rest],
        )
        rows = {index: [row] for index, row in short.items()}
        for index, one in zip(rest, found):
            if reads_windows(self.long):
                rows[index] = self._windows(one)
            else:
                rows[index] = [self._cut(one, is_pair=pairs is not None)]
        return [rows[index] for index in range(len(texts))]

    def _cut_long(self, texts: list[str]) -> dict[int, _Row]:
        """Rows of texts whose end, well behind the last token that is kept, was not tokenized."""
        cut = self.max_length * CHARS_PER_TOKEN
        long = [index for index, text in enumerate(texts) if len(text) > cut]
        if not long or self.long != HEAD or self._settings.truncation_side == "left":
            return {}
        rows = {}
        heads = self._call([texts[index][:cut] for index in long], None, offsets=True)
        for index, head in zip(long, heads):
            if len(head) < self.max_length:
                continue
            row = self._cut(head, is_pair=False)
            begin = head.sequence_ids.index(0)
            kept = len(row.ids) - self._num_special(is_pair=False)
            end = max((stop for _, stop in head.offsets[begin : begin + kept]), default=0)
            if end <= cut * (1 - _CUT_MARGIN):
                behind = round(len(head) * (len(texts[index]) - cut) / cut)
                rows[index] = row._replace(truncated=row.truncated + behind)
        return rows

    def _cut(self, one: Any, *, is_pair: bool) -> _Row:
        """A text's or a pair's ids, without those that are too many.

        As the `tokenizers` package truncates, `longest_first` and before special tokens are added,
        which stand before, between and behind the texts in every template.
        """
        ids: list[int] = one.ids
        types: list[int] = one.type_ids if self.has_token_types else []
        excess = len(ids) - self.max_length
        if excess <= 0:
            return _Row(ids, types, 0)
        places: list[int | None] = one.sequence_ids
        num_special = self._num_special(is_pair=is_pair)
        budget = max(self.max_length - num_special, 0)
        lengths, kept = [len(ids) - num_special], [budget]
        if is_pair:
            lengths = [places.count(0), places.count(1)]
            kept = kept_of_pair(lengths, budget)
        # From behind, so that what comes before stays where it is.
        for number in reversed(range(len(lengths))):
            if not lengths[number]:
                continue
            begin = places.index(number)
            gone = lost_part(
                begin,
                begin + lengths[number],
                kept[number],
                long=self.long,
                from_left=self._settings.truncation_side == "left",
            )
            del ids[gone], types[gone]
        return _Row(ids, types, excess)

    def _windows(self, one: Any) -> list[_Row]:
        """A single text's ids in windows, each between the special tokens."""
        ids: list[int] = one.ids
        types: list[int] = one.type_ids if self.has_token_types else []
        num_special = self._num_special(is_pair=False)
        length, budget = len(ids) - num_special, self.max_length - num_special
        if length <= budget or budget < 1:
            return [self._cut(one, is_pair=False)]
        begin = one.sequence_ids.index(0)
        rows = []
        for start in window_starts(length, budget):
            piece = slice(begin + start, begin + start + budget)
            parts = (slice(begin), piece, slice(begin + length, None))
            rows.append(
                _Row(
                    list(chain.from_iterable(ids[part] for part in parts)),
                    list(chain.from_iterable(types[part] for part in parts)),
                    0,
                )
            )
        return rows

    def _num_special(self, *, is_pair: bool) -> int:
        return int(self._tokenizer.num_special_tokens_to_add(is_pair))

    def _call(
        self, texts: list[str], pairs: list[str] | None, *, offsets: bool = False
    ) -> list[Any]:
        """The package's own encodings, whole."""
        inputs: Any = texts if pairs is None else list(zip(texts, pairs))
        encode: Any = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        expected = f"a tokenizer that reads {len(texts)} texts"
        with as_model_errors(self._where, expected, "Check tokenizer.json."):
            return list(encode(inputs))


def _num_ids(tokenizer: RustTokenizer) -> int:
    """One more than the largest id.

    Where every id below the number of tokens is one, that number; the vocabulary as a dictionary
    takes four times as long and 60 MB for 250,000 tokens.
    """
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    if all(tokenizer.id_to_token(number) is not None for number in range(count)):
        return count
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _flat(rows: Sequence[Sequence[int]]) -> Int64s:
    """The numbers of all rows, one row after the other."""
    return np.fromiter(chain.from_iterable(rows), np.int64, sum(map(len, rows)))
