"""Graphs as OpenVINO has compiled them, kept in the cache: the next process opens them sooner.

What lies there is believed like everything in the cache: `monox_kit.cache` says when. OpenVINO's
own `CACHE_DIR` is not used: it knows a graph by its path and the time of its file, not by its
weights, which may lie in another file, and it writes in place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.cache import default_cache, made_cache, open_own
from monox_kit.digest import digest_json
from monox_kit.durable import new_file, remove_file
from monox_kit.errors import MonoxError
from monox_kit.hardware import read_hardware
from monox_kit.models.files import ModelFile
from monox_kit.models.folder import RunPrecision

_VERSION = 1
_FOLDER, _SUFFIX = "openvino", ".blob"
# A graph of more is compiled each time: while it is being kept it is in memory twice.
_MOST_GRAPH_BYTES = 512 << 20
# Of all that is kept; what was opened longest ago goes first.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """Where the compiled form of one graph is kept, or would be.

    Attributes:
        name: of its file; equal for equal graphs, wherever they lie.
    """

    name: str

    @classmethod
    def of(
        cls, files: Mapping[str, ModelFile], precision: RunPrecision, version: str
    ) -> CompiledGraph | None:
        """The place for a graph; None for one that is too large to be kept.

        Args:
            files: of the graph, by name.
            precision: what its float32 weights are multiplied in.
            version: OpenVINO's.

        Raises:
            ModelError: a file changed since the folder was opened.
        """
        if sum(file.num_bytes for file in files.values()) > _MOST_GRAPH_BYTES:
            return None
        hardware = read_hardware()
        key = {
            "version": _VERSION,
            "files": {name: file.digest() for name, file in files.items()},
            "precision": precision,
            "runtime": version,
            "cpu": [hardware.cpu_model, *hardware.cpu_features],
        }
        return cls(f"{digest_json(key)}{_SUFFIX}")

    def read(self) -> npt.NDArray[np.uint8] | None:
        """The compiled form, mapped into memory; None where there is none that is believed."""
        try:
            path = default_cache() / _FOLDER / self.name
            with open_own(path) as stream:
                content: Any = np.memmap(stream, np.uint8, mode="c")
            os.utime(path)  # opened now
        except (OSError, ValueError, MonoxError):  # an empty file cannot be mapped
            return None
        return content  # type: ignore[no-any-return]

    def write(self, content: memoryview) -> None:
        """Keep the compiled form; without a word nothing where the disk or the cache refuses."""
        with contextlib.suppress(OSError, MonoxError):
            folder = made_cache() / _FOLDER
            with new_file(folder / self.name) as stream:
                stream.write(content)
            _forget_oldest(folder)


def _forget_oldest(folder: Path) -> None:
    """Remove what was opened longest ago, until the rest is small enough."""
    kept = [(path, path.stat()) for path in folder.glob(f"*{_SUFFIX}")]
    num_bytes = 0
    for path, status in sorted(kept, key=lambda each: each[1].st_mtime_ns, reverse=True):
        num_bytes += status.st_size
        if num_bytes > _MOST_BYTES:
            remove_file(path)
