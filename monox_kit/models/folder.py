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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from monox_kit.data import PROBLEM_TYPES, SINGLE_LABEL, LabelSet
from monox_kit.digest import digest_files
from monox_kit.durable import write_file, write_json
from monox_kit.errors import ConfigError, CorpusError, ModelError, first_line
from monox_kit.packaged import packaged_folder
from monox_kit.progress import Progress, Silent

RECORD_FILE = "monoxkit.json"
CARD_FILE = "README.md"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
ONNX_FILE = "model.onnx"
ONNX_DATA_FILE = "model.onnx.data"
FP32_FILE = "model.fp32.onnx"
FP32_DATA_FILE = "model.fp32.onnx.data"
PACKAGED_SCHEME = "packaged:"
FORMAT_VERSION = 1
DEFAULT_MAX_LENGTH = 256  # the MonoX paper's cut

Backend = Literal["torch", "onnx"]
# What a runtime multiplies float32 weights in.
RunPrecision = Literal["fp32", "bf16"]
FP32: Literal["fp32"] = "fp32"
BF16: Literal["bf16"] = "bf16"

# What a tokenizer may consist of, across the families that transformers loads.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
_HUB_PATTERNS = [*_TOKENIZER_FILES, "config.json", "*.safetensors", WEIGHTS_INDEX_FILE]
_HUB_PATTERNS += [RECORD_FILE, ONNX_FILE, ONNX_DATA_FILE, FP32_FILE, FP32_DATA_FILE]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleRecord:
    """The content of `monoxkit.json`.

    Attributes:
        labels: the classes in the order of the logits.
        max_length: tokens per text that the model was trained or exported with.
        backend: which runtime opens the bundle.
        precision: `fp32`, `bf16` where it was trained so, or a name of `export --precision`.
        has_pairs: whether the model was trained on text pairs; None where that is not known.
        provenance: what the bundle was made from: digests, configuration, versions.
        checks: what was measured before the bundle was released.
    """

    labels: LabelSet
    max_length: int
    backend: Backend
    precision: str
    has_pairs: bool | None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            **asdict(self),
            "labels": self.labels.to_json(),
        }

    @classmethod
    def read(cls, path: Path) -> BundleRecord:
        """The record in a `monoxkit.json`.

        Raises:
            ModelError: the file is not valid JSON, of another version, or lacks a field.
        """
        value = _read_json(path)
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path}: expected format_version {FORMAT_VERSION}, found {version!r}. "
                "Export the model again with this version of monoxkit."
            )
        try:
            return cls(
                labels=LabelSet.from_json(value["labels"], str(path)),
                max_length=int(value["max_length"]),
                backend=value["backend"],
                precision=str(value["precision"]),
                has_pairs=value["has_pairs"],
                provenance=value.get("provenance", {}),
                checks=value.get("checks", {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path}: expected labels, max_length, backend, precision and has_pairs, found: "
                f"{error!r}. Export the model again."
            ) from error


@dataclass(frozen=True)
class ModelFolder:
    """A model folder on disk and what it declares; no weights are loaded.

    Attributes:
        path: the folder.
        name: how the user referred to it, for records and messages.
        config: the parsed `config.json`.
        record: monoxkit's own record; None for folders of other tools.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    record: BundleRecord | None

    @property
    def backend(self) -> Backend:
        """Which runtime the folder is for; a folder with both is a PyTorch one."""
        return "torch" if self._weight_files("torch") else "onnx"

    @property
    def labels(self) -> LabelSet:
        """The classes that the model scores.

        Raises:
            ModelError: the folder holds an encoder without a classification head, or a model
                whose logits are not those of classes.
        """
        self.require_classifier()
        if self.record is not None:
            return self.record.labels
        problem_type = self.config.get("problem_type") or SINGLE_LABEL
        if problem_type not in PROBLEM_TYPES:
            raise ModelError(
                f"{self.path}/config.json: expected problem_type {' or '.join(PROBLEM_TYPES)}, "
                f"found {problem_type!r}. Regression is not supported: give a classifier."
            )
        id2label = self.config.get("id2label") or {}
        if len(id2label) < 2:
            raise ModelError(
                f"{self.path}/config.json: expected id2label with at least 2 labels, found "
                f"{len(id2label)}. Fine-tune the model first: monoxkit train-teacher."
            )
        names = tuple(id2label[key] for key in sorted(id2label, key=int))
        return LabelSet(names, str(problem_type))

    def resolve_labels(self, given: LabelSet | None) -> LabelSet:
        """The names of the logits' columns: the model's own, or `given` where it has none.

        A model has no names of its own where they are the placeholders LABEL_0, LABEL_1, ...; and
        no problem type of its own where config.json says none.

        Raises:
            LabelMismatchError: `given` differs from the model's own, in number or in names.
        """
        own = self.labels
        if given is None:
            return own
        if self.record is None and not self.config.get("problem_type"):
            own = replace(own, problem_type=given.problem_type)
        placeholders = tuple(f"LABEL_{index}" for index in range(len(own)))
        is_named = own.names != placeholders or own.problem_type != given.problem_type
        if is_named or len(given) != len(own):
            given.require_equal(own, "--labels", self.name)
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
            f"{kinds[has_pairs]}. Check --pair-column."
        )

    @property
    def max_positions(self) -> int | None:
        """The longest input in tokens that the position embeddings allow; None where unlimited."""
        positions = self.config.get("max_position_embeddings")
        if not isinstance(positions, int) or positions <= 0:
            return None
        # RoBERTa's and MPNet's families number positions from the padding index + 1.
        offset_families = ("roberta", "xlm-roberta", "camembert", "mpnet")
        if self.config.get("model_type") in offset_families:
            return positions - int(self.config.get("pad_token_id") or 1) - 1
        return positions

    @property
    def run_precision(self) -> RunPrecision:
        """What ONNX Runtime multiplies the graph's float32 weights in, as it was exported."""
        record = self.record
        # A PyTorch folder's bf16 is what it was trained in.
        is_bf16 = record is not None and record.backend == "onnx" and record.precision == BF16
        return BF16 if is_bf16 else FP32

    @cached_property
    def model_digest(self) -> str:
        """A digest over the configuration and the weights."""
        return digest_files(self.path, ["config.json", *self._weight_files(self.backend)])

    @cached_property
    def tokenizer_digest(self) -> str:
        """A digest over every tokenizer file."""
        names = [name for name in _TOKENIZER_FILES if (self.path / name).is_file()]
        return digest_files(self.path, names)

    def require_classifier(self) -> None:
        """Check that the folder holds a fine-tuned classifier.

        Raises:
            ModelError: it holds something else, such as a bare encoder.
        """
        architectures = self.config.get("architectures") or []
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            raise ModelError(
                f"{self.path}: expected a fine-tuned classifier "
                f"(...ForSequenceClassification), found {architectures}. "
                "Fine-tune it first: monoxkit train-teacher or monoxkit train-student."
            )

    def require_backend(self, backend: Backend) -> None:
        """Check that the folder has what `backend` loads.

        Raises:
            ModelError: it has not; the message names the command that makes it.
        """
        if self._weight_files(backend):
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
        names = [self.reference_file, f"{self.reference_file}.data"]
        return digest_files(self.path, [name for name in names if (self.path / name).is_file()])

    def require_reference(self) -> None:
        """Check that the bundle holds the fp32 graph that a fidelity guard computes with.

        Raises:
            ConfigError: the bundle is in fp32 itself, or was exported without it.
        """
        if (self.path / self.reference_file).is_file():
            return
        if self.record is not None and self.record.precision == FP32:
            raise ConfigError(
                f"--guard: expected a bundle in a reduced precision, found {self.name} in fp32, "
                "which needs no guard. Leave --guard out."
            )
        raise ConfigError(
            f"--guard: expected {FP32_FILE} in {self.path}, found none. Export the model again "
            "without --drop-fp32."
        )

    def resolve_max_length(self, asked: int | None) -> int:
        """The length in tokens to cut texts at: what was asked, else the record's, else 256.

        Raises:
            ConfigError: `asked` is more than the model has positions for.
        """
        limit = self.max_positions
        if asked is not None and limit is not None and asked > limit:
            raise ConfigError(
                f"--max-length: expected at most {limit} tokens for {self.name}, found {asked}. "
                "Give a smaller --max-length or a model with more positions."
            )
        if asked is not None:
            return asked
        default = self.record.max_length if self.record else DEFAULT_MAX_LENGTH
        return min(default, limit) if limit is not None else default

    def _weight_files(self, backend: Backend) -> list[str]:
        if backend == "torch":
            if (self.path / WEIGHTS_INDEX_FILE).is_file():
                shards = sorted(path.name for path in self.path.glob("model-*.safetensors"))
                return [WEIGHTS_INDEX_FILE, *shards]
            return [WEIGHTS_FILE] if (self.path / WEIGHTS_FILE).is_file() else []
        names = [ONNX_FILE, ONNX_DATA_FILE]
        return [name for name in names if (self.path / name).is_file()]


def open_folder(reference: str, progress: Progress | None = None) -> ModelFolder:
    """The model folder that `reference` names.

    Args:
        reference: a local folder, `packaged:NAME` for pretrained weights from the package index,
            or a hub name such as `roberta-large`.
        progress: where a download or a conversion is reported.

    Raises:
        ModelError: nothing is there, or what is there is not a model folder.
    """
    path = _resolve(reference, progress or Silent())
    config_path = path / "config.json"
    if not config_path.is_file():
        raise ModelError(
            f"{path}: expected a model folder with config.json, found none. "
            "Give a Hugging Face model folder, packaged:NAME or a hub name."
        )
    record_path = path / RECORD_FILE
    record = BundleRecord.read(record_path) if record_path.is_file() else None
    folder = ModelFolder(path=path, name=reference, config=_read_json(config_path), record=record)
    if not folder._weight_files("torch") and not folder._weight_files("onnx"):
        raise ModelError(
            f"{path}: expected {WEIGHTS_FILE} or {ONNX_FILE}, found neither. "
            "Pickled weights (.bin, .pt) are not read: save the model as safetensors."
        )
    return folder


def write_record(folder: Path, record: BundleRecord, card: str) -> None:
    """Write `monoxkit.json` and the model card into a folder under construction."""
    write_json(folder / RECORD_FILE, record.to_json())
    write_file(folder / CARD_FILE, card.encode())


def _resolve(reference: str, progress: Progress) -> Path:
    if reference.startswith(PACKAGED_SCHEME):
        return packaged_folder(reference.removeprefix(PACKAGED_SCHEME), progress=progress)
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{path}: expected a model folder, found a file. Give its folder.")
    parts = reference.split("/")
    # A hub name is OWNER/NAME; below a folder that is here, a path was meant.
    if reference.startswith((".", "/", "~")) or len(parts) > 2 or Path(parts[0]).is_dir():
        raise ModelError(
            f"{reference}: expected a model folder, found nothing. Check the path, or give "
            "packaged:NAME or a hub name."
        )
    return _download(reference, progress)


def _download(name: str, progress: Progress) -> Path:
    """The local snapshot of a hub model; files already there are not fetched again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    progress.note(f"{name}: no such folder here, asking the model hub")
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_PATTERNS))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{name}: expected a local folder or a model of the hub, found neither "
            f"({first_line(error)}). Check the name and the network, or give a local folder or "
            "packaged:NAME."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: expected JSON, found: {error}. Restore the file or export the model again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}.")
    return value


def require_same_run(found: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Check that what stands in a folder was made by the run that is asked for now.

    Args:
        found: the fingerprint on disk.
        asked: this run's.
        where: the folder, for the message.

    Raises:
        ConfigError: a field differs; the message names it and both values.
    """
    # The command first: another command's folder differs in every other field too.
    for key in sorted({*found, *asked}, key=lambda key: (key != "command", key)):
        if found.get(key) != asked.get(key):
            raise ConfigError(
                f"{where}: expected {key} {asked.get(key)!r} as asked now, found "
                f"{found.get(key)!r} of an earlier run. Give another --out, or delete the folder "
                "to start again."
            )
