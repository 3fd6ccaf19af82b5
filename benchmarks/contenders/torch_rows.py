"""Contenders on PyTorch: CrossEncoder, a loop like NeMo Curator's, and the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contenders.contract import Clock, Job, Request
from contenders.passes import (
    chosen,
    in_order,
    longest_first,
    token_ids,
    tokenizer_of,
)


class CrossEncoderRow:
    """sentence-transformers' `CrossEncoder.predict`, which sorts by itself."""

    def __init__(self, job: Job, clock: Clock) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(
            job.model,
            device="cpu",
            max_length=job.max_length,
            activation_fn=torch.nn.Identity(),
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
        # It takes a list of texts for one pair; these are single texts.
        model.is_singular_input = lambda inputs: isinstance(inputs, str)
        watch(model.model, clock)
        self._model = model
        self._batch_size = chosen(job.batch_sizes, self._run, job, clock)
        self.settings: dict[str, Any] = {"batch_size": self._batch_size}

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits."""
        return self._run(request.texts, self._batch_size)

    def _run(self, texts: list[str], batch_size: int) -> Any:
        return self._model.predict(texts, batch_size=batch_size, show_progress_bar=False)


class TorchLoop:
    """A loop over batches of a fixed number of rows, sorted by length.

    Args:
        job: what to load.
        clock: the time limit.
        rows: per batch.
        autocast: whether matrices are multiplied in bfloat16.
        is_exact: whether a batch holds texts of one length alone, so that nothing is padded.
    """

    def __init__(
        self, job: Job, clock: Clock, *, rows: int, autocast: bool, is_exact: bool
    ) -> None:
        self._tokenizer = tokenizer_of(job)
        self._model = torch_model(job, clock, "float32")
        self._max_length = job.max_length
        self._rows, self._autocast, self._is_exact = rows, autocast, is_exact
        self.settings: dict[str, Any] = {"batch_size": rows}
        chosen([rows], lambda texts, _: self.score(Request(texts, "")), job, clock)

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits."""
        import numpy as np
        import torch

        ids = token_ids(self._tokenizer, request.texts, self._max_length)
        lengths = [len(each) for each in ids]
        order = longest_first(lengths)
        found = []
        start = 0
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, self._autocast):
            while start < len(order):
                batch = order[start : start + self._rows]
                if self._is_exact:
                    batch = [row for row in batch if lengths[row] == lengths[batch[0]]]
                start += len(batch)
                inputs = self._tokenizer.pad(
                    {"input_ids": [ids[row] for row in batch]}, return_tensors="pt"
                )
                found.append(self._model(**inputs).logits.float().numpy())
        return in_order(np.concatenate(found), order)


def torch_model(job: Job, clock: Clock, dtype: str) -> Any:
    """The transformers model in `dtype`, under the clock."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(job.threads)
    model = AutoModelForSequenceClassification.from_pretrained(
        job.model, dtype=getattr(torch, dtype), trust_remote_code=False
    )
    model.eval()
    watch(model, clock)
    return model


def watch(model: Any, clock: Clock) -> None:
    """Count what the model finishes; check the time before every matrix, as one batch may be long.

    72 checks of a 12-layer model take 0.1 ms.
    """
    import torch

    def counted(_module: Any, _arguments: Any, inputs: Mapping[str, Any], _output: Any) -> None:
        mask = inputs["attention_mask"]
        clock.count(len(mask), int(mask.sum()))

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _module, _inputs: clock.check())
    model.register_forward_hook(counted, with_kwargs=True)
