"""What the contenders' passes share: reading and cutting texts, sorting, padding, choosing."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from contenders.contract import Clock, Job, OverLimit

BATCH_TOKENS = 1024  # padded tokens per batch of the OpenVINO rows, the same as ours
CHOICE_LIMIT_S = 60.0  # of the warm-up, for each setting that is tried

T = TypeVar("T")


def read_texts(path: str) -> list[str]:
    """The `text` of every line."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def tokenizer_of(job: Job) -> Any:
    """The model's tokenizer, by transformers."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(job.model, trust_remote_code=False)
    except ValueError:
        # transformers 4 does not know the class names that 5 writes; the content is the same.
        return PreTrainedTokenizerFast.from_pretrained(job.model, trust_remote_code=False)


def token_ids(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    """N lists of token ids, cut at `max_length`."""
    found = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return list(found["input_ids"])


def num_tokens(tokenizer: Any, texts: list[str], max_length: int) -> list[int]:
    """Real tokens of each text."""
    return [len(ids) for ids in token_ids(tokenizer, texts, max_length)]


def longest_first(lengths: Sequence[int]) -> list[int]:
    """The rows by falling length."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def in_order(values: Any, order: Sequence[int]) -> Any:
    """The [N, C] values of the rows `order`, in the order of the rows."""
    import numpy as np

    found = np.empty_like(values)
    found[np.asarray(order)] = values
    return found


def budgeted(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in batches of at most `BATCH_TOKENS` padded tokens, the longest first."""
    order = longest_first(lengths)
    batches = []
    start = 0
    while start < len(order):
        stop = start + max(1, BATCH_TOKENS // lengths[order[start]])
        batches.append(order[start:stop])
        start = stop
    return batches


def padded(
    tokenizer: Any, ids: Sequence[list[int]], rows: Sequence[int], names: set[str]
) -> dict[str, Any]:
    """The [B, L] arrays of a batch, for those inputs that a graph has."""
    import numpy as np

    arrays = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="np")
    arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])  # single texts
    return {name: arrays[name].astype(np.int64) for name in arrays if name in names}


def chosen(options: Sequence[T], run: Callable[[list[str], T], Any], job: Job, clock: Clock) -> T:
    """The option with the most tokens per second on the warm-up texts, after a pass to warm up."""
    texts = read_texts(job.warmup_path)

    def tokens_per_s(option: T) -> float:
        clock.start(CHOICE_LIMIT_S)
        started_s = time.perf_counter()
        with contextlib.suppress(OverLimit):
            run(texts, option)
        return clock.tokens / (time.perf_counter() - started_s)

    tokens_per_s(options[0])
    return options[0] if len(options) == 1 else max(options, key=tokens_per_s)
