"""Formats 1 and 2 of the logit store as data: names, arrays, manifest; see docs/store-format.md.

store.json                 `StoreManifest`
shards/000000/             `ShardRange` 0, with the arrays of `array_layout` and shard.json
complete.json              `CompleteRecord`, written last
lock                       empty; held by writers
scan                       what labelling keeps of the corpus's scan until the store is complete
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from monox_kit.data import PROBLEM_TYPES, SINGLE_LABEL, LabelSet
from monox_kit.digest import digest_bytes
from monox_kit.errors import ConfigError, CorpusError, StoreError, StoreMismatch
from monox_kit.problem import Problem, problem_of
from monox_kit.store.record import (
    DIGEST_KEY,
    LATER_STEP,
    check_record,
    corrupt,
    parse_record,
    typed,
)

FORMAT_VERSION = 1
# Of a store whose rows have languages of their own; all else is that of format 1.
LANGUAGES_VERSION = 2
STORE_FILE = "store.json"
COMPLETE_FILE = "complete.json"
SHARD_FILE = "shard.json"
SHARDS_FOLDER = "shards"
LOCK_FILE = "lock"
SCAN_FILE = "scan"
MAX_SHARDS = 1_000_000  # shard names have six digits

HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"

GUARD_PRECISION_KEY = "guard_precision"  # what rows were computed again in; absent for fp32
# What `labelling.guard.Guard` learns on a corpus; a test keeps the two lists equal.
LEARNED_GUARD = frozenset(
    f"guard_{name}"
    for name in (
        *("threshold", "calibration_rows", "estimated_agreement", "estimated_recomputed"),
        *("audit_rows", "audit_agreement", "audit_plain_agreement"),
        *("audit_mean_kl", "audit_plain_mean_kl", "audit_recomputed"),
    )
)

# The digest of what a file said of the rows, in a store that was imported.
ANSWERS_KEY = "answers_digest"
# The language of all rows, in format 1; None where nothing tells it, absent in stores of 0.1.0.
LANGUAGE_KEY = "language"

LogitDtype = Literal["float32", "float16"]
Scalar = str | int | float | bool | None
Layout = Mapping[str, tuple[str, tuple[int | None, ...]]]

# What fields of a manifest that are no settings mean to its user.
_FIELD_WORDS = {
    "fingerprint.teacher": "the teacher",
    "fingerprint.teacher_digest": "the teacher's weights",
    "fingerprint.tokenizer_digest": "the teacher's tokenizer",
    "fingerprint.corpus_digest": "the content of the corpus",
    "fingerprint.gold_labels": "what becomes of the corpus's labels",
    "fingerprint.max_length": "the length that texts are truncated at",
    "fingerprint.long": "what is read of longer texts",
    "fingerprint.backend": "the teacher's backend",
    "fingerprint.precision": "the precision",
    "fingerprint.provider": "the execution provider",
    "fingerprint.guard_target": "the guard",
    "fingerprint.guard_rows": "the rows that the guard is learned on",
    "fingerprint.guard_digest": "the guard's reference model",
    "fingerprint.merged_from": "the merged parts",
    "fingerprint.answers": "what the answers are",
    f"fingerprint.{ANSWERS_KEY}": "the answers in the files",
    "fingerprint.smoothing": "the smoothing of hard labels",
    "fingerprint.missing_mass": "the probability of classes that are not listed",
    f"fingerprint.{LANGUAGE_KEY}": "the language of the rows",
    "format_version": "whether each row has a language of its own, the format,",
    "num_rows": "the number of rows",
    "shard_rows": "the rows of a shard",
    "dtype": "how logits are kept",
    "has_pairs": "whether rows are pairs of texts",
}

LOGIT_DESCR: Mapping[str, str] = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True, slots=True)
class ShardRange:
    """The rows [start, stop) that shard number `index` holds."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The shard's folder name below `shards/`."""
        return f"{self.index:06d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreManifest:
    """What a store is a store of: the content of `store.json`.

    Attributes:
        labels: the classes in the order of the logits' columns.
        num_rows: rows of the corpus, at least 1.
        shard_rows: rows of every shard but the last, which may have fewer.
        dtype: how logits lie on disk; readers always give float32.
        has_pairs: whether every row is a text pair, or none is.
        fingerprint: flat names and values that decide the logits: digests of teacher, tokenizer
            and corpus, max_length, precision, backend. A resumed run must agree in each.
        format_version: the format of the folder: `LANGUAGES_VERSION` where each row has a language
            of its own.
    """

    labels: LabelSet
    num_rows: int
    shard_rows: int
    dtype: LogitDtype
    has_pairs: bool
    fingerprint: Mapping[str, Scalar]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, least in (("num_rows", 1), ("shard_rows", 1), ("format_version", 1)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**63:
                raise _invalid(f"{name} of at least {least}", value, f"Correct {name}")
        if self.format_version not in (FORMAT_VERSION, LANGUAGES_VERSION):
            wanted = f"format_version {FORMAT_VERSION} or {LANGUAGES_VERSION}"
            raise _invalid(wanted, self.format_version, "Leave it out")
        if self.dtype not in get_args(LogitDtype):
            raise _invalid("dtype float32 or float16", self.dtype, "Give one of them")
        if type(self.has_pairs) is not bool:
            raise _invalid("has_pairs true or false", self.has_pairs, "Give one of them")
        if self.num_shards > MAX_SHARDS:
            raise _invalid(f"at most {MAX_SHARDS} shards", self.num_shards, "Raise `shard_rows`")
        for key, value in self.fingerprint.items():
            if not isinstance(key, str) or not isinstance(value, Scalar):
                raise _invalid(f"a plain fingerprint value {key!r}", value, "Give text or a number")
            if isinstance(value, float) and not math.isfinite(value):
                raise _invalid(f"a finite fingerprint value {key!r}", value, "Give it as text")
        told = self.fingerprint.get(LANGUAGE_KEY)
        if LANGUAGE_KEY in self.fingerprint and self.has_languages:
            raise _invalid(f"no {LANGUAGE_KEY} where rows have their own", told, "Leave it out")
        if told is not None and (not isinstance(told, str) or not told):
            raise _invalid("a language tag or none", told, "Give a tag such as de")

    @property
    def num_classes(self) -> int:
        """C, the columns of the logits."""
        return len(self.labels)

    @property
    def problem(self) -> Problem:
        """What labels and logits mean."""
        return problem_of(self.labels)

    @property
    def has_languages(self) -> bool:
        """Whether each row has a language of its own, or none."""
        return self.format_version == LANGUAGES_VERSION

    @property
    def language(self) -> str | None:
        """The language of all rows; None where each has its own, or nothing tells it."""
        told = self.fingerprint.get(LANGUAGE_KEY)
        return None if told is None else str(told)

    @property
    def num_shards(self) -> int:
        """Shards of the finished store."""
        return -(-self.num_rows // self.shard_rows)

    def shard(self, index: int) -> ShardRange:
        """The range of shard `index`, from 0."""
        start = index * self.shard_rows
        return ShardRange(index, start, min(start + self.shard_rows, self.num_rows))

    def shards(self) -> Iterator[ShardRange]:
        """Every shard's range, in order."""
        return (self.shard(index) for index in range(self.num_shards))

    def require_shards(self, shards: range) -> None:
        """Check that the finished store has these shards.

        Raises:
            ConfigError: it has not, or they are not consecutive.
        """
        if shards.step != 1 or not 0 <= shards.start <= shards.stop <= self.num_shards:
            raise ConfigError(
                f"`shard_range`: expected shards within 0:{self.num_shards}, found "
                f"{shards.start}:{shards.stop}. The first number counts from 0, the second one is "
                "behind the last."
            )

    def to_json(self) -> dict[str, Any]:
        """The content of `store.json`, its own digest aside."""
        return {
            "format_version": self.format_version,
            "labels": self.labels.to_json(),
            "num_rows": self.num_rows,
            "shard_rows": self.shard_rows,
            "dtype": self.dtype,
            "has_pairs": self.has_pairs,
            "fingerprint": dict(self.fingerprint),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path | str, step: str) -> StoreManifest:
        """The inverse of `to_json`.

        Args:
            value: a record's values.
            path: the file that they come from, for messages.
            step: what to do about a damaged file, for messages.

        Raises:
            StoreError: its problem type is one of a later version.
            StoreCorrupt: a value is not one that a store is written with.
        """
        labels = typed(value, "labels", dict, path, step)
        problem_type = labels.get("problem_type", SINGLE_LABEL)
        if isinstance(problem_type, str) and problem_type not in PROBLEM_TYPES:
            raise StoreError(
                f"{path}: expected problem_type {' or '.join(PROBLEM_TYPES)}, found "
                f"{problem_type!r}. {LATER_STEP}"
            )
        try:
            return cls(
                labels=LabelSet.from_json(labels, str(path)),
                num_rows=typed(value, "num_rows", int, path, step),
                shard_rows=typed(value, "shard_rows", int, path, step),
                dtype=value["dtype"],
                has_pairs=typed(value, "has_pairs", bool, path, step),
                fingerprint=typed(value, "fingerprint", dict, path, step),
                format_version=value["format_version"],
            )
        except (ConfigError, CorpusError) as error:
            found = str(error).partition(". ")[0]  # its next step is for whoever sets the value
            raise corrupt(path, "the manifest of a store", found, step) from error

    def differences(self, other: StoreManifest) -> list[tuple[str, str, str]]:
        """Every field that differs: its name, and how it is shown here and there.

        What the guard learned, and what the rows' languages come to, stand last: they differ
        because something else does.
        """
        here, there = _flat(self), _flat(other)
        differing = [key for key in {**here, **there} if _tagged(here, key) != _tagged(there, key)]
        follows = LEARNED_GUARD | {LANGUAGE_KEY, "format_version"}
        differing.sort(key=lambda key: key.removeprefix("fingerprint.") in follows)
        return [(key, _shown(here, key), _shown(there, key)) for key in differing]

    def require_equal(self, other: StoreManifest, where: Path | str) -> None:
        """Check that a run may continue the store: `self` is the store's, `other` the run's.

        Raises:
            StoreMismatch: they differ; the message names the fields that do, with both values.
        """
        differing = self.differences(other)
        if not differing:
            return
        others = ", ".join(f"{name} ({one}, now {now})" for name, one, now in differing[1:9])
        more = f" Also different: {others}." if others else ""
        raise StoreMismatch(
            f"{where}: {begun_otherwise(*differing[0])}{more} Run with the store's own settings, "
            "or give another `store`."
        )


MANIFEST_KEYS = frozenset(field.name for field in fields(StoreManifest)) | {DIGEST_KEY}


@dataclass(frozen=True, slots=True)
class CompleteRecord:
    """The content of `complete.json`.

    Attributes:
        num_rows: rows of the store.
        num_shards: shards of the store.
        digest: `store_digest` over the manifest's and every shard's record.
        summary: what the run wants to remember, such as its rate; no part of the digest.
    """

    num_rows: int
    num_shards: int
    digest: str
    summary: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of `complete.json`, its own digest aside."""
        return {
            "format_version": FORMAT_VERSION,
            "num_rows": self.num_rows,
            "num_shards": self.num_shards,
            "digest": self.digest,
            "summary": dict(self.summary),
        }

    @classmethod
    def parse(
        cls, content: bytes, path: Path | str, manifest: StoreManifest, step: str
    ) -> CompleteRecord:
        """The completion record of the store that `manifest` describes.

        Args:
            content: the bytes of `complete.json`.
            path: where they come from, for messages.
            manifest: the store's.
            step: what to do about a damaged file, for messages.

        Raises:
            StoreCorrupt: the file is damaged or belongs to another store.
        """
        names = frozenset(field.name for field in fields(cls)) | {"format_version", DIGEST_KEY}
        value = parse_record(content, path, names, FORMAT_VERSION, step)
        record = cls(
            num_rows=typed(value, "num_rows", int, path, step),
            num_shards=typed(value, "num_shards", int, path, step),
            digest=typed(value, "digest", str, path, step),
            summary=typed(value, "summary", dict, path, step),
        )
        check_record(path, "num_rows", manifest.num_rows, record.num_rows, step)
        check_record(path, "num_shards", manifest.num_shards, record.num_shards, step)
        return record


def store_digest(manifest_digest: str, shard_digests: Iterable[str]) -> str:
    """The store's digest: over the `record_digest` of store.json and of each shard, in order."""
    return digest_bytes("".join(f"{one}\n" for one in (manifest_digest, *shard_digests)).encode())


def text_fields(manifest: StoreManifest) -> tuple[str, ...]:
    """The fields that lie as UTF-8 bytes in `<field>.npy` with `<field>_offsets.npy`."""
    pair = ("text_pair",) if manifest.has_pairs else ()
    return ("ids", "text", *pair, *(("lang",) if manifest.has_languages else ()))


def array_layout(manifest: StoreManifest, num_rows: int) -> Layout:
    """File name to (numpy type, shape) of a shard of `num_rows` rows.

    A None in a shape is a number of bytes that only the shard's record knows.
    """
    problem = manifest.problem
    layout: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "logits.npy": (LOGIT_DESCR[manifest.dtype], (num_rows, manifest.num_classes)),
        "rows.npy": ("<i8", (num_rows,)),
        "labels.npy": (problem.label_descr, problem.label_shape(num_rows)),
        "recomputed.npy": ("|u1", (num_rows,)),
    }
    for field in text_fields(manifest):
        layout[f"{field}.npy"] = ("|u1", (None,))
        layout[f"{field}_offsets.npy"] = ("<i8", (num_rows + 1,))
    return layout


def array_bytes(descr: str, shape: tuple[int, ...]) -> int:
    """The exact size in bytes of the file that holds such an array."""
    return HEADER_BYTES + math.prod(shape) * np.dtype(descr).itemsize


def array_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The exact first 128 bytes of the file that holds such an array.

    Source: NEP 1, version 1.0, with the padding that numpy itself has written since 1.23.
    """
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}"
    rest = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + rest.to_bytes(2, "little") + text.encode("ascii").ljust(rest - 1) + b"\n"


def begun_otherwise(key: str, here: str, there: str) -> str:
    """One of `StoreManifest.differences` as a sentence."""
    words = _FIELD_WORDS.get(key)
    named = key if words is None else f"{words} ({key})"
    return f"{named} was {here} when this store was begun, and is {there} now."


def _invalid(expected: str, found: object, step: str) -> ConfigError:
    return ConfigError(f"store manifest: expected {expected}, found {found!r}. {step}.")


def _flat(manifest: StoreManifest) -> dict[str, Any]:
    """Every field that a run must share, by the name that an error gives it."""
    value = manifest.to_json()
    labels, fingerprint = value.pop("labels"), value.pop("fingerprint")
    names = {f"labels[{index}]": name for index, name in enumerate(labels.pop("names"))}
    return {
        "format_version": value.pop("format_version"),
        **{f"fingerprint.{key}": item for key, item in fingerprint.items()},
        "number of labels": len(names),
        **names,
        **{f"labels.{key}": item for key, item in labels.items()},
        **value,
    }


def _tagged(flat: Mapping[str, Any], key: str) -> tuple[bool, type, Any]:
    """A value that differs also where Python's equality does not: absent, 1, 1.0 and True."""
    value = flat.get(key)
    return key in flat, type(value), value


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "nothing"
    value = flat[key]
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]  # a digest's beginning tells two apart
    return repr(value)[:100]
