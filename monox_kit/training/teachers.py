"""Teachers as their logits stand in stores: one store, or several of the same rows averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monox_kit.data import Int64s, Logits
from monox_kit.errors import ConfigError, StoreError, StoreMismatch
from monox_kit.store import LogitStore


class StoredTeacher:
    """One teacher and the rows that it labelled.

    Several stores of the same corpus are one teacher: the weighted mean of theirs (see
    `objectives.averaged_logits` and `binary_averaged_logits`). Texts and gold labels are then those
    of the first store.

    Args:
        stores: open, complete stores of one label set.
        weights: one a store, above 0, in any scale; None for equal ones.
    """

    def __init__(
        self, stores: Sequence[LogitStore], weights: Sequence[float] | None = None
    ) -> None:
        weights = weights or [1.0] * len(stores)
        if len(weights) != len(stores):
            raise ConfigError(
                f"`store_weight`: expected one weight for each of the {len(stores)} stores, found "
                f"{len(weights)}. Give as many, in the stores' order."
            )
        for store in stores[1:]:
            _require_same_rows(store, stores[0])
        self.stores = tuple(stores)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self.texts = stores[0]

    def __len__(self) -> int:
        return len(self.texts)

    def logits(self, rows: Int64s, temperature: float | None) -> Logits:
        """[n, C] float32 logits of n rows, in the order asked for.

        Args:
            rows: [n] positions in the stores.
            temperature: that the probabilities of several teachers are averaged at; None averages
                their logits. One teacher's logits are as they are.

        Raises:
            StoreError: a logit is NaN or infinite; the message names its store and its row there.
        """
        each = [_finite_logits(store, rows) for store in self.stores]
        if len(each) == 1:
            return each[0]
        return self.texts.manifest.problem.averaged(each, self.weights, temperature)


def _finite_logits(store: LogitStore, rows: Int64s) -> Logits:
    logits = store.logits(rows)
    is_finite = np.isfinite(logits).all(axis=1)
    if not is_finite.all():
        raise StoreError(
            f"{store.folder}: expected finite teacher logits, found NaN or Inf in row "
            f"{rows[int(is_finite.argmin())]}. Check the store with monoxkit store verify; label "
            "the corpus again where the teacher wrote them."
        )
    return logits


def _require_same_rows(store: LogitStore, first: LogitStore) -> None:
    """Check that two stores hold the same texts in the same order.

    The digest of their corpus says so; where it differs, ids, gold labels or languages may be all
    that does, as in a file of answers that was imported: then the texts are compared.
    """
    if len(store) != len(first):
        raise _other_rows(store, first, f"{len(first)} rows", str(len(store)))
    digest = _corpus_digest(store)
    if digest is not None and digest == _corpus_digest(first):
        return
    for here, there in zip(store.documents(), first.documents()):
        if (here.text, here.text_pair) != (there.text, there.text_pair):
            wanted, found = (ascii(each.text[:40]) for each in (there, here))
            raise _other_rows(store, first, f"the text {wanted} in row {here.row}", found)


def _other_rows(store: LogitStore, first: LogitStore, wanted: str, found: str) -> StoreMismatch:
    return StoreMismatch(
        f"{store.folder}: expected {wanted} as in {first.folder}, since teachers are averaged row "
        f"by row, found {found}. Label one corpus with each teacher, or use `combine` concatenate."
    )


def _corpus_digest(store: LogitStore) -> Any:
    return store.manifest.fingerprint.get("corpus_digest")
