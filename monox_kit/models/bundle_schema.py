"""The JSON schema of a bundle's records, made from the types that read and write them.

Its root is `monoxkit.json`; `#/$defs/Golden` is `golden.json`. `make docs` writes it to
`bundle.schema.json` beside this module.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Gt, Le, MinLen

from monox_kit.config import attribute_texts
from monox_kit.models.calibration import STAND_IN, Calibration
from monox_kit.models.golden_file import Answers, Golden, Machine
from monox_kit.models.record import (
    FILE_NAME,
    FORMAT_VERSION,
    MAX_TOKENS,
    SHA256,
    Activation,
    BundleRecord,
    RecordedFile,
)

SCHEMA_FILE = "bundle.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """The classes of a model.

    Attributes:
        names: C distinct names; the index of a class is its position here.
        problem_type: whether a text has one class, or any number of them.
    """

    names: Annotated[tuple[str, ...], MinLen(2)]
    problem_type: Literal["single_label_classification", "multi_label_classification"] = (
        "single_label_classification"
    )


def bundle_schema() -> dict[str, Any]:
    """The schema of `monoxkit.json`, with that of `golden.json` among its definitions."""
    from pydantic import TypeAdapter

    record, golden = (TypeAdapter(kind).json_schema() for kind in (_record_type(), Golden))
    definitions = record.pop("$defs") | golden.pop("$defs") | {"Golden": golden}
    schema = {
        "$schema": _DIALECT,
        "title": "monoxkit.json",
        **{key: value for key, value in record.items() if key != "title"},
        "$defs": dict(sorted(definitions.items())),
    }
    for kind in (Labels, RecordedFile, Calibration, Golden, Answers, Machine):
        _describe(schema["$defs"][kind.__name__], kind)
    _describe(schema, BundleRecord)
    properties = schema["properties"]
    properties["format_version"]["description"] = "Version of the file's format."
    properties["activation"]["description"] = "How logits become probabilities."
    properties["files"]["propertyNames"] = {"pattern": f"^(?:{FILE_NAME.pattern})$"}
    properties["checks"]["properties"] = {"gate": {"description": "The gate's report by language."}}
    schema["$defs"]["Labels"]["properties"]["names"]["uniqueItems"] = True
    file = schema["$defs"]["RecordedFile"]
    file["properties"]["num_bytes"]["minimum"] = 0
    file["properties"]["sha256"]["pattern"] = f"^{SHA256.pattern}$"
    calibration = schema["$defs"]["Calibration"]
    calibration["required"] = list(calibration["properties"])
    calibration["properties"]["temperatures"]["required"] = [STAND_IN]
    # Keys that nobody knows are a slip in these; elsewhere later versions add some.
    for name in ("Labels", "RecordedFile", "Calibration"):
        schema["$defs"][name]["additionalProperties"] = False
    return schema


def _record_type() -> type:
    """The record as it is written: `BundleRecord` with what the file says beside it."""
    hints: dict[str, Any] = get_type_hints(BundleRecord)
    hints |= {"labels": Labels | None, "max_length": Annotated[int, Gt(0), Le(MAX_TOKENS)]}
    fields: list[Any] = [
        ("format_version", Literal[FORMAT_VERSION]),
        *((one.name, hints[one.name], one) for one in dataclasses.fields(BundleRecord)),
        ("activation", Activation | None, None),
    ]
    return dataclasses.make_dataclass("BundleRecord", fields, kw_only=True)


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Put what a class's docstring says into its schema, and leave out what says nothing."""
    schema["description"] = (kind.__doc__ or "").splitlines()[0]
    texts = attribute_texts(kind)
    for name, value in schema["properties"].items():
        if name in texts:
            text = texts[name].replace("None", "null")
            value["description"] = f"{text[0].upper()}{text[1:]}"
    for part in _objects(schema["properties"]):
        part.pop("title", None)
        part.pop("default", None)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _objects(part)


def read_schema() -> dict[str, Any]:
    """The schema that the package carries."""
    text = files("monox_kit.models").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bundle_schema(), indent=2, ensure_ascii=False) + "\n")
