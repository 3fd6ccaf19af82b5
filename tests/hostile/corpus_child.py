"""Reads corpora in a process of its own and tells what became of each, and how much memory it took.

Run as `python -m tests.hostile.corpus_child CASES.json`: a list of objects with the name of a case,
its settings or its file of labels. Each answer is a line of JSON.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import LabelSet
from monox_kit.errors import MonoxError
from monox_kit.progress import Silent

# For a case that hangs: all of them together take seconds.
_LIMIT_S = 60


class _Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def read(case: dict[str, Any]) -> dict[str, Any]:
    """What becomes of one case."""
    notes = _Notes()
    try:
        if "labels" in case:
            LabelSet.read(Path(case["labels"]))
            return {"outcome": "read"}
        settings = {key: tuple(v) if type(v) is list else v for key, v in case["settings"].items()}
        summary = Corpus(CorpusConfig(**settings)).scan(progress=notes)
        return {"outcome": "read", "rows": summary.num_rows, "notes": notes.notes}
    except MonoxError as error:
        found = {"outcome": "refused", "exit_code": error.exit_code, "message": str(error)}
        return {**found, "class": type(error).__name__}
    except BaseException as error:
        return {"outcome": f"unexpected {type(error).__name__}", "message": str(error)[:500]}


def peak_bytes() -> int:
    """The most memory this program has had; `ru_maxrss` has its parent's too, from the fork."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def main() -> None:
    """Answer every case."""
    for case in json.loads(Path(sys.argv[1]).read_text()):
        signal.alarm(_LIMIT_S)  # its default ends the process
        answer = read(case)
        signal.alarm(0)
        line = json.dumps({"name": case["name"], "peak_bytes": peak_bytes(), **answer})
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
