"""`monoxkit.json`: what monoxkit adds to an ordinary model folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from monox_kit.data import SINGLE_LABEL, LabelSet
from monox_kit.digest import digest_file, digest_json
from monox_kit.durable import write_file, write_json
from monox_kit.errors import CorpusError, ModelError
from monox_kit.foreign import stored_name, stored_names
from monox_kit.models.calibration import Calibration
from monox_kit.models.files import find_file, read_json
from monox_kit.models.long_texts import HEAD, Long
from monox_kit.models.tokenizer_files import Side

RECORD_FILE = "monoxkit.json"
CARD_FILE = "README.md"
GOLDEN_FILE = "golden.json"  # see `self_test`
FORMAT_VERSION = 1
# In the origin that a trained model records: `BundleRecord.seen_languages`.
SEEN_LANGUAGES = "seen_languages"

MAX_TOKENS = 1 << 24  # of a text: more is a damaged record
SHA256 = re.compile("[0-9a-f]{64}")
# A path below the folder: printable parts, none of which leads out of it.
FILE_NAME = re.compile(r"(?!(.*/)?\.{1,2}(/|$))[^/\\\x00-\x1f\x7f]+(/[^/\\\x00-\x1f\x7f]+)*")

Backend = Literal["torch", "onnx"]
# How logits become probabilities: over the classes together, or of each class alone.
Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedFile:
    """A file of the folder, as it was when the record was written.

    Attributes:
        num_bytes: its size.
        sha256: the digest of its bytes, in hexadecimal.
    """

    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleRecord:
    """The content of `monoxkit.json`.

    Attributes:
        labels: the classes in the order of the logits; None for an encoder without a head.
        max_length: tokens per text that the model was trained or exported with.
        backend: which runtime opens the bundle.
        precision: `fp32`, `bf16` where it was trained so, or a name of `export --precision`.
        has_pairs: whether the model was trained on text pairs; None where that is not known.
        long: what the model reads of longer texts; `head` in records of 0.1.0.
        truncation_side: on which side long texts lose tokens; None in records of 0.1.0.
        padding_side: on which side shorter texts of a batch are filled; None in records of 0.1.0.
        files: by name, the model's files; empty in records of 0.1.0.
        calibration: how logits become probabilities, and when the model abstains, by language; None
            where it was not calibrated.
        provenance: what the bundle was made from: digests, configuration, versions.
        checks: what was measured before the bundle was released.
    """

    labels: LabelSet | None
    max_length: int
    backend: Backend
    precision: str
    has_pairs: bool | None
    long: Long = HEAD
    truncation_side: Side | None = None
    padding_side: Side | None = None
    files: Mapping[str, RecordedFile] = field(default_factory=dict)
    calibration: Calibration | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def activation(self) -> Activation | None:
        """What gives probabilities; None for an encoder without a head."""
        return None if self.labels is None else activation_of(self.labels)

    @property
    def stages(self) -> tuple[str, ...]:
        """The commands that the model went through, the last one first, as far as is recorded."""
        found: list[str] = []
        provenance: Any = self.provenance
        while isinstance(provenance, Mapping):
            run = provenance.get("run")
            if isinstance(run, Mapping) and isinstance(command := run.get("command"), str):
                found.append(command)
            provenance = provenance.get("source")
        return tuple(found)

    @property
    def seen_languages(self) -> tuple[str, ...]:
        """Languages whose results are not zero-shot, as far as is recorded; sorted.

        The model, or what it was made from, learned from text in them, or was chosen by it.
        """
        found: set[str] = set()
        provenance: Any = self.provenance
        while isinstance(provenance, Mapping):
            origin = provenance.get("origin")
            if isinstance(origin, Mapping):
                told = origin.get(SEEN_LANGUAGES)
                if told is None:  # of 0.1.0, which tells what chose the weights
                    told = [name for name in _texts(origin.get("select_on")) if name != "dev"]
                found.update(_texts(told))
            provenance = provenance.get("source")
        return tuple(sorted(found))

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        own = asdict(self)
        return {
            "format_version": FORMAT_VERSION,
            "labels": None if self.labels is None else self.labels.to_json(),
            "activation": self.activation,
            **{name: value for name, value in own.items() if name != "labels"},
        }

    @classmethod
    def read(cls, path: Path) -> BundleRecord:
        """The record in a `monoxkit.json`.

        Raises:
            ModelError: the file is absent, not valid JSON, of another version, or lacks a field.
        """
        file = find_file(path.parent, path.name)
        if file is None:
            raise ModelError(f"{path}: there is no such record. Export the model again.")
        value = {**_ABSENT, **read_json(file)}
        version = value.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise ModelError(
                f"{path}: expected format_version {FORMAT_VERSION}, found {version!r}. "
                "Export the model again with this version of monoxkit."
            )
        for name, is_right in _FIELDS.items():
            if name not in value or not is_right(value[name]):
                found = repr(value[name])[:80] if name in value else "none"
                raise ModelError(
                    f"{path}: expected {name} as monoxkit writes it, found {found}. "
                    "Export the model again."
                )
        labels = None
        if value["labels"] is not None:
            try:
                labels = LabelSet.from_json(value["labels"], str(path))
            except CorpusError as error:
                raise ModelError(f"{path}: the record's labels are damaged: {error}") from error
        made = {
            "labels": labels,
            "files": {name: RecordedFile(**each) for name, each in value["files"].items()},
            "calibration": _calibration(value["calibration"], labels, path),
        }
        record = cls(**{name: value[name] for name in _FIELDS} | made)
        if value["activation"] not in (None, record.activation):
            raise ModelError(
                f"{path}: expected activation {record.activation}, which the labels' problem type "
                f"asks for, found {str(value['activation'])[:80]!r}. Export the model again."
            )
        return record


def _calibration(value: Any, labels: LabelSet | None, path: Path) -> Calibration | None:
    """The calibration that a record holds.

    Raises:
        ModelError: it is damaged, or of other classes.
    """
    if value is None:
        return None
    try:
        found = Calibration.from_json(value)
        sizes = {len(each) for each in found.temperatures.values()}
        wanted = 1 if labels is None or labels.problem_type == SINGLE_LABEL else len(labels)
        if sizes != {wanted}:
            raise ValueError(f"{max(sizes)} temperatures of a language, where {wanted} are used")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: the record's calibration is damaged: {error}. Calibrate the model again."
        ) from error
    return found


def activation_of(labels: LabelSet) -> Activation:
    """What gives probabilities of logits: classes that exclude each other share one softmax."""
    return "softmax" if labels.problem_type == SINGLE_LABEL else "sigmoid"


def write_record(folder: Path, record: BundleRecord, card: str) -> None:
    """Write `monoxkit.json` and the model card into a folder under construction.

    Args:
        folder: with all other files of the model in it; the record gets their digests.
        record: without files.
        card: the model card's text.
    """
    files = {
        path.relative_to(folder).as_posix(): RecordedFile(
            num_bytes=path.stat().st_size, sha256=digest_file(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (RECORD_FILE, CARD_FILE)
    }
    write_json(folder / RECORD_FILE, replace(record, files=files).to_json())
    write_file(folder / CARD_FILE, card.encode())


def _texts(value: Any) -> list[str]:
    """The texts of a list; none of anything else."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def calibration_field(record: BundleRecord | None) -> dict[str, str]:
    """What a run's fingerprint says of the calibration that it carries on; nothing of none."""
    if record is None or record.calibration is None:
        return {}
    return {"calibration": digest_json(asdict(record.calibration))}


