"""One model in a process of its own: opened, asked and timed. `process` is the other side.

    python -m monox_kit.benchmarking.worker DESCRIPTOR

The descriptor is a socket's. Each line on it is a JSON object with a command, which one line
answers. The top imports the standard library alone: everything else counts into the time to the
first answer.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from monox_kit.data import Document, Int64s, Logits
    from monox_kit.models.predict import Model

_WARM_UP_BATCHES = 2


class Subject(Protocol):
    """What is timed: a model as monoxkit runs it, or a program that it is compared with."""

    def logits(self, documents: Sequence[Document]) -> Logits:
        """[N, C] of N documents that are given at once."""

    def lengths(self, documents: Sequence[Document]) -> Int64s:
        """[N] tokens of each document."""

    def truncation(self, documents: Sequence[Document]) -> dict[str, int] | None:
        """What the cut took from N documents, and `max_length`; None where nobody counts it."""


class FolderModel:
    """A model folder as `monox_kit.load` opens it, in a precision and from a graph of its own.

    Args:
        given: what `ModelProcess` was given.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        from monox_kit.models.folder import open_folder
        from monox_kit.models.load import LoadedModel, OpenModel, require_runnable
        from monox_kit.models.predict import Model

        folder = open_folder(given["model"]).named(given["label_names"])
        backend, provider, device = given["backend"], given["provider"], given["device"]
        require_runnable(backend, provider, device)
        opened = OpenModel(folder, backend, given["max_length"], provider=provider, device=device)
        classifier = opened.classifier(file=given["file"], precision=given["precision"])
        self._model: Model = Model(LoadedModel(folder, backend, opened.tokenizer, classifier))
        self._batch_tokens: int = given["batch_tokens"]

    def logits(self, documents: Sequence[Document]) -> Logits:
        """[N, C] of N documents, in batches as `predict` makes them."""
        return self._model.score(documents, batch_tokens=self._batch_tokens).logits

    def lengths(self, documents: Sequence[Document]) -> Int64s:
        """[N] tokens of each document."""
        from monox_kit.models.scoring import tokenize

        return tokenize(self._model.loaded.tokenizer, documents).document_lengths

    def truncation(self, documents: Sequence[Document]) -> dict[str, int]:
        """What the cut took from N documents, as `Truncation` has it, and `max_length`."""
        from monox_kit.models.scoring import tokenize

        tokenizer = self._model.loaded.tokenizer
        found = tokenize(tokenizer, documents).truncation
        return {**found.to_json(), "max_length": tokenizer.max_length}


class Worker:
    """Answers the commands.

    Args:
        open_subject: makes of what `open` is given what is timed.
    """

    def __init__(self, open_subject: Callable[[Mapping[str, Any]], Subject]) -> None:
        self._open_subject = open_subject
        self._subject: Subject | None = None
        self._documents: list[Document] = []

    def open(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Load the model and let it answer one text; seconds of each and the memory so far."""
        began = time.perf_counter()
        from monox_kit.models import predict  # noqa: F401  # what a program imports first

        imported = time.perf_counter()
        self._subject = self._open_subject(given)
        loaded = time.perf_counter()
        self._subject.logits(_documents([given["text"]]))
        return {
            "import_s": imported - began,
            "load_s": loaded - imported,
            "answer_s": time.perf_counter() - loaded,
            "peak_bytes": peak_bytes(),
        }

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the texts that everything else is about, and score each once."""
        assert self._subject is not None
        self._documents = _documents(given["texts"])
        return {
            "logits": self._subject.logits(self._documents).tolist(),
            "lengths": self._subject.lengths(self._documents).tolist(),
            "truncation": self._subject.truncation(self._documents),
        }

    def time(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The seconds that each of some batches takes, from its texts to their logits."""
        assert self._subject is not None
        batches = [[self._documents[row] for row in rows] for rows in given["batches"]]
        seconds = []
        gc.collect()
        gc.disable()
        for batch in batches[:_WARM_UP_BATCHES]:
            self._subject.logits(batch)
        for batch in batches:
            began = time.perf_counter()
            self._subject.logits(batch)
            seconds.append(time.perf_counter() - began)
        gc.enable()
        return {"seconds": seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say.

    Not `getrusage`, whose maximum a process inherits from the one that started it.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            sizes = [line.split()[1] for line in stream if line.startswith("VmHWM:")]
    except OSError:
        return None
    return int(sizes[0]) * 1024 if sizes else None


def serve(worker: Worker) -> None:
    """Answer the commands of the socket that the command line names, until it is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        stream = connection.makefile("rwb")
        for line in stream:
            given = json.loads(line)
            stream.write(json.dumps(_answer(worker, given)).encode() + b"\n")
            stream.flush()


def _answer(worker: Worker, given: Mapping[str, Any]) -> dict[str, Any]:
    from monox_kit.errors import MonoxError

    try:
        answer: dict[str, Any] = getattr(worker, given["command"])(given)
    except MonoxError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return answer


def _documents(texts: Sequence[Sequence[str | None]]) -> list[Document]:
    from monox_kit.data import Document

    return [
        Document(row, str(row), text or "", text_pair)
        for row, (text, text_pair) in enumerate(texts)
    ]


if __name__ == "__main__":
    serve(Worker(FolderModel))
