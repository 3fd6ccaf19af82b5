"""Where graphs are run: ONNX Runtime's execution providers, and OpenVINO by its own runtime."""

from __future__ import annotations

from monox_kit.data import Classifier, LabelSet
from monox_kit.extras import is_installed
from monox_kit.models import onnx_backend, openvino_backend
from monox_kit.models.folder import ONNX_FILE, ModelFolder, RunPrecision
from monox_kit.models.graph_classifier import OPENVINO, OPENVINO_EP, SessionPlan

# By the names that users give; in the order in which `auto` tries them.
PROVIDERS = ("cpu", "cuda", "tensorrt", OPENVINO, OPENVINO_EP)


def open_graph(
    folder: ModelFolder,
    labels: LabelSet | None = None,
    *,
    provider: str = "cpu",
    plan: SessionPlan | None = None,
    file: str = ONNX_FILE,
    precision: RunPrecision | None = None,
    keep: bool = True,
) -> Classifier:
    """A classifier over one of a bundle's graphs.

    Args:
        folder: an ONNX bundle.
        labels: names for the columns instead of the folder's own.
        provider: one of `PROVIDERS`.
        plan: batches at once and threads of each; None for one batch on all cores.
        file: the graph's name in the folder.
        precision: what its float32 weights are multiplied in; None for what the folder was
            exported in.
        keep: whether what a runtime compiles may be kept in the cache.

    Raises:
        ProviderError: the provider is not installed, or does not compute in bf16.
        ModelError: the graph cannot be loaded or does not score the folder's labels.
    """
    if provider == OPENVINO:
        return openvino_backend.OpenVinoClassifier(
            folder, labels, plan=plan, file=file, precision=precision, keep=keep
        )
    return onnx_backend.OnnxClassifier(
        folder, labels, provider=provider, plan=plan, file=file, precision=precision
    )


def installed_providers() -> list[str]:
    """Those of `PROVIDERS` that are installed here, in their order.

    Raises:
        ProviderError: none is.
    """
    found = [OPENVINO] if is_installed("openvino") else []
    if is_installed("onnxruntime") or not found:
        found += onnx_backend.installed_execution_providers()
    return [provider for provider in PROVIDERS if provider in found]


def require_provider(provider: str) -> None:
    """Check that a provider is installed.

    Raises:
        ProviderError: it is not, or there is none of that name.
    """
    if provider == OPENVINO:
        openvino_backend.require_openvino()
    else:
        onnx_backend.require_execution_provider(provider)


def runtime_version(provider: str) -> str:
    """What runs graphs on a provider, such as `onnxruntime 1.32.0`.

    Raises:
        ProviderError: it is not installed.
    """
    if provider == OPENVINO:
        return openvino_backend.runtime_version()
    return onnx_backend.runtime_version()


def installed_like(provider: str) -> str:
    """The provider that a record names, or OpenVINO the other way where that alone is installed.

    Records of 0.1.0 say `openvino` of ONNX Runtime's provider, which is `openvino-ep` today.

    Raises:
        ProviderError: a distribution of onnxruntime stands over another.
    """
    other = {OPENVINO: OPENVINO_EP, OPENVINO_EP: OPENVINO}.get(provider)
    if other is not None:
        installed = installed_providers()
        if provider not in installed and other in installed:
            return other
    return provider


def recorded(provider: str) -> str:
    """The name under which a store says what computed its logits: OpenVINO's two ways are one.

    Stores of 0.1.0 were made by ONNX Runtime's provider and say `openvino`: either goes on with
    them. The logits of both differ as those of two versions of one runtime do.
    """
    return OPENVINO if provider == OPENVINO_EP else provider
