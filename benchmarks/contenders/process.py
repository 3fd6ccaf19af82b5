"""One contender of the labelling benchmark: a process of its own, under an interpreter of its own.

Run by its path. An environment needs what its own rows need and nothing else: this package and
`harness` ask for the standard library alone, as does `monox_kit.durable`, which keeps graphs. It
speaks JSON lines: first the fields of `Job` in, and `ready` out, then a request in and `scored` out
until stdin ends.

    in   {"texts_path": FILE, "limit_s": SECONDS, "store": FOLDER}
    out  {"answer": "ready", "settings": {...}, "versions": {...}}
         {"answer": "prepared"}                          of a job that only prepares
         {"answer": "scored", "seconds", "texts", "tokens", "over_limit", "peak_rss_bytes",
          "logits": base64 of float32 [N, C] or null, "num_classes"}
         {"answer": "missing" or "failed", "reason"}     and the process ends

N texts, C classes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from contenders.contract import Clock, Contender, Request

HERE = Path(__file__).resolve().parent


def _scored(
    contender: Contender, request: Request, clock: Clock, num_tokens: int
) -> dict[str, Any]:
    """The answer to one request; tokens are counted alike for all rows, outside of the time."""
    import numpy as np

    from contenders.contract import OverLimit
    from harness import peak_bytes

    logits = None
    started_s = time.perf_counter()
    with contextlib.suppress(OverLimit):
        logits = contender.score(request)
    seconds = time.perf_counter() - started_s
    is_over = logits is None
    answer: dict[str, Any] = {
        "seconds": seconds,
        "over_limit": is_over,
        "texts": clock.texts if is_over else len(request.texts),
        # Our rows report rows alone: the tokens of half a run are not known.
        "tokens": clock.tokens if is_over else num_tokens,
        "peak_rss_bytes": peak_bytes(),
        "logits": None,
        "num_classes": None,
    }
    if not is_over:
        values = np.ascontiguousarray(logits, np.float32)
        answer["logits"] = base64.b64encode(values.tobytes()).decode()
        answer["num_classes"] = values.shape[1]
    return answer


def _serve(requests: TextIO, say: Callable[[str, dict[str, Any]], None]) -> None:
    from contenders.contract import Clock, Job, Request
    from contenders.passes import num_tokens, read_texts, tokenizer_of
    from contenders.table import ROWS
    from harness import versions

    job = Job(**json.loads(requests.readline()))
    row = ROWS[job.row]
    if job.prepare:
        if row.prepare is not None:
            row.prepare(job)
        say("prepared", {})
        return
    clock = Clock()
    contender = row.load(job, clock)
    tokenizer = tokenizer_of(job)
    say("ready", {"settings": contender.settings, "versions": versions()})
    for line in requests:
        asked = json.loads(line)
        request = Request(read_texts(asked["texts_path"]), asked["texts_path"], asked["store"])
        lengths = num_tokens(tokenizer, request.texts, job.max_length)
        clock.start(asked["limit_s"])
        say("scored", _scored(contender, request, clock, sum(lengths)))


def main() -> int:
    """Serve one job; 1 where it failed."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    # Python puts this folder first, whose files are no modules of their own.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

    def say(kind: str, answer: dict[str, Any]) -> None:
        # On a line of its own, whatever native code has written before.
        answers.write("\n" + json.dumps({"answer": kind, **answer}) + "\n")
        answers.flush()

    try:
        _serve(sys.stdin, say)
    except ImportError as error:
        say("missing", {"reason": str(error)})
    except Exception as error:  # of any library; the benchmark names it with the row
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        say("failed", {"reason": f"{type(error).__name__}: {first}"})
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
