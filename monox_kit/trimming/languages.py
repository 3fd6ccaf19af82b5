"""Which tokens the texts of each language use, and how the trimmed tokenizer reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from monox_kit.corpora.corpus import Corpus
from monox_kit.data import UNKNOWN_LANGUAGE, Document, Int64s
from monox_kit.errors import ModelError
from monox_kit.foreign import shown
from monox_kit.models.tokenizer import Encoded, Tokenizer
from monox_kit.progress import ProgressTask
from monox_kit.trimming.config import LanguageTrim
from monox_kit.trimming.vocabulary import Cut

# Rows that are tokenized together.
_WINDOW_ROWS = 4096
# No text is as long: tokens behind the cut count too, for they decide how those before it are read.
_UNCUT = 1 << 40
# Rows of each language whose outputs are computed with both models.
_COMPARED_ROWS = 8


@dataclass(slots=True)
class Tally:
    """What the texts of one language are made of.

    Attributes:
        counts: [V] int64, how often each token occurs; 0 for those that stand around texts.
        num_rows: texts or pairs.
    """

    counts: Int64s
    num_rows: int = 0

    def wanted(self, coverage: float) -> list[int]:
        """The ids of the fewest tokens that cover a share of all that occur: frequent ones."""
        order = np.argsort(-self.counts, kind="stable")
        sums = np.cumsum(self.counts[order])
        count = int(np.searchsorted(sums, coverage * sums[-1])) + 1 if sums[-1] else 0
        return [int(id) for id in order[:count]]

    def share(self, ids: Int64s | int | None) -> float:
        """The share of all tokens that some ids have; None has none."""
        total = self.counts.sum()
        return 0.0 if ids is None or not total else float(self.counts[ids].sum() / total)


class Survivors:
    """Texts whose tokens all survive: compared one by one, counted, and the first ones kept.

    Attributes:
        documents: the first ones of each language.
        num_rows: by language.
    """

    def __init__(self, whole: Tokenizer, cut: Cut) -> None:
        self._whole, self._cut = whole, cut
        self._is_kept = np.zeros(whole.num_ids, np.bool_)
        self._is_kept[cut.old_ids] = True
        self.documents: list[Document] = []
        self.num_rows: dict[str, int] = {}

    def compare(self, language: str, documents: Sequence[Document], after: Encoded) -> None:
        """Compare what the trimmed tokenizer made of some texts with what the whole one makes.

        Raises:
            ModelError: a text whose tokens all survive is read otherwise.
        """
        before = _encoded(self._whole, documents)
        survive = np.logical_and.reduceat(self._is_kept[before.input_ids], before.starts)
        found = self.num_rows.get(language, 0)
        for row in np.flatnonzero(survive).tolist():
            old, new = _ids(before, row), self._cut.old_ids[_ids(after, row)]
            if not np.array_equal(old, new):
                raise ModelError(
                    f"row {documents[row].row}: the trimmed tokenizer reads the text "
                    f"{shown(documents[row].text[:60])!r} otherwise, though it has all of its "
                    f"tokens: {old[:16].tolist()} became {new[:16].tolist()}. This tokenizer "
                    "cannot be trimmed without changing what it says of such texts."
                )
            if found < _COMPARED_ROWS:
                self.documents.append(documents[row])
            found += 1
        self.num_rows[language] = found


def count_tokens(
    corpus: Corpus,
    tokenizer: Tokenizer,
    task: ProgressTask,
    visit: Callable[[str, Sequence[Document], Encoded], None] | None = None,
) -> dict[str, Tally]:
    """What the texts of each language are made of, by its tag.

    Args:
        corpus: of texts or pairs.
        tokenizer: with any cut; texts are tokenized whole.
        task: told the rows.
        visit: called with some documents of one language and their tokens.
    """
    found: dict[str, Tally] = {}
    with task:
        for language, documents in _windows(corpus):
            encoded = _encoded(tokenizer, documents)
            tally = found.setdefault(language, Tally(np.zeros(tokenizer.num_ids, np.int64)))
            tally.counts += np.bincount(encoded.input_ids, minlength=tokenizer.num_ids)
            tally.num_rows += len(documents)
            if visit is not None:
                visit(language, documents, encoded)
            task.advance(len(documents))
    for tally in found.values():
        tally.counts[list(tokenizer.template_ids)] = 0
    return found


def language_report(
    before: Mapping[str, Tally],
    after: Mapping[str, Tally],
    survivors: Survivors,
    cut: Cut,
    unknown: int | None,
) -> dict[str, LanguageTrim]:
    """What trimming means for each language.

    Args:
        before: by language, under the whole tokenizer.
        after: by language, under the trimmed one.
        survivors: what was compared.
        cut: what was kept.
        unknown: the id of the whole tokenizer's unknown token; None where there is none.
    """
    unknown_after = None if unknown is None else cut.old_ids.tolist().index(unknown)
    return {
        language: LanguageTrim(
            num_rows=old.num_rows,
            num_tokens=int(np.count_nonzero(old.counts)),
            num_kept_tokens=int(np.count_nonzero(old.counts[cut.old_ids])),
            coverage=old.share(cut.old_ids),
            num_same_rows=survivors.num_rows[language],
            unknown_before=old.share(unknown),
            unknown_after=after[language].share(unknown_after),
            tokens_per_text_before=float(old.counts.sum() / old.num_rows),
            tokens_per_text_after=float(after[language].counts.sum() / old.num_rows),
        )
        for language, old in sorted(before.items())
    }


def _windows(corpus: Corpus) -> Iterator[tuple[str, list[Document]]]:
    """The documents in lists of one language each."""
    for name, language in zip(corpus.files, corpus.languages):
        documents = Corpus(replace(corpus.config, paths=(name,), language=())).documents()
        while window := list(islice(documents, _WINDOW_ROWS)):
            groups: dict[str, list[Document]] = {}
            for document in window:
                groups.setdefault(document.lang or language or UNKNOWN_LANGUAGE, []).append(
                    document
                )
            yield from groups.items()


def _encoded(tokenizer: Tokenizer, documents: Sequence[Document]) -> Encoded:
    """The documents' tokens, none of them cut."""
    pairs = [one.text_pair for one in documents if one.text_pair is not None]
    texts = [one.text for one in documents]
    return tokenizer.without_windows().with_max_length(_UNCUT).encode(texts, pairs or None)


def _ids(encoded: Encoded, row: int) -> Int64s:
    start = encoded.starts[row]
    return encoded.input_ids[start : start + encoded.lengths[row]]
