"""A process that forks one run at a time and tells how it ended: imports are paid once.

Started as a script by `runs.RunServer`, with `writing`, `putting`, `labelling FILES`, `saving`,
`training FILES [STEPS CHECKPOINT_EVERY]` or `recipe FILE`. A run waits for a word before it begins,
so that a tracer has time to attach: what it counts is the run's own from its first system call on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from monox_kit.errors import MonoxError
from tests.store_samples import write_store

# prctl(2): let any process trace this one, where the kernel asks for it (Yama).
_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)
_BEGIN = b"!"

Run = Callable[[Mapping[str, Any]], None]


def six_shards(request: Mapping[str, Any]) -> None:
    """Write what a sample store of six shards misses; or its shards of a range alone."""
    from tests.faults.states import SIX_SHARDS

    shards = range(*request["shards"]) if request["shards"] else None
    write_store(Path(request["store"]), SIX_SHARDS, cuts=[2], shards=shards)


def six_objects(request: Mapping[str, Any]) -> None:
    """The same at a URL: below the folder that is given."""
    from tests.faults.states import SIX_SHARDS
    from tests.object_store import object_store, write_url

    folder = Path(request["store"])
    with object_store():
        write_url(f"objects://{folder}/objects", folder / "staging", SIX_SHARDS)


def labelling(request: Mapping[str, Any]) -> None:
    """Label a corpus with a model."""
    from monox_kit.labelling import label_corpus
    from tests.faults.states import label_config

    label_corpus(label_config(Path(sys.argv[2])), Path(request["store"]))


def saving(request: Mapping[str, Any]) -> None:
    """Save the checkpoint after the newest of a folder."""
    from monox_kit.training.checkpoint import Checkpoints
    from tests.checkpoint_samples import FINGERPRINT, parameters, state

    checkpoints = Checkpoints(Path(request["store"]), FINGERPRINT)
    found = checkpoints.load_newest(parameters())
    checkpoints.save(state(found.step + 2 if found is not None else 2))


def training(request: Mapping[str, Any]) -> None:
    """Train a teacher; SIGKILL ends the run before its step `kill_at`."""
    from monox_kit.training.run import train_teacher
    from monox_kit.training.step import Stepper
    from tests.faults.states import teacher_config

    take = Stepper.take

    def killed(self: Stepper, step: int, rows: Any) -> Any:
        if step == request["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, step, rows)

    Stepper.take = killed  # type: ignore[method-assign]
    config = teacher_config(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    train_teacher(config, Path(request["store"]))


def recipe(request: Mapping[str, Any]) -> None:
    """Run a recipe; SIGKILL ends it before its step or rename number `kill_at`, counted together.

    What it reports, and how many there were, goes into a file beside the run's folder.
    """
    from monox_kit.door import STAGES
    from monox_kit.recipes.recipe import RunConfig
    from monox_kit.recipes.run import run_recipe
    from monox_kit.training.step import Stepper

    events = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal events
            if events == request["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            events += 1
            return real(*args, **options)

        return call

    Stepper.take = counted(Stepper.take)  # type: ignore[method-assign]
    os.rename, os.replace = counted(os.rename), counted(os.replace)
    out = Path(request["store"])
    report = run_recipe(RunConfig(recipe=sys.argv[2], out=out), STAGES)
    kept = {"events": events, "steps": report.to_json()["steps"]}
    out.with_name(f"{out.name}.json").write_text(json.dumps(kept))


def _serve(run: Run) -> None:
    while line := os.read(0, 1 << 16):
        if line == _BEGIN:
            continue  # of a run that was killed before it could read it
        request = json.loads(line.removeprefix(_BEGIN))
        child = os.fork()
        if child == 0:
            _run_and_exit(run, request)
        _, status = os.waitpid(child, 0)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        _tell({"killed_by": killed_by})


def _run_and_exit(run: Run, request: Mapping[str, Any]) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
        if not request["synced"]:
            # A killed process loses no page cache: a killed run is the same without.
            os.fsync = lambda descriptor: None
        _tell({"pid": os.getpid()})
        os.readv(0, [bytearray(1)])
        run(request)
    except MonoxError as error:
        _tell({"exit_code": error.exit_code, "message": str(error)})
    except BaseException as error:
        _tell({"exit_code": 1, "message": repr(error)})
    finally:
        os._exit(0)


def _tell(value: Mapping[str, Any]) -> None:
    # Not write(2) and read(2), on which faults are laid.
    os.writev(1, [json.dumps(value).encode() + b"\n"])


# By kind of run: what it does, and what it imports late. No run is made before the fork: it would
# leave threads, which no forked process has.
_KINDS: Mapping[str, tuple[Run, tuple[str, ...]]] = {
    "writing": (six_shards, ()),
    "putting": (six_objects, ("tests.object_store",)),
    "labelling": (
        labelling,
        ("monox_kit.models.torch_backend", "transformers.models.bert.modeling_bert"),
    ),
    "saving": (saving, ("monox_kit.training.checkpoint",)),
    "training": (training, ("monox_kit.training.run", "transformers.models.bert.modeling_bert")),
    "recipe": (
        recipe,
        (
            *("monox_kit.door", "monox_kit.training.run", "monox_kit.labelling.run"),
            *("monox_kit.evaluation.comparison", "transformers.models.bert.modeling_bert"),
        ),
    ),
}

if __name__ == "__main__":
    kind, late = _KINDS[sys.argv[1]]
    for name in late:
        import_module(name)
    _serve(kind)