def published_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of a model folder as its exports carry it on.

    Folders of version 0.1.0 name the places that their files were in; here these are names alone.
    """
    found = dict(provenance)
    if isinstance(model := found.get("model"), str):
        found["model"] = stored_name(model)
    if isinstance(origin := found.get("origin"), Mapping):
        origin = dict(origin)
        if isinstance(name := origin.get("labelled_name"), str):
            origin["labelled_name"] = stored_names(name)
        if isinstance(names := origin.get("dev_names"), Mapping):
            origin["dev_names"] = {key: stored_names(str(value)) for key, value in names.items()}
        found["origin"] = origin
    if isinstance(source := found.get("source"), Mapping):
        found["source"] = published_provenance(source)
    return found


def _are_files(value: Any) -> bool:
    """Whether a value names files of a folder with their sizes and digests."""
    return isinstance(value, dict) and all(
        FILE_NAME.fullmatch(name)
        and isinstance(each, dict)
        and each.keys() == {"num_bytes", "sha256"}
        and type(each["num_bytes"]) is int
        and each["num_bytes"] >= 0
        and isinstance(each["sha256"], str)
        and SHA256.fullmatch(each["sha256"])
        for name, each in value.items()
    )


# What records of 0.1.0 do not say.
_ABSENT: Mapping[str, Any] = {
    "activation": None,
    "long": HEAD,
    "truncation_side": None,
    "padding_side": None,
    "files": {},
    "calibration": None,
    "provenance": {},
    "checks": {},
}
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "labels": lambda value: value is None or isinstance(value, dict),
    "max_length": lambda value: type(value) is int and 0 < value <= MAX_TOKENS,
    "backend": lambda value: value in get_args(Backend),
    "precision": lambda value: isinstance(value, str),
    "has_pairs": lambda value: value is None or isinstance(value, bool),
    "long": lambda value: value in get_args(Long),
    "truncation_side": lambda value: value is None or value in get_args(Side),
    "padding_side": lambda value: value is None or value in get_args(Side),
    "files": _are_files,
    "calibration": lambda value: value is None or isinstance(value, dict),
    "provenance": lambda value: isinstance(value, dict),
    "checks": lambda value: isinstance(value, dict),
}
