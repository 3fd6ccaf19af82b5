"""Model folders opened on a backend, ready to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monox_kit.data import Classifier, LabelSet
from monox_kit.errors import ConfigError, ModelError, NotFinite
from monox_kit.models.batching import pad_batch
from monox_kit.models.folder import (
    FP32,
    ONNX_FILE,
    RECORD_FILE,
    Backend,
    ModelFolder,
    RunPrecision,
    open_folder,
)
from monox_kit.models.long_texts import Long
from monox_kit.models.padding import EqualLengths, padding_changes
from monox_kit.models.scoring import checked_logits
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.progress import Progress

if TYPE_CHECKING:
    from monox_kit.models.golden_file import Machine
    from monox_kit.models.graph_classifier import SessionPlan
    from monox_kit.models.self_test import SelfTest

# What an ONNX bundle's checks say of padding.
EQUAL_LENGTHS = "needs_equal_lengths"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A classifier with the tokenizer and the folder that belong to it."""

    folder: ModelFolder
    backend: Backend
    tokenizer: Tokenizer
    classifier: Classifier


class OpenModel:
    """A model folder, opened and checked for use: the one door for commands, workers and processes.

    What can be told without weights is checked at once; the rest when the first graph is loaded.

    Attributes:
        folder: the model's folder.
        backend: which runtime.
        tokenizer: with the run's cut.
    """

    def __init__(
        self,
        folder: ModelFolder,
        backend: Backend,
        max_length: int | None = None,
        *,
        long: Long | None = None,
        provider: str = "cpu",
        device: str = "cpu",
    ) -> None:
        """Open the tokenizer.

        Args:
            folder: an open model folder.
            backend: which runtime.
            max_length: the cut in tokens; None takes the bundle's own, else 256.
            long: what is read of longer texts; None takes the bundle's own, else the head.
            provider: what runs graphs, one of `providers.PROVIDERS`.
            device: PyTorch's device.

        Raises:
            ModelError: the tokenizer is not usable, or does not fit the model's embedding.
        """
        self.folder, self.backend = folder, backend
        self._provider, self._device = provider, device
        self.tokenizer = open_tokenizer(folder, max_length, long)
        self._needs_equal_lengths: bool | None = None

    def classifier(
        self,
        labels: LabelSet | None = None,
        *,
        plan: SessionPlan | None = None,
        file: str = ONNX_FILE,
        precision: RunPrecision | None = None,
        compiled: bool = False,
    ) -> Classifier:
        """One of the folder's graphs, or PyTorch's model; see `load_backend`.

        A model whose logits padding would change is run on texts of one length at a time.

        Raises:
            ModelError: the folder cannot be used on this backend, or the model cannot score.
        """
        loaded = load_backend(
            self.folder,
            self.backend,
            labels,
            provider=self._provider,
            plan=plan,
            file=file,
            device=self._device,
            precision=precision,
            compiled=compiled,
        )
        if self._needs_equal_lengths is None:
            require_length(self.folder, self.backend, loaded, self.tokenizer)
            record = self.folder.record
            is_fp32 = precision in (None, FP32) and (record is None or record.precision == FP32)
            self._needs_equal_lengths = needs_equal_lengths(
                self.folder, loaded, self.tokenizer, is_fp32=is_fp32
            )
        return EqualLengths(loaded) if self._needs_equal_lengths else loaded

    def tested(
        self, labels: LabelSet | None = None, *, plan: SessionPlan | None = None
    ) -> tuple[Classifier | None, SelfTest]:
        """The classifier and the result of its self test; None where no session was worth making.

        Digests and ids are compared before weights are loaded. For the arguments see `classifier`.

        Raises:
            ModelError: a file is not as it was recorded, or the model cannot score.
        """
        from monox_kit.models.self_test import SelfTest, compare_ids, compare_logits, read_golden

        name, golden = self.folder.name, read_golden(self.folder)
        if golden is None:
            return None, SelfTest(bundle=name, verdict="none")
        failed = compare_ids(name, golden, self.tokenizer)
        if failed is not None:
            return None, failed
        classifier = self.classifier(labels, plan=plan)
        here = machine_of(self.backend, self._provider)
        return classifier, compare_logits(name, golden, self.tokenizer, classifier, here)


