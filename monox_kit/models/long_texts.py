"""What is read of a text that is longer than `max_length`: one policy, in every command.

    head           the first tokens; of tokenizers that truncate on the left, the last ones
    head-tail      the first and the last half of what fits
    windows:mean   all of it, in windows of `max_length`; the mean of their logits
    windows:max    the same; of each class the most that a window says

`docs/long-documents.md` says which one to take, `docs/decisions.md` why windows are as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from monox_kit.data import SINGLE_LABEL, Int64s, LabelSet, Logits
from monox_kit.errors import ConfigError

Long = Literal["head", "head-tail", "windows:mean", "windows:max"]
HEAD: Literal["head"] = "head"
HEAD_TAIL: Literal["head-tail"] = "head-tail"
WINDOWS_MAX: Literal["windows:max"] = "windows:max"
# Where fingerprints and manifests keep the policy; absent for `head`, as in those of 0.1.0.
LONG_KEY = "long"


def reads_windows(long: Long) -> bool:
    """Whether a text becomes several rows of tokens."""
    return long not in (HEAD, HEAD_TAIL)


def long_field(long: Long) -> dict[str, str]:
    """What a fingerprint says of the policy; nothing of `head`, which 0.1.0 knew alone."""
    return {} if long == HEAD else {LONG_KEY: long}


def long_of(fingerprint: Mapping[str, Any]) -> str:
    """The policy that a fingerprint was made with."""
    return str(fingerprint.get(LONG_KEY, HEAD))


def long_sentence(long: Long) -> str:
    """A paragraph of a model card on how the model is to be given long texts; none for `head`."""
    if long == HEAD:
        return ""
    return (
        f"\nLong texts are read as `{long}`, which monoxkit does by itself; other programs must cut"
        " texts so, too.\n"
    )


def require_trainable(long: Long) -> None:
    """Check that each text is one row of tokens, which is what is trained on.

    Raises:
        ConfigError: it is read in windows.
    """
    if reads_windows(long):
        raise ConfigError(
            f"`long` {long}: a model is trained on one row of tokens of each text, and windows are "
            "several. Train with `long` head or head-tail; label, evaluate and predict take "
            "windows."
        )


def require_single_texts(long: Long, has_pairs: bool) -> None:
    """Check that what is read in windows is single texts.

    Raises:
        ConfigError: it is pairs, of which it is not known which text to part.
    """
    if has_pairs and reads_windows(long):
        raise ConfigError(
            f"`long` {long}: it is for single texts, and these rows are pairs of texts. Give "
            "`long` head or head-tail."
        )


def kept_of_pair(lengths: Sequence[int], budget: int) -> list[int]:
    """How many tokens each text of a pair keeps of `budget`: the longer one loses first.

    Source: `truncate_encodings` of the `tokenizers` package, strategy LongestFirst.
    """
    shorter, longer = sorted(lengths)
    longer = shorter if shorter > budget else max(shorter, budget - shorter)
    if shorter + longer > budget:
        shorter = budget // 2
        longer = shorter + budget % 2
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def lost_part(begin: int, end: int, kept: int, *, long: Long, from_left: bool) -> slice:
    """The places that a text loses.

    Args:
        begin: place of its first token.
        end: place behind its last one.
        kept: tokens that it keeps, fewer than it has.
        long: the policy; windows cut what has no windows as `head` does.
        from_left: whether the tokenizer truncates on the left.
    """
    if long == HEAD_TAIL:
        tail = kept // 2
        return slice(begin + kept - tail, end - tail)
    return slice(begin, end - kept) if from_left else slice(begin + kept, end)


def window_starts(length: int, budget: int) -> list[int]:
    """Where the windows of a text begin.

    As few as cover it, at equal distances from its first token to its last. All are full, so that
    no remainder of a few tokens counts as much as a whole window; neighbours overlap for that.

    Args:
        length: tokens of the text, more than fit.
        budget: tokens that fit into a window, at least 1.
    """
    last = -(-length // budget) - 1
    return [at * (length - budget) // last for at in range(last + 1)]


def reduced(logits: Logits, windows: Int64s, long: Long, labels: LabelSet) -> Logits:
    """[N, C] float32 logits of N texts from those of their windows.

    The mean of logits gives the same probabilities as that of log-probabilities, from which they
    differ by a constant a window. The maximum is taken of log-probabilities where classes exclude
    each other, since logits of two windows need not be in one scale, and of logits where each class
    is for itself. A text of one window keeps its logits.

    Args:
        logits: [R, C] of all windows, text by text.
        windows: [N] windows of each text, at least 1.
        long: how.
        labels: of the C columns.
    """
    starts = np.cumsum(windows) - windows
    values = logits.astype(np.float64)
    if long == WINDOWS_MAX:
        if labels.problem_type == SINGLE_LABEL:
            values = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
        found = np.maximum.reduceat(values, starts, axis=0)
    else:
        found = np.add.reduceat(values, starts, axis=0) / windows[:, None]
    return np.where(windows[:, None] == 1, logits[starts], found).astype(np.float32)
