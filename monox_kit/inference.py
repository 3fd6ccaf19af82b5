"""Logits for documents, in order, from any backend: what labelling, evaluation and checks share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monox_kit.batching import pad_batch, plan_batches
from monox_kit.bundle import Backend, ModelFolder, open_folder
from monox_kit.data import Classifier, Document, LabelSet, Logits
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress, ProgressTask, SilentTask
from monox_kit.tokenizing import Tokenizer

# Padded tokens per batch. On CPUs larger batches leave the cache and run slower, see
# benchmarks/LOG.md; a GPU wants 16 times as many.
DEFAULT_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A classifier with the tokenizer and the folder that belong to it."""

    folder: ModelFolder
    backend: Backend
    tokenizer: Tokenizer
    classifier: Classifier


@dataclass(frozen=True, slots=True)
class Scored:
    """What a pass over N documents gave.

    Attributes:
        logits: [N, C] float32, in the order of the documents.
        num_tokens: real tokens that went through the model.
        num_padded_tokens: the same with padding.
    """

    logits: Logits
    num_tokens: int
    num_padded_tokens: int


def load_model(
    reference: str,
    *,
    backend: Backend | None = None,
    max_length: int | None = None,
    labels: LabelSet | None = None,
    provider: str = "cpu",
    device: str = "cpu",
    progress: Progress | None = None,
) -> LoadedModel:
    """Open a model folder on a backend.

    Args:
        reference: a local folder, `packaged:NAME` or a hub name.
        backend: None takes what the folder is made for.
        max_length: the cut in tokens; None takes the bundle's own, else 256.
        labels: names for the logits' columns instead of the folder's own.
        provider: ONNX Runtime's execution provider, one of `onnx_model.PROVIDERS`.
        device: PyTorch's device.
        progress: where a download is reported.

    Raises:
        ModelError: the folder cannot be used on this backend.
        ProviderError: provider or device is not there.
    """
    folder = open_folder(reference, progress)
    chosen = backend or folder.backend
    require_runnable(chosen, provider, device)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(max_length))
    return LoadedModel(
        folder, chosen, tokenizer, load_backend(folder, chosen, labels, provider, device)
    )


def load_backend(
    folder: ModelFolder,
    backend: Backend,
    labels: LabelSet | None = None,
    provider: str = "cpu",
    device: str = "cpu",
) -> Classifier:
    """The classifier of an open folder; a new backend is added here.

    Raises:
        ModelError: the folder cannot be used on this backend.
        ProviderError: provider or device is not there.
    """
    if backend == "onnx":
        from monox_kit.onnx_model import OnnxClassifier

        return OnnxClassifier(folder, labels, provider=provider)
    from monox_kit.torch_model import load_classifier

    return load_classifier(folder, labels, device=device)


def require_runnable(backend: Backend, provider: str, device: str) -> None:
    """Check cheaply, before any work, that the backend can run where it was asked to.

    Raises:
        ConfigError: the option of the other backend was given, which would change nothing.
        ProviderError: runtime, provider or device is not there.
    """
    if backend == "onnx" and device != "cpu":
        raise ConfigError(
            f"--device {device}: expected with a PyTorch model only, found an ONNX bundle. "
            "Give --provider instead."
        )
    if backend == "torch" and provider != "cpu":
        raise ConfigError(
            f"--provider {provider}: expected with an ONNX bundle only, found a PyTorch model. "
            "Give --device instead, or export the model."
        )
    if backend == "onnx":
        from monox_kit.onnx_model import require_provider

        require_provider(provider)
    else:
        from monox_kit.torch_model import require_device

        require_device(device)


def score(
    classifier: Classifier,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    task: ProgressTask | None = None,
) -> Scored:
    """Logits of N documents, computed in batches of similar length and returned in order.

    Args:
        classifier: either backend.
        tokenizer: the one that belongs to the classifier.
        documents: all single texts or all pairs.
        batch_tokens: padded tokens per batch.
        task: advanced by one per document.

    Raises:
        CorpusError: single texts and pairs are mixed.
    """
    task = task or SilentTask()
    pairs = [document.text_pair for document in documents if document.text_pair is not None]
    if pairs and len(pairs) != len(documents):
        raise CorpusError(
            f"{len(documents)} documents: expected all or none to be text pairs, found "
            f"{len(pairs)} pairs. Keep single texts and pairs in separate runs."
        )
    encoded = tokenizer.encode([d.text for d in documents], pairs or None)
    logits = np.empty((len(documents), len(classifier.labels)), np.float32)
    num_padded = 0
    for rows in plan_batches(encoded.lengths, batch_tokens):
        batch = pad_batch(encoded, rows, tokenizer.pad_id)
        logits[rows] = classifier.logits(batch)
        num_padded += batch.input_ids.size
        task.advance(len(rows))
    return Scored(logits, int(encoded.lengths.sum()), num_padded)


def race(
    classifiers: Mapping[str, Classifier],
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    rounds: int = 3,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> dict[str, float]:
    """Median seconds that each classifier takes for all documents, in alternating rounds."""
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    for _ in range(rounds):
        for name, classifier in classifiers.items():
            started = time.perf_counter()
            score(classifier, tokenizer, documents, batch_tokens=batch_tokens)
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}