def open_tokenizer(
    folder: ModelFolder, max_length: int | None = None, long: Long | None = None
) -> Tokenizer:
    """A folder's tokenizer, whose every id the model has an embedding for.

    Args:
        folder: an open model folder.
        max_length: the cut in tokens; None takes the bundle's own, else 256.
        long: what is read of longer texts; None takes the bundle's own, else the head.

    Raises:
        ModelError: it is not usable, has ids beyond the embedding, or changed since the folder was
            opened.
    """
    cut = folder.resolve_max_length(max_length), folder.resolve_long(long)
    tokenizer = Tokenizer(folder.path, *cut)
    for file in folder.files.values():
        file.require_unchanged()  # what was read is what `tokenizer_digest` is of
    _require_sides(folder, tokenizer)
    rows = folder.config.get("vocab_size")
    if isinstance(rows, int) and tokenizer.num_ids > rows:
        raise ModelError(
            f"{folder.path}: the tokenizer gives ids up to {tokenizer.num_ids - 1}, the model's "
            f"embedding has {rows} rows (vocab_size in config.json). Resize the embedding to the "
            "tokenizer and save the model again, or restore the tokenizer that belongs to it."
        )
    return tokenizer


def _require_sides(folder: ModelFolder, tokenizer: Tokenizer) -> None:
    """Check that texts lose tokens, and batches are filled, on the sides that the record names."""
    record = folder.record
    if record is None:
        return
    for name, recorded, found in (
        ("padding_side", record.padding_side, tokenizer.padding.side),
        ("truncation_side", record.truncation_side, tokenizer.truncation_side),
    ):
        if recorded not in (None, found):
            raise ModelError(
                f"{folder.path}: {RECORD_FILE} has {name} {recorded}, the tokenizer's files say "
                f"{found}. Restore the files, or export the model again."
            )


def require_length(
    folder: ModelFolder, backend: Backend, classifier: Classifier, tokenizer: Tokenizer
) -> None:
    """Check that an ONNX graph takes texts as long as the cut, where no record says that it does.

    How many positions a graph has stands nowhere: one text of that length is scored.

    Raises:
        ConfigError: it takes only shorter ones.
    """
    longest = tokenizer.max_length
    if backend == "torch" or (folder.record is not None and longest <= folder.record.max_length):
        return
    encoded = tokenizer.encode(["a " * longest])
    rows = np.zeros(1, np.int64)
    try:
        checked_logits(classifier, pad_batch(encoded, rows, tokenizer.padding), rows)
    except ModelError as error:
        raise ConfigError(
            f"`max_length`: {folder.name} cannot score a text of {longest} tokens. {error} "
            "Give a smaller `max_length` or a model with more positions."
        ) from error


def needs_equal_lengths(
    folder: ModelFolder, classifier: Classifier, tokenizer: Tokenizer, *, is_fp32: bool
) -> bool:
    """Whether a model must be run on texts of one length at a time, since padding changes logits.

    What the export found out with PyTorch stands in an ONNX bundle; other models are tried.

    Raises:
        NotFinite: the model's logits are not.
        ModelError: the model cannot score golden texts.
    """
    try:
        found = padding_changes(classifier, tokenizer, is_fp32=is_fp32)
    except NotFinite:
        raise
    except ModelError as error:
        raise ModelError(
            f"{folder.path}: the model cannot score a few golden texts with ids up to "
            f"{tokenizer.num_ids - 1}. {error}"
        ) from error
    record = folder.record
    if record is not None and record.backend == "onnx" and EQUAL_LENGTHS in record.checks:
        return bool(record.checks[EQUAL_LENGTHS])
    return found


