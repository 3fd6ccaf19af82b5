"""Short measurements beside each other on the user's own texts: labelling and inference."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from monox_kit.data import Document
from monox_kit.models.load import LoadedModel
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS, Scored, score
from monox_kit.results import Result


@dataclass(frozen=True, slots=True)
class RaceResult(Result):
    """Several classifiers on the same texts, in alternating rounds of one run.

    Attributes:
        num_rows: texts.
        num_tokens: real tokens of them.
        rows_per_s: by classifier, from the median round; tokenizing is part of it.
        tokens_per_s: the same in real tokens.
    """

    num_rows: int
    num_tokens: int
    rows_per_s: Mapping[str, float]
    tokens_per_s: Mapping[str, float]


def race_models(
    models: Mapping[str, LoadedModel],
    documents: Sequence[Document],
    *,
    rounds: int = 3,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> RaceResult:
    """Time models on the same texts, each with its own tokenizer.

    Args:
        models: by the name to report them under; their tokenizers make as many tokens of a text.
        documents: all single texts or all pairs.
        rounds: each model scores all documents so many times, in turn.
        batch_tokens: padded tokens per batch.
    """

    def scored(model: LoadedModel) -> Scored:
        return score(model.classifier, model.tokenizer, documents, batch_tokens=batch_tokens)

    # One pass that is not timed: it warms every model up and counts the tokens.
    tokens = max(scored(model).num_tokens for model in models.values())
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            scored(model)
            times[name].append(time.perf_counter() - started)
    seconds = {name: median(values) for name, values in times.items()}
    return RaceResult(
        num_rows=len(documents),
        num_tokens=tokens,
        rows_per_s={name: round(len(documents) / value, 2) for name, value in seconds.items()},
        tokens_per_s={name: round(tokens / value, 1) for name, value in seconds.items()},
    )
