"""Model folders opened on a backend, ready to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monox_kit.data import Classifier, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.models.folder import FP32, ONNX_FILE, Backend, ModelFolder, RunPrecision, open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.progress import Progress

if TYPE_CHECKING:
    from monox_kit.models.onnx_backend import SessionPlan


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A classifier with the tokenizer and the folder that belong to it."""

    folder: ModelFolder
    backend: Backend
    tokenizer: Tokenizer
    classifier: Classifier


def load_model(
    reference: str,
    *,
    backend: Backend | None = None,
    max_length: int | None = None,
    labels: LabelSet | None = None,
    label_names: Sequence[str] = (),
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
        label_names: names for its classes where it has none; see `ModelFolder.named`.
        provider: ONNX Runtime's execution provider, one of `onnx_backend.PROVIDERS`.
        device: PyTorch's device.
        progress: where a download is reported.

    Raises:
        ModelError: the folder cannot be used on this backend.
        ProviderError: provider or device is not there.
    """
    folder = open_folder(reference, progress).named(label_names)
    chosen = backend or folder.backend
    require_runnable(chosen, provider, device)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(max_length))
    return LoadedModel(
        folder,
        chosen,
        tokenizer,
        load_backend(folder, chosen, labels, provider=provider, device=device),
    )


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
    """The classifier of an open folder; a new backend is added here.

    Args:
        folder: an open model folder.
        backend: which runtime.
        labels: names for the logits' columns instead of the folder's own.
        provider: ONNX Runtime's execution provider.
        plan: how ONNX Runtime shares the cores; None for one batch on all of them.
        file: the name of ONNX Runtime's graph in the folder.
        device: PyTorch's device.
        precision: `fp32` or `bf16`; None for what the bundle was exported in, PyTorch's is fp32.
        compiled: whether PyTorch compiles the model.

    Raises:
        ModelError: the folder cannot be used on this backend.
        ProviderError: provider or device is not there, or computes in no such precision.
    """
    if backend == "onnx":
        from monox_kit.models.onnx_backend import OnnxClassifier

        return OnnxClassifier(
            folder, labels, provider=provider, plan=plan, file=file, precision=precision
        )
    from monox_kit.models.torch_backend import load_classifier

    return load_classifier(
        folder, labels, device=device, precision=precision or FP32, compiled=compiled
    )


def require_runnable(backend: Backend, provider: str, device: str) -> None:
    """Check cheaply, before any work, that the backend can run where it was asked to.

    Raises:
        ConfigError: the option of the other backend was given, which would change nothing.
        ProviderError: runtime, provider or device is not there.
    """
    if backend == "onnx" and device != "cpu":
        raise ConfigError(
            f"--device {device}: it is for PyTorch models, and this is an ONNX bundle. Give "
            "--provider instead."
        )
    if backend == "torch" and provider != "cpu":
        raise ConfigError(
            f"--provider {provider}: it is for ONNX bundles, and this is a PyTorch model. Give "
            "--device instead, or export the model."
        )
    if backend == "onnx":
        from monox_kit.models.onnx_backend import require_provider

        require_provider(provider)
    else:
        from monox_kit.models.torch_backend import require_device

        require_device(device)
