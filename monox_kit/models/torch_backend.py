"""PyTorch sequence classifiers: loading, scoring, saving. The reference backend."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from monox_kit.data import LabelSet, Logits, TokenBatch
from monox_kit.durable import write_json
from monox_kit.errors import LabelMismatchError, ModelError, ProviderError
from monox_kit.models.blueprint import TRANSFORMERS_LOCK
from monox_kit.models.files import as_model_errors
from monox_kit.models.folder import ModelFolder, RunPrecision
from monox_kit.models.tokenizer import Tokenizer


class TorchClassifier:
    """A classifier that PyTorch runs; `logits` is what every other backend is compared with.

    Attributes:
        model: the transformers model, in evaluation mode.
        labels: what the columns of the logits mean.
        concurrency: one call of `logits` at a time: PyTorch's own threads fill the device.
    """

    concurrency = 1

    def __init__(
        self,
        model: torch.nn.Module,
        labels: LabelSet,
        *,
        device: str = "cpu",
        precision: RunPrecision = "fp32",
        compiled: bool = False,
    ) -> None:
        self.model = model.to(device).eval()
        self.labels = labels
        self._forward: Any = torch.compile(self.model, dynamic=True) if compiled else self.model
        self._device = device
        self._precision = precision

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch."""
        inputs = model_inputs(self.model, batch, self._device)
        with torch.inference_mode(), autocast(self._device, self._precision):
            logits: torch.Tensor = self._forward(**inputs).logits
        return logits.float().cpu().numpy()


def load_classifier(
    folder: ModelFolder,
    labels: LabelSet | None = None,
    *,
    device: str = "cpu",
    precision: RunPrecision = "fp32",
    compiled: bool = False,
    attention: str | None = None,
) -> TorchClassifier:
    """A fine-tuned model, ready to score.

    Args:
        folder: a folder with safetensors weights and a classification head.
        labels: names for the columns instead of the folder's own.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `bf16` runs matrix products under autocast; the logits stay float32.
        attention: transformers' implementation; None for the model's default.
        compiled: whether `torch.compile` turns the model into kernels on its first batch.

    Raises:
        ModelError: the folder holds no classifier, or its weights do not fit its configuration.
        ProviderError: the device is not there.
    """
    folder.require_backend("torch")
    names = folder.resolve_labels(labels)
    require_device(device)
    settings = {} if attention is None else {"attn_implementation": attention}
    model, missing = _from_pretrained(folder, settings)
    if missing:
        raise ModelError(
            f"{folder.path}: expected weights for every parameter, found none for "
            f"{', '.join(sorted(missing)[:4])}. Fine-tune the model first or restore the file."
        )
    return TorchClassifier(model, names, device=device, precision=precision, compiled=compiled)


def new_classifier(
    folder: ModelFolder, labels: LabelSet, seed: int, *, new_head: bool = False
) -> Any:
    """A pretrained encoder with a fresh classification head, in float32 on the CPU.

    A head that the folder already has is kept when it has the same label names in the same order.

    Args:
        folder: a folder with safetensors weights.
        labels: the classes of the head.
        seed: initializes the head; equal seeds give equal heads.
        new_head: whether a head that the folder has is left out, whatever its labels.

    Raises:
        ModelError: encoder weights are missing.
        LabelMismatchError: the folder holds a head for other labels, and no new one was asked for.
    """
    folder.require_backend("torch")
    has_old_head = new_head and folder.has_head
    if folder.has_head and not new_head:
        _require_same_head(folder, labels)
    names = dict(enumerate(labels.names))
    settings = {
        "num_labels": len(labels),
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": labels.problem_type,
    }
    if has_old_head:
        settings["ignore_mismatched_sizes"] = True
    torch.manual_seed(seed)
    model, missing = _from_pretrained(folder, settings)
    prefix = f"{model.base_model_prefix}."
    lost = [key for key in missing if key.startswith(prefix) and ".pooler." not in key]
    if lost:
        raise ModelError(
            f"{folder.path}: expected weights of the whole encoder, found none for "
            f"{', '.join(sorted(lost)[:4])}. The weights belong to another architecture."
        )
    if has_old_head:
        _renew_head(model, folder, seed)
    return model


def load_encoder(folder: ModelFolder) -> tuple[Any, frozenset[str]]:
    """A pretrained model without a head, in float32 on the CPU, and what it has no weights for.

    Returns:
        The model in evaluation mode, and the names of the parameters that are new.

    Raises:
        ModelError: the folder's weights do not fit its configuration.
    """
    folder.require_backend("torch")
    model, missing = _from_pretrained(folder, {}, headless=True)
    return model, frozenset(missing)


def _require_same_head(folder: ModelFolder, labels: LabelSet) -> None:
    """Check that the folder's head is for the labels."""
    try:
        folder.labels.require_equal(labels, folder.name, "the training data")
    except LabelMismatchError as error:
        raise LabelMismatchError(
            f"{error} To train the encoder for these labels, leave the model's head out with "
            "`new_head`."
        ) from error


