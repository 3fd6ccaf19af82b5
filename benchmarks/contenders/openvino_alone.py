"""OpenVINO through its own API, beside models that monoxkit runs; started by its benchmark.

    python contenders/openvino_alone.py DESCRIPTOR

As a careful user would write it: batches under a budget of padded tokens, several of them at once
on streams, one of them alone on all threads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from contenders.passes import budgeted
from monox_kit.benchmarking.worker import Worker, serve
from monox_kit.data import Document, Int64s, Logits
from monox_kit.hardware import num_threads


class OpenVinoAlone:
    """An ONNX bundle's graph and its tokenizer, without monoxkit's own code around them.

    Args:
        given: what the benchmark gives every contender: the model's folder and the cut.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        from monox_kit.runtime_environment import import_openvino

        openvino = import_openvino()

        folder = Path(given["model"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(given["max_length"])
        self._model = openvino.Core().read_model(str(folder / given["file"]))
        self._names = {name for value in self._model.inputs for name in value.names}
        self._compiled: dict[int, Any] = {}
        self._pad_id = self._tokenizer.token_to_id("<pad>") or 0

    def logits(self, documents: Sequence[Document]) -> Logits:
        """[N, C] of N texts that are given at once."""
        import openvino

        ids = self._ids(documents)
        batches = budgeted([len(each) for each in ids])
        if len(batches) == 1:
            (rows,) = batches
            found = self._on(1)(self._padded(ids, rows))[0]
            return np.asarray(found[np.argsort(rows)], np.float32)
        parts: dict[int, Any] = {}

        def keep(request: Any, rows: list[int]) -> None:
            parts.update(zip(rows, request.get_output_tensor(0).data.copy()))

        queue = openvino.AsyncInferQueue(self._on(num_threads()), num_threads())
        queue.set_callback(keep)
        for rows in batches:
            queue.start_async(self._padded(ids, rows), rows)
        queue.wait_all()
        return np.stack([parts[row] for row in range(len(ids))]).astype(np.float32)

    def lengths(self, documents: Sequence[Document]) -> Int64s:
        """[N] tokens of each text."""
        return np.array([len(ids) for ids in self._ids(documents)], np.int64)

    def truncation(self, documents: Sequence[Document]) -> None:
        """Not counted: monoxkit's own contenders read the same texts."""

    def _ids(self, documents: Sequence[Document]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch([one.text for one in documents])
        return [each.ids for each in encoded]

    def _on(self, streams: int) -> Any:
        """The model with so many streams, compiled where it is first used."""
        import openvino

        if streams not in self._compiled:
            settings = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": num_threads()}
            self._compiled[streams] = openvino.Core().compile_model(self._model, "CPU", settings)
        return self._compiled[streams]

    def _padded(self, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> dict[str, Any]:
        shape = (len(rows), max(len(ids[row]) for row in rows))
        arrays = {
            "input_ids": np.full(shape, self._pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for place, row in enumerate(rows):
            arrays["input_ids"][place, : len(ids[row])] = ids[row]
            arrays["attention_mask"][place, : len(ids[row])] = 1
        return {name: value for name, value in arrays.items() if name in self._names}


if __name__ == "__main__":
    serve(Worker(OpenVinoAlone))
