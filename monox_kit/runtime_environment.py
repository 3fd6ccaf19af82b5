"""Environment variables that our dependencies read once, when they are imported.

Importing `monox_kit` sets them, so that they stand before any of these packages can be imported
through it, in every process: commands, programs that use the library, Ray's workers, contenders of
the benchmark. A variable that the user has set is left as it is.
"""

from __future__ import annotations

import os
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
