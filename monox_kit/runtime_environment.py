"""What our dependencies send and write about their users when they are imported, switched off.

Importing `monox_kit` sets environment variables that they read once, so that they stand before any
of these packages can be imported through it, in every process: commands, programs that use the
library, Ray's workers, contenders of the benchmark. A variable that the user has set is left as it
is. OpenVINO has no such variable: `import_openvino` is the one way to it.
"""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType
from typing import Final

# What each package would send or write about its user, and the variable that stops it.
QUIET: Final = {
    # A device id and an event file in ~/.cache/Microsoft at import; events sent to its makers.
    "ORT_DISABLE_TELEMETRY": "1",
    # The user agent of every download names versions and a session's id.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A report from the head of a cluster to Ray's makers.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Events to Google Analytics, a client id in ~/intel; NNCF's own switch.
    "NNCF_CI": "1",
}


def silence_dependencies() -> None:
    """Set the variables of `QUIET` that the user has not set, for this process and its children."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


_OPENVINO_TELEMETRY: Final = "openvino_telemetry"
_importing = threading.Lock()


def import_openvino() -> ModuleType:
    """The module `openvino`, imported without the event that its import sends.

    OpenVINO's `tools/ovc` sends one to Google Analytics and writes a client id below `~/intel`,
    unless the machine calls itself a build server. While it is imported here, its package for that
    looks as if it were not installed, and it takes the silent stand-in that it has for that case.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    with _importing:
        before = sys.modules.pop(_OPENVINO_TELEMETRY, None)
        sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            del sys.modules[_OPENVINO_TELEMETRY]
            if before is not None:
                sys.modules[_OPENVINO_TELEMETRY] = before
    return openvino  # type: ignore[no-any-return]
