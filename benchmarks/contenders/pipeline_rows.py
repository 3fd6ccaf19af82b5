"""transformers' `pipeline`, as documented and at its best, on PyTorch and on optimum-onnx."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contenders.contract import Clock, Contender, Job, Request
from contenders.passes import (
    chosen,
    in_order,
    longest_first,
    num_tokens,
    tokenizer_of,
)
from contenders.torch_rows import torch_model


class PipelineRow:
    """transformers' `pipeline`: on the texts as they come, or sorted by length in batches."""

    def __init__(self, job: Job, clock: Clock, model: Any, batch_sizes: Sequence[int]) -> None:
        from transformers import pipeline

        self._tokenizer = tokenizer_of(job)
        # A dtype would be lost here: the model that is given has one.
        self._pipe = pipeline("text-classification", model=model, tokenizer=self._tokenizer)
        self._columns = model.config.label2id
        self._max_length = job.max_length
        self._batch_size: int | None = None
        run = self._run_sorted if batch_sizes else self._run
        self._batch_size = chosen(batch_sizes or [1], run, job, clock)
        self._is_sorted = bool(batch_sizes)
        self.settings: dict[str, Any] = {"batch_size": self._batch_size}

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits."""
        if self._is_sorted:
            return self._run_sorted(request.texts, self._batch_size)
        return self._run(request.texts)

    def _run(self, texts: list[str], batch_size: int | None = None) -> Any:
        import numpy as np

        options: dict[str, Any] = {} if batch_size in (None, 1) else {"batch_size": batch_size}
        found: Any = self._pipe(
            texts,
            truncation=True,
            max_length=self._max_length,
            top_k=None,
            function_to_apply="none",  # logits, to compare
            **options,
        )
        logits = np.empty((len(texts), len(self._columns)), np.float32)
        for row, values in enumerate(found):
            for value in values:
                logits[row, self._columns[value["label"]]] = value["score"]
        return logits

    def _run_sorted(self, texts: list[str], batch_size: int | None) -> Any:
        order = longest_first(num_tokens(self._tokenizer, texts, self._max_length))
        found = self._run([texts[row] for row in order], batch_size)
        return in_order(found, order)


def load_pipeline(job: Job, clock: Clock, *, dtype: str, is_sorted: bool) -> Contender:
    """The pipeline on PyTorch, its model loaded in `dtype`."""
    model = torch_model(job, clock, dtype)
    return PipelineRow(job, clock, model, job.batch_sizes if is_sorted else ())


def load_optimum(job: Job, clock: Clock) -> Contender:
    """The pipeline on the graph that `prepare_optimum` made, with onnxruntime's own threads."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    model = ORTModelForSequenceClassification.from_pretrained(job.kept, trust_remote_code=False)
    forward = model.forward

    @functools.wraps(forward)
    def counted(*arguments: Any, **inputs: Any) -> Any:
        clock.check()
        found = forward(*arguments, **inputs)
        mask = inputs["attention_mask"]
        clock.count(len(mask), int(mask.sum()))
        return found

    model.forward = counted
    return PipelineRow(job, clock, model, job.batch_sizes)


def prepare_optimum(job: Job) -> None:
    """Export the model with optimum-onnx, in fp32."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    from monox_kit.durable import new_folder

    model = ORTModelForSequenceClassification.from_pretrained(
        job.model, export=True, trust_remote_code=False
    )
    with new_folder(Path(str(job.kept))) as folder:
        model.save_pretrained(folder)
