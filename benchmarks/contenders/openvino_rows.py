"""OpenVINO through its own API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.contract import Clock, Contender, Job, Request
from contenders.passes import (
    BATCH_TOKENS,
    budgeted,
    chosen,
    padded,
    read_texts,
    token_ids,
    tokenizer_of,
)


class OpenVinoRow:
    """OpenVINO's own API: asynchronous requests over batches under a budget of padded tokens."""

    def __init__(self, job: Job, clock: Clock, graph: str, precision: str | None) -> None:
        from monox_kit.runtime_environment import import_openvino

        core = import_openvino().Core()
        self._clock = clock
        self._tokenizer = tokenizer_of(job)
        self._max_length = job.max_length
        hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": job.threads}
        if precision is not None:
            hints["INFERENCE_PRECISION_HINT"] = precision
        model = core.read_model(graph)
        self._inputs = {name for value in model.inputs for name in value.names}
        self._compiled = {
            streams: core.compile_model(model, "CPU", {**hints, "NUM_STREAMS": streams})
            for streams in sorted({1, job.threads})
        }
        self._streams = chosen(list(self._compiled), self._run, job, clock)
        self._compiled = {self._streams: self._compiled[self._streams]}
        used = self._compiled[self._streams].get_property("INFERENCE_PRECISION_HINT")
        self.settings: dict[str, Any] = {
            "streams": self._streams,
            "batch_tokens": BATCH_TOKENS,
            # A processor without bfloat16 leaves the hint aside: this is what runs.
            "inference_precision": getattr(used, "get_type_name", lambda: str(used))(),
        }

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits."""
        return self._run(request.texts, self._streams)

    def _run(self, texts: list[str], streams: int) -> Any:
        import numpy as np
        import openvino  # silenced when the row was loaded

        ids = token_ids(self._tokenizer, texts, self._max_length)
        lengths = [len(each) for each in ids]
        found: dict[int, Any] = {}

        def keep(request: Any, rows: list[int]) -> None:
            logits = request.get_output_tensor(0).data
            found.update(zip(rows, logits.copy()))
            self._clock.count(len(rows), sum(lengths[row] for row in rows))

        queue = openvino.AsyncInferQueue(self._compiled[streams], max(2, streams))
        queue.set_callback(keep)
        try:
            for rows in budgeted(lengths):
                self._clock.check()
                queue.start_async(padded(self._tokenizer, ids, rows, self._inputs), rows)
        finally:
            queue.wait_all()
        return np.stack([found[row] for row in range(len(texts))]).astype(np.float32)


def load_openvino(job: Job, clock: Clock, precision: str) -> Contender:
    """The fp32 graph under a precision hint, `f32` or `bf16`."""
    return OpenVinoRow(job, clock, str(job.graph), precision)


def load_int8(job: Job, clock: Clock) -> Contender:
    """The graph that `prepare_int8` made."""
    # No hint: what is not int8 runs in the precision that OpenVINO takes by itself.
    return OpenVinoRow(job, clock, str(Path(str(job.kept)) / "model.xml"), None)


def prepare_int8(job: Job) -> None:
    """Quantize the fp32 graph with NNCF on the calibration texts, one text a sample."""
    from monox_kit.durable import new_folder
    from monox_kit.runtime_environment import import_openvino

    openvino = import_openvino()
    import nncf

    model = openvino.Core().read_model(str(job.graph))
    names = {name for value in model.inputs for name in value.names}
    tokenizer = tokenizer_of(job)
    texts = read_texts(str(job.calibration_path))
    ids = token_ids(tokenizer, texts, job.max_length)
    samples = [padded(tokenizer, ids, [row], names) for row in range(len(texts))]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    with new_folder(Path(str(job.kept))) as folder:
        openvino.save_model(quantized, str(folder / "model.xml"), compress_to_fp16=False)
