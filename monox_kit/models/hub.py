"""From what the user calls a model to a folder on this machine; downloads from the model hub."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from monox_kit.errors import ModelError, StorageError, first_line
from monox_kit.models.files import find_file
from monox_kit.models.graph_file import external_data
from monox_kit.models.record import GOLDEN_FILE, RECORD_FILE
from monox_kit.models.tokenizer_files import OLDER_TOKENIZER_FILES, TOKENIZER_FILES
from monox_kit.models.weights import WEIGHTS_FILE, WEIGHTS_INDEX_FILE, shard_names
from monox_kit.unseen import is_near

if TYPE_CHECKING:
    from monox_kit.progress import Progress

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
ONNX_FILE = "model.onnx"
FP32_FILE = "model.fp32.onnx"
PACKAGED_SCHEME = "packaged:"
HUB_SCHEME = "hub:"
# Source: huggingface_hub's `REPO_ID_REGEX`.
_HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)


def local_folder(reference: str, progress: Progress) -> Path | None:
    """The folder on this machine that `reference` names; None where it is a name of the hub.

    Raises:
        ModelError: it is a file, or looks like a folder that is not here.
    """
    if reference.startswith(PACKAGED_SCHEME):
        from monox_kit.packaged import packaged_folder  # converts with the train extra's packages

        return packaged_folder(reference.removeprefix(PACKAGED_SCHEME), progress=progress)
    if reference.startswith(HUB_SCHEME):
        return None
    path = Path(os.path.expanduser(reference))  # without a home folder, as it is
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{path}: expected a model folder, found a file. Give its folder.")
    # Below a folder that is here, a path was meant.
    if not _HUB_NAME.fullmatch(reference) or Path(reference.split("/", maxsplit=1)[0]).is_dir():
        raise ModelError(
            f"{reference}: expected a model folder, found nothing. Check the path, or give "
            "packaged:NAME or a hub name."
        )
    if near := _nearly_named(reference):
        raise ModelError(
            f"{reference}: there is no such folder, but there is {near}. Give that name, or "
            f"{HUB_SCHEME}{reference} for a model of the hub."
        )
    return None


def from_hub(reference: str, progress: Progress) -> Path:
    """The local snapshot of a hub model, with the files that its index and its graphs name.

    Raises:
        ModelError: it is no name of the hub, the hub has no such model, or cannot be reached.
    """
    name = reference.removeprefix(HUB_SCHEME)
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"{reference}: expected a name of the model hub, OWNER/NAME, found another form. "
            "Check the name."
        )
    progress.note(f"{name}: no such folder here, asking the model hub")
    own = (CONFIG_FILE, RECORD_FILE, GOLDEN_FILE, ADAPTER_FILE, WEIGHTS_INDEX_FILE)
    path = _download(name, [*TOKENIZER_FILES, *OLDER_TOKENIZER_FILES, *own])
    revision = path.name  # so that a commit in between gives no mixture
    index = find_file(path, WEIGHTS_INDEX_FILE)
    shards = [] if index is None else shard_names(index)
    path = _download(name, [WEIGHTS_FILE, *shards, ONNX_FILE, FP32_FILE], revision)
    data = [
        location
        for graph in (ONNX_FILE, FP32_FILE)
        if find_file(path, graph)
        for location in external_data(path / graph)
    ]
    return _download(name, [glob.escape(one) for one in data], revision) if data else path


def _download(name: str, patterns: list[str], revision: str | None = None) -> Path:
    """A hub model's files of some names; what is there already is not fetched again."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if constants.HF_HUB_CACHE.startswith("~"):  # a folder of that name would be made here
        raise StorageError(
            "HF_HOME: there is no folder for downloads, because this user has no home folder. Set "
            "HF_HOME to a folder of your own."
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{name}: expected a local folder or a model of the hub, found neither "
            f"({first_line(error)}). Check the name and the network, or give a local folder or "
            "packaged:NAME."
        ) from error


def _nearly_named(reference: str) -> str | None:
    """A folder here whose name is nearly a reference's first part; None where there is none."""
    first = reference.split("/", maxsplit=1)[0]
    try:
        here = {path.name.casefold(): path.name for path in Path().iterdir() if path.is_dir()}
    except OSError:  # a working directory that cannot be listed has no folder to mean
        return None
    wanted = first.casefold()
    return next((name for folded, name in sorted(here.items()) if is_near(folded, wanted)), None)
