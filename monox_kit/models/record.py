"""`monoxkit.json`: what monoxkit adds to an ordinary model folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from monox_kit.data import LabelSet
from monox_kit.durable import write_file, write_json
from monox_kit.errors import CorpusError, ModelError
from monox_kit.foreign import stored_name, stored_names
from monox_kit.models.files import find_file, read_json

RECORD_FILE = "monoxkit.json"
CARD_FILE = "README.md"
FORMAT_VERSION = 1

Backend = Literal["torch", "onnx"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleRecord:
    """The content of `monoxkit.json`.

    Attributes:
        labels: the classes in the order of the logits; None for an encoder without a head.
        max_length: tokens per text that the model was trained or exported with.
        backend: which runtime opens the bundle.
        precision: `fp32`, `bf16` where it was trained so, or a name of `export --precision`.
        has_pairs: whether the model was trained on text pairs; None where that is not known.
        provenance: what the bundle was made from: digests, configuration, versions.
        checks: what was measured before the bundle was released.
    """

    labels: LabelSet | None
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
            "labels": None if self.labels is None else self.labels.to_json(),
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
        value = {"provenance": {}, "checks": {}} | read_json(file)
        version = value.get("format_version")
        if version != FORMAT_VERSION:
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
        return cls(**{name: value[name] for name in _FIELDS} | {"labels": labels})


def write_record(folder: Path, record: BundleRecord, card: str) -> None:
    """Write `monoxkit.json` and the model card into a folder under construction."""
    write_json(folder / RECORD_FILE, record.to_json())
    write_file(folder / CARD_FILE, card.encode())


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


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "labels": lambda value: value is None or isinstance(value, dict),
    "max_length": lambda value: type(value) is int and 0 < value <= 1 << 24,
    "backend": lambda value: value in get_args(Backend),
    "precision": lambda value: isinstance(value, str),
    "has_pairs": lambda value: value is None or isinstance(value, bool),
    "provenance": lambda value: isinstance(value, dict),
    "checks": lambda value: isinstance(value, dict),
}