def load_model(
    reference: str,
    *,
    backend: Backend | None = None,
    max_length: int | None = None,
    long: Long | None = None,
    labels: LabelSet | None = None,
    label_names: Sequence[str] = (),
    provider: str = "cpu",
    device: str = "cpu",
    check: bool = False,
    progress: Progress | None = None,
) -> LoadedModel:
    """Open a model folder on a backend.

    Args:
        reference: a local folder, `packaged:NAME` or a hub name.
        backend: None takes what the folder is made for.
        max_length: the cut in tokens; None takes the bundle's own, else 256.
        long: what is read of longer texts; None takes the bundle's own, else the head.
        labels: names for the logits' columns instead of the folder's own.
        label_names: names for its classes where it has none; see `ModelFolder.named`.
        provider: what runs graphs, one of `providers.PROVIDERS`.
        device: PyTorch's device.
        check: whether to run the folder's self test.
        progress: where a download is reported.

    Raises:
        ModelError: the folder cannot be used on this backend, or its self test fails.
        ProviderError: provider or device is not there.
    """
    folder = open_folder(reference, progress).named(label_names)
    chosen = backend or folder.backend
    require_runnable(chosen, provider, device)
    opened = OpenModel(folder, chosen, max_length, long=long, provider=provider, device=device)
    if not check:
        return LoadedModel(folder, chosen, opened.tokenizer, opened.classifier(labels))
    classifier, result = opened.tested(labels)
    result.require_passed()
    assert classifier is not None  # what passed was scored
    return LoadedModel(folder, chosen, opened.tokenizer, classifier)


def examine(reference: str, *, provider: str = "cpu", progress: Progress | None = None) -> SelfTest:
    """The result of a folder's self test.

    Args:
        reference: a local folder or a hub name.
        provider: what runs graphs, one of `providers.PROVIDERS`.
        progress: where a download is reported.

    Raises:
        ModelError: the folder cannot be used, or a file is not as it was recorded.
        ProviderError: the provider is not there.
    """
    folder = open_folder(reference, progress)
    require_runnable(folder.backend, provider, "cpu")
    return OpenModel(folder, folder.backend, provider=provider).tested()[1]


def load_backend(
    folder: ModelFolder,
    backend: Backend,
    labels: LabelSet | None = None,
    *,
    provider: str = "cpu",
    plan: SessionPlan | None = None,
    file: str = ONNX_FILE,
    device: str = "cpu",
    precision: RunPrecision | None = None,
    compiled: bool = False,
) -> Classifier:
    """The classifier of an open folder; a backend is added here, a graph runtime in `providers`.

    Args:
        folder: an open model folder.
        backend: which runtime.
        labels: names for the logits' columns instead of the folder's own.
        provider: what runs graphs, one of `providers.PROVIDERS`.
        plan: how a graph's runtime shares the cores; None for one batch on all of them.
        file: the graph's name in the folder.
        device: PyTorch's device.
        precision: `fp32` or `bf16`; None for what the bundle was exported in, PyTorch's is fp32.
        compiled: whether PyTorch compiles the model.

    Raises:
        ModelError: the folder cannot be used on this backend.
        ProviderError: provider or device is not there, or computes in no such precision.
    """
    if backend == "onnx":
        from monox_kit.models.providers import open_graph

        return open_graph(
            folder, labels, provider=provider, plan=plan, file=file, precision=precision
        )
    from monox_kit.models.torch_backend import load_classifier

    return load_classifier(
        folder, labels, device=device, precision=precision or FP32, compiled=compiled
    )


def machine_of(backend: Backend, provider: str | None = None) -> Machine:
    """This machine under a backend's runtime."""
    from monox_kit.models.golden_file import Machine

    if backend == "onnx":
        from monox_kit.models.providers import runtime_version

        return Machine.here(runtime_version(provider or "cpu"), provider)
    import torch

    return Machine.here(f"torch {torch.__version__}")


def require_runnable(backend: Backend, provider: str, device: str) -> None:
    """Check cheaply, before any work, that the backend can run where it was asked to.

    Raises:
        ConfigError: the option of the other backend was given, which would change nothing.
        ProviderError: runtime, provider or device is not there.
    """
    if backend == "onnx" and device != "cpu":
        raise ConfigError(
            f"`device` {device}: it is for PyTorch models, and this is an ONNX bundle. Give "
            "`provider` instead."
        )
    if backend == "torch" and provider != "cpu":
        raise ConfigError(
            f"`provider` {provider}: it is for ONNX bundles, and this is a PyTorch model. Give "
            "`device` instead, or export the model."
        )
    if backend == "onnx":
        from monox_kit.models.providers import require_provider

        require_provider(provider)
    else:
        from monox_kit.models.torch_backend import require_device

        require_device(device)
