"""What stands where a stage writes: nothing, the finished output of the same run, or another run's.

A run is known by its fingerprint, flat JSON of settings and digests, which its record keeps.
`locks.owned_folder` keeps other processes away; `durable.new_folder` and `new_file` write aside and
put the whole in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monox_kit.durable import is_free, make_folder, remove_all_leftovers, write_json
from monox_kit.errors import ConfigError, ModelError, OtherRun, StorageError

RUN_FILE = "run.json"
# Fields of fingerprints: a digest that runs must agree in, and what it was computed with, which
# they need not.
IDS_FIELD = "tokenizer_ids"
LIBRARY_FIELD = "tokenized_with"
_TOKENIZATION_FIELDS = (IDS_FIELD, LIBRARY_FIELD)
# What the fields of a run's fingerprint that are no settings mean to its user.
_RUN_WORDS = {
    "command": "the command",
    "labels": "the label set (its digest)",
    "labelled_digest": "the gold-labelled text (its digest)",
    "dev_digest": "the text of `dev` (its digest)",
    "translations_digest": "the text of `translations` (its digest)",
    "unlabelled_digest": "the text of `unlabelled` (its digest)",
    "corpus_digest": "the text of the corpus (its digest)",
    "languages": "the files' languages",
    "check_digest": "the text of `check` (its digest)",
    "trim_digest": "the text of `trim` (its digest)",
    "store": "the logit store (its digest)",
    "stores": "the logit stores (their digest)",
    "model_digest": "the model (its digest)",
    "tokenizer_digest": "the tokenizer (its digest)",
    "graphs_version": "the version of the exporter",
}

# Differing fields that are named after the first.
_MOST_OTHERS = 8


def is_finished(out: Path, found: Any, run: Mapping[str, Any]) -> bool:
    """Whether the same run has finished its output; False where `out` is free.

    Args:
        out: the output, a file or a folder.
        found: the fingerprint in the record that stands there; None without one.
        run: this run's fingerprint.

    Raises:
        ConfigError: something else stands there.
        OtherRun: another run's output does.
        ModelError: texts are tokenized differently now.
    """
    if is_free(out):
        return False
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{out}: something is there already, and it is no finished output of this command. "
            "Give another output."
        )
    require_same_run(found, run, out)
    return True


def work_folder(folder: Path, run: Mapping[str, Any]) -> Path:
    """The folder of what a run has done so far, marked as this run's where it is new; lock it.

    Raises:
        ConfigError: something else stands there.
        OtherRun: another run's work does.
        StorageError: its record cannot be read, or the disk refused.
    """
    if holds_record(folder, RUN_FILE):
        require_same_run(read_record(folder / RUN_FILE), run, folder)
    else:
        remove_all_leftovers(folder)  # of a kill while the record was written
        write_json(folder / RUN_FILE, run)
    return folder


def holds_record(folder: Path, name: str) -> bool:
    """Whether a folder of ours, made where absent, has the record that tells it as ours.

    Raises:
        ConfigError: it holds other files instead.
        StorageError: the disk refused.
    """
    if (make_folder(folder) / name).is_file():
        return True
    others = [each.name for each in folder.iterdir() if not each.name.startswith(".tmp-")]
    if others:
        raise ConfigError(
            f"{folder}: expected an empty folder or one with {name}, found other files "
            f"({others[0]}). Give another output."
        )
    return False


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"{path}: expected the record of a run, found: {error}. Delete it, and what it is the "
            "record of, to start again."
        ) from error


def require_same_run(found: Mapping[str, Any], given: Mapping[str, Any], where: Path) -> None:
    """Check that what stands in a folder was made by the run that is asked for now.

    Raises:
        OtherRun: a field differs; the message names those that do, with both values.
        ModelError: texts are tokenized differently now.
    """
    given = json.loads(json.dumps(given))  # as it reads from a file
    # Runs of 0.1.0 do not say how they were tokenized, and another version may do it alike.
    asked = {name: value for name, value in given.items() if name not in _TOKENIZATION_FIELDS}
    asked |= kept_tokenization(found, given, where)
    # What others follow from comes first: another label set changes the digests of all labelled
    # text. Another command's folder differs in every field.
    first = ("command", "labels", "labelled_digest")
    keys = (*first, *sorted({*found, *asked} - {*first}))
    differing = [key for key in keys if found.get(key) != asked.get(key)]
    if not differing:
        return
    values = {
        key: f"{_shown_value(found.get(key))} then, {_shown_value(asked.get(key))} now"
        for key in differing
    }
    key, *others = differing[:1] if differing[0] == "command" else differing
    named = ", ".join(f"{_words(each)} ({values[each]})" for each in others[:_MOST_OTHERS])
    unnamed = f" and {len(others) - _MOST_OTHERS} more" if len(others) > _MOST_OTHERS else ""
    more = f" Also different: {named}{unnamed}." if others else ""
    raise OtherRun(
        f"{where}: an earlier run is there, and {_words(key)} differs: {values[key]}.{more} Give "
        f"another `out`, or delete {'the file' if where.is_file() else 'the folder'} to start "
        "again."
    )


def _words(key: str) -> str:
    """A fingerprint's field as its user knows it."""
    return _RUN_WORDS.get(key, f"`{key}`")


def kept_tokenization(
    begun: Mapping[str, Any], now: Mapping[str, Any], where: Path | str
) -> dict[str, Any]:
    """The fields of a begun run's fingerprint that tell how it was tokenized, none before 0.2.

    Raises:
        ModelError: texts are tokenized differently now, with the same files.
    """
    # Where the files differ too, that is what is to be said.
    same_files = begun.get("tokenizer_digest") == now.get("tokenizer_digest")
    if IDS_FIELD in begun and begun[IDS_FIELD] != now.get(IDS_FIELD) and same_files:
        raise ModelError(
            f"{where}: the run was begun under another tokenization: golden texts had ids of "
            f"digest {str(begun[IDS_FIELD])[:12]} with {begun.get(LIBRARY_FIELD)}, now they have "
            f"{str(now.get(IDS_FIELD))[:12]} with {now.get(LIBRARY_FIELD)}, from the same files. "
            "Install the version that it was begun with, or begin again in another place."
        )
    return {name: begun[name] for name in _TOKENIZATION_FIELDS if name in begun}


def _shown_value(value: Any) -> str:
    """A setting as a message shows it; of a digest the beginning."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return "none" if value is None else repr(value)