def _renew_head(model: Any, folder: ModelFolder, seed: int) -> None:
    """Put fresh parameters in the place of all that are not the encoder's."""
    names = folder.blueprint.head
    if not names:
        raise ModelError(
            f"{folder.path}: its head cannot be told from its encoder, so that it cannot be "
            "renewed. Give the encoder that it was fine-tuned from."
        )
    torch.manual_seed(seed)
    fresh = type(model)(model.config).state_dict()
    model.load_state_dict({name: fresh[name] for name in names}, strict=False)


def save_classifier(
    model: Any, tokenizer: Tokenizer, folder: Path, *, without: Collection[str] = ()
) -> None:
    """Write the files of a PyTorch bundle into a folder under construction, all but its record.

    They load in transformers from 4.57 on, with the same ids and logits.

    Args:
        model: of transformers.
        tokenizer: with the cut that is written down.
        folder: where to.
        without: names of parameters that are left out.
    """
    kept = {name: value for name, value in model.state_dict().items() if name not in without}
    with _quiet():
        model.save_pretrained(
            str(folder), safe_serialization=True, state_dict=kept if without else None
        )
    _write_older_names(folder / "config.json")
    tokenizer.save(folder, inspect.signature(model.forward).parameters.keys())


def _write_older_names(path: Path) -> None:
    """Add what transformers 4 calls the bases of rotary positions, which 5 alone keeps in a group.

    4.57 passes over the group without a word and takes its defaults. Source: `rope_parameters` in
    transformers 5's configuration_modernbert.py and modeling_rope_utils.py.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    groups = config.get("rope_parameters") or {}
    older = {
        "rope_theta": groups,
        "global_rope_theta": groups.get("full_attention"),
        "local_rope_theta": groups.get("sliding_attention"),
    }
    added = {
        name: group["rope_theta"]
        for name, group in older.items()
        if isinstance(group, dict) and "rope_theta" in group
    }
    if added:
        write_json(path, {**config, **added})


def model_inputs(model: Any, batch: TokenBatch, device: str) -> dict[str, torch.Tensor]:
    """What a transformers model takes of the batch, as keyword arguments, [B, L] int64 each.

    The model decides: DistilBERT takes no segment ids, whatever its tokenizer makes, FNet no mask.
    """
    taken = _parameters_of(type(model))  # type: ignore[arg-type]  # classes are hashable
    arrays = batch.arrays
    return {name: torch.from_numpy(arrays[name]).to(device) for name in arrays if name in taken}


@cache
def _parameters_of(model: type) -> frozenset[str]:
    """The names that the class's `forward` declares."""
    return frozenset(signature(model.forward).parameters)  # type: ignore[attr-defined]


def autocast(device: str, precision: str) -> torch.autocast:
    """The mixed-precision context of `precision` on `device`; off for fp32."""
    kind = device.partition(":")[0]
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def require_device(device: str) -> None:
    """Check that PyTorch has the device.

    Raises:
        ProviderError: it has not.
    """
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    asked = re.fullmatch(r"cuda(?::(\d+))?", device)
    if asked is None or int(asked[1] or 0) >= count:
        raise ProviderError(
            f"`device` {device}: expected a device of this machine, found cpu and {count} CUDA "
            "devices. Give `device` cpu, or install a CUDA build of torch."
        )


def fast_bf16(device: str) -> bool:
    """Whether bfloat16 products run in hardware on `device`."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _from_pretrained(
    folder: ModelFolder, settings: dict[str, Any], *, headless: bool = False
) -> tuple[Any, set[str]]:
    """The model and the names of the parameters that the folder has no weights for.

    Raises:
        ModelError: transformers cannot load it, or a weight is not finite.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    maker: Any = AutoModel if headless else AutoModelForSequenceClassification
    _ = folder.blueprint  # what transformers would be asked for is checked before it is
    expected, step = "a model that transformers loads", "Check config.json and the weights."
    with (
        TRANSFORMERS_LOCK,
        _quiet(),
        folder.torch_view() as view,
        as_model_errors(folder.path, expected, step, view),
    ):
        model, info = maker.from_pretrained(
            str(view),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **settings,
        )
    model.config.name_or_path = str(folder.path)
    _require_finite(model, folder)
    return model, set(info["missing_keys"])


def _require_finite(model: Any, folder: ModelFolder) -> None:
    """Check that no weight is NaN or an infinity."""
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        # A sum is ten times as fast as looking at each; one that overflows is looked into.
        if not bool(torch.isfinite(values.sum()) or torch.isfinite(values).all()):
            found = values[~torch.isfinite(values)][0].item()
            raise ModelError(
                f"{folder.path}: the weights are damaged: {name} holds {found}. Train or "
                "download the model again."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' own bars and its advice about new heads, which we check ourselves."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
