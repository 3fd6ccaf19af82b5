"""Whether padding changes what a model says of a text, and how such a model is run without it.

Models that take no attention mask (FNet) or mix neighbouring tokens (convolutions) see the padding
behind a text; so does one whose tokenizer pads on another side than the model reads from. Texts of
one length need no padding: run a length at a time, any of them says of a text what it says alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from monox_kit.data import Classifier, Int64s, Logits, TokenBatch
from monox_kit.models.batching import pad_batch
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.scoring import checked_logits
from monox_kit.models.tokenizer import Encoded, Tokenizer

# Lengths in tokens of the texts that are scored alone and padded: the nearest that there are.
_LENGTHS = (4, 8, 24)
# Differences of logits, as a share of the largest, that arithmetic in another order explains: in
# float32, and in a reduced precision, where a value near a step's edge falls on its other side.
_FP32_ROUNDING = 2e-4
_REDUCED_ROUNDING = 0.05
# Where equal texts in other company differ by more than this, the arithmetic is a reduced one.
_FP32_NOISE = 2e-5
# The largest of a few such differences is an estimate: padding must exceed it by so much.
_NOISE_MARGIN = 8


class EqualLengths:
    """A classifier that is run on texts of one length at a time, without padding."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.labels, self.concurrency = classifier.labels, classifier.concurrency

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch."""
        found = np.empty((len(batch.rows), len(self.labels)), np.float32)
        for places, part in by_length(batch):
            logits = self._classifier.logits(part)
            if logits.shape != (len(places), len(self.labels)):
                return logits  # for the caller to refuse: assigned, it would be broadcast
            found[places] = logits
        return found


def by_length(batch: TokenBatch) -> Iterator[tuple[Int64s, TokenBatch]]:
    """The rows of each length, as places [b] in the batch, and as a batch without padding."""
    is_real = batch.attention_mask == 1
    lengths = is_real.sum(axis=1)
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length).astype(np.int64)
        real, shape = is_real[places], (len(places), int(length))
        types = batch.token_type_ids
        yield (
            places,
            TokenBatch(
                batch.rows[places],
                batch.input_ids[places][real].reshape(shape),
                np.ones(shape, np.int64),
                None if types is None else types[places][real].reshape(shape),
            ),
        )


def padding_changes(classifier: Classifier, tokenizer: Tokenizer, *, is_fp32: bool) -> bool:
    """Whether a text's logits differ, beyond rounding, when it is padded among longer ones.

    A few golden texts are scored alone, padded, and beside others of their length, which shows what
    rounding is: a batch's own ranges decide it where activations are quantized as they come.

    Args:
        classifier: either backend.
        tokenizer: the model's.
        is_fp32: whether it is known to compute in float32.

    Raises:
        ModelError: the model breaks off, also on the tokenizer's largest id, or gives logits of
            another shape or that are not finite.
    """
    encoded = _golden(tokenizer)
    rows = np.arange(len(encoded.lengths), dtype=np.int64)
    # All but the longest, which is not padded; where all are of one length, one of them.
    short = rows[: max(len(rows) - 1, 1)]
    alone = np.concatenate([_score(classifier, encoded, short[[row]], tokenizer) for row in short])
    padded = _score(classifier, encoded, rows, tokenizer)[short]
    last = short[-1:]
    company = _with_company(encoded, int(last[0]), tokenizer)
    beside = checked_logits(classifier, company, np.repeat(last, len(company.rows)))[:1]
    scale = float(np.abs(alone).max()) or 1.0
    noise = float(np.abs(beside - alone[last]).max()) / scale
    is_exact = is_fp32 or noise <= _FP32_NOISE
    rounding = _FP32_ROUNDING if is_exact else _REDUCED_ROUNDING
    moved = float(np.abs(padded - alone).max()) / scale
    return moved > max(rounding, _NOISE_MARGIN * noise)


def _golden(tokenizer: Tokenizer) -> Encoded:
    """Golden texts of different lengths, without special tokens among their words."""
    encoded = tokenizer.without_windows().encode([text for text in GOLDEN_TEXTS if "<" not in text])
    near = [int(np.abs(encoded.lengths - wanted).argmin()) for wanted in _LENGTHS]
    rows = list(dict.fromkeys(near))  # the shortest first
    pieces = [
        slice(encoded.starts[row], encoded.starts[row] + encoded.lengths[row]) for row in rows
    ]
    types = encoded.token_type_ids
    return Encoded(
        np.concatenate([encoded.input_ids[piece] for piece in pieces]),
        None if types is None else np.concatenate([types[piece] for piece in pieces]),
        encoded.lengths[rows],
        encoded.truncated[rows],
    )


def _score(classifier: Classifier, encoded: Encoded, rows: Int64s, tokenizer: Tokenizer) -> Logits:
    return checked_logits(classifier, pad_batch(encoded, rows, tokenizer.padding), rows)


def _with_company(encoded: Encoded, row: int, tokenizer: Tokenizer) -> TokenBatch:
    """One text, then itself with the largest id in its middle, then itself with words exchanged."""
    largest_id = tokenizer.num_ids - 1
    begin, length = int(encoded.starts[row]), int(encoded.lengths[row])
    ids = np.tile(encoded.input_ids[begin : begin + length], (3, 1))
    if largest_id not in tokenizer.template_ids:  # an end in the middle is no text
        ids[1, length // 2] = largest_id
    ids[2, 1:-1] = ids[2, 1:-1][::-1]
    types = encoded.token_type_ids
    return TokenBatch(
        np.arange(3, dtype=np.int64),
        ids,
        np.ones_like(ids),
        None if types is None else np.tile(types[begin : begin + length], (3, 1)),
    )
