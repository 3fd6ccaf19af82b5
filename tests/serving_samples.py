"""Answers and facts as the engine gives them, for the protocols alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monox_kit.data import MULTI_LABEL, SINGLE_LABEL, LabelSet
from monox_kit.problem import problem_of
from monox_kit.serving.contract import (
    Answer,
    Decoded,
    Kind,
    ModelFacts,
    Page,
    Protocol,
    Refused,
    Reply,
    Request,
    ServerFacts,
    Timings,
)
from monox_kit.serving.protocols import PAGES, PROTOCOLS

NAMES = ("billing", "delivery", "Zürich, 東京")
LOGITS = ((0.5, 2.0, -1.0), (3.0, -2.0, 1.0))
MOST_ROWS = 8


def model_facts(problem_type: str = SINGLE_LABEL, **changed: Any) -> ModelFacts:
    """A model of `NAMES`."""
    labels = LabelSet(NAMES, problem_type)
    known: dict[str, Any] = {
        "name": "student",
        "digest": "0123456789abcdef" * 4,
        "labels": labels,
        "problem": problem_of(labels),
        "max_length": 16,
        "has_pairs": None,
        "precision": "int8",
        "provider": "cpu",
        "runtime": "onnxruntime 1.32.0",
        "is_calibrated": False,
    }
    return ModelFacts(**{**known, **changed})


def server_facts(*models: ModelFacts, is_ready: bool = True) -> ServerFacts:
    """A server of some models."""
    return ServerFacts(
        version="0.2.0",
        is_ready=is_ready,
        models={one.name: one for one in models},
        max_rows=MOST_ROWS,
        max_characters=1000,
        max_body_bytes=100_000,
        max_batch_tokens=4096,
        max_concurrent_requests=64,
        truncates=True,
    )


def answer_of(
    rows: Sequence[Any],
    problem_type: str = SINGLE_LABEL,
    *,
    temperature: float = 1.0,
    logits: Any = None,
    **changed: Any,
) -> Answer:
    """An answer whose row i has the logits of row i of `LOGITS`, in turn.

    Args:
        rows: what was asked.
        problem_type: of the model.
        temperature: that a calibrated model divides its logits by.
        logits: [N, C] in their place.
        changed: fields of the answer.
    """
    model = model_facts(problem_type, is_calibrated=temperature != 1)
    if logits is None:
        logits = [LOGITS[place % len(LOGITS)] for place in range(len(rows))]
    values = np.asarray(logits, np.float32)
    count = len(values)
    scaled = np.asarray(values / temperature, np.float32)
    known: dict[str, Any] = {
        "model": model,
        "logits": values,
        "probabilities": model.problem.probabilities(scaled).astype(np.float32),
        "decisions": tuple(model.problem.decode(model.problem.decide(scaled))),
        "abstained": None,
        "tokens": np.arange(3, 3 + count, dtype=np.int64),
        "truncated": np.zeros(count, np.bool_),
        "timings": Timings(tokenizing_s=0.001, queue_s=0.004, run_s=0.02),
    }
    return Answer(**{**known, **changed})


def protocol(name: str) -> Protocol:
    """A protocol by its name."""
    (found,) = (one for one in PROTOCOLS if one.name == name)
    return found


def page(method: str, path: str) -> Page:
    """The page of a route."""
    (found,) = (one for one in PAGES if (method, path) in one.routes)
    return found


def decoded(
    name: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
) -> Decoded:
    """What a protocol reads in a body."""
    request = Request(body=body, headers=headers or {}, path=path or {"model": "student"})
    return protocol(name).decode(request)


def replied(
    name: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
    **of_answer: Any,
) -> Reply:
    """A protocol's reply to a body, refusals included, with an engine that refuses as the real one.

    Any other exception of a protocol would be a 500, and is raised here.
    """
    try:
        read = decoded(name, body, headers, path)
        rows = read.question.rows
        texts = [text for row in rows for text in ((row,) if isinstance(row, str) else row)]
        if not rows or not all(text.strip() for text in texts):
            raise Refused(Kind.EMPTY, "There is no text.")
        if len(rows) > MOST_ROWS:
            raise Refused(Kind.TOO_MANY_ROWS, "There are too many texts.")
        if len({isinstance(row, str) for row in rows}) > 1:
            raise Refused(Kind.INVALID, "There are texts and pairs.")
        return protocol(name).encode(read.options, answer_of(rows, **of_answer))
    except Refused as refused:
        return protocol(name).refuse(refused)


MULTI = MULTI_LABEL
