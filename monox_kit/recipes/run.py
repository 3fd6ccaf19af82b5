"""A plan carried out, or shown: each step knows by itself whether it is finished."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.paths import HUB_PREFIX, resolve_paths
from monox_kit.digest import digest_file, digest_json
from monox_kit.durable import write_json
from monox_kit.errors import ConfigError, MonoxError
from monox_kit.foreign import shown
from monox_kit.locks import owned_folder
from monox_kit.models.folder import open_folder
from monox_kit.progress import Progress, Silent
from monox_kit.recipes.page import write_page
from monox_kit.recipes.plan import STEPS, Step, make_plan
from monox_kit.recipes.recipe import RunConfig, load_recipe
from monox_kit.recipes.source import as_keys
from monox_kit.results import Result
from monox_kit.stage import holds_record, read_record
from monox_kit.stage_call import Stage
from monox_kit.store.address import store_url

RECORD = "recipe.json"
FINISHED, TO_DO, DONE, REUSED = "finished", "to do", "done", "reused"
_MODELS = ("model", "first", "second")
_PLACES = (
    "labels",
    "store",
    "parts",
    "folder",
)  # files and folders that are read, and are no texts


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """One step of a run, or of a plan.

    Attributes:
        name: of the step.
        command: that it runs.
        settings: of the command.
        options: by axis of its stage, its option as it stands in `name`.
        output: what it writes.
        state: done or reused; of a plan finished or to do.
        seconds: that it took when it was done, None where that run was killed at its very end; of
            a step to do the mean of the same stage's finished steps, None without any.
        rows: by setting, the rows of the files that it reads; None where they are not there yet.
        result: what its command shows with --json; None of a step to do.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    options: Mapping[str, str]
    output: str
    state: str
    seconds: float | None
    rows: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport(Result):
    """What a recipe has done, or would do.

    Attributes:
        recipe: its file.
        out: the run's folder.
        steps: in their order.
    """

    recipe: str
    out: str
    steps: Sequence[StepReport]


def run_recipe(
    config: RunConfig, stages: Mapping[str, Stage], progress: Progress | None = None
) -> RunReport:
    """Run a recipe to its end, or what of it is not finished; or show its plan.

    Args:
        config: which recipe, and how.
        stages: the stages by the names of their calls.
        progress: told of every step.

    Raises:
        ConfigError: the recipe is wrong, or the run's folder holds something else.
        MonoxError: what a step ends in, by kind.
    """
    progress = _KeyedProgress(progress or Silent())
    recipe = load_recipe(config)
    out = config.out or Path("runs") / recipe.name
    plan = make_plan(recipe, out, stages)
    is_shown = config.dry_run or config.print_commands
    _require_inputs(plan, is_shown, progress)
    if is_shown:
        steps = _shown(plan, out, config.dry_run)
        return RunReport(recipe=recipe.source.origin, out=str(out), steps=steps)
    with owned_folder(out):
        holds_record(out, RECORD)
        kept = {"recipe": recipe.source.origin, "set": list(recipe.changes), "out": str(out)}
        write_json(out / RECORD, {**kept, "text": recipe.source.text})
        steps = [
            _done(step, out, f"[{number}/{len(plan)}]", progress)
            for number, step in enumerate(plan, 1)
        ]
        report = RunReport(recipe=recipe.source.origin, out=str(out), steps=steps)
        write_page(report, recipe, out)
    return report


def _require_inputs(plan: Sequence[Step], is_shown: bool, progress: Progress) -> None:
    """Find what comes from outside before the first step: a slip is not told after hours."""
    models: dict[str, str] = {}
    for step in plan:
        for name, files in _files(step):
            paths = tuple(path for path in files.paths if path in step.outside[name])
            if paths:
                with _told_of(f"step {step.name}, {name}"):
                    Corpus(replace(files, paths=paths, language=()))
        for name in _PLACES:
            for place in step.outside.get(name, ()):
                if store_url(place) is None and not Path(place).exists():
                    raise ConfigError(
                        f"step {step.name}, {name} {shown(place)}: there is no such file or "
                        "folder. Correct the path."
                    )
        for name in _MODELS:
            for one in step.outside.get(name, ()):
                models.setdefault(one, f"step {step.name}, {name} {shown(one)}")
    if not is_shown:  # a hub's model would be fetched
        for model, where in models.items():
            with _told_of(where):
                open_folder(model, progress)


class _KeyedProgress:
    """Progress whose notes name settings by the recipe's keys."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.task = progress.task

    def note(self, message: str) -> None:
        """Show one line that the user should see."""
        self._progress.note(as_keys(message))


@contextlib.contextmanager
def _told_of(where: str) -> Iterator[None]:
    """Errors that name their step, and settings by the recipe's keys: nobody typed an option."""
    try:
        yield
    except MonoxError as error:
        error.args = (f"{where}: {as_keys(error)}",)
        raise


def _done(step: Step, out: Path, number: str, progress: Progress) -> StepReport:
    """One step brought to its end."""
    progress.note(f"{number} {step.name}: {step.command}")
    kept = _kept(step, out)
    inputs = _inputs(step) if step.stage.output is None else None
    if kept is not None and inputs is not None and kept["inputs"] == inputs:
        if not step.output.exists():
            write_json(step.output, kept["result"])
        return step_report(step, REUSED, kept["seconds"], result=kept["result"])
    started_s = time.perf_counter()
    with _told_of(f"step {step.name}"):
        result = step.stage.run(step.given, progress)
    seconds: float | None = round(time.perf_counter() - started_s, 2)
    found = json.loads(json.dumps(result.to_json()))
    if is_reused := bool(getattr(result, "reused", False)):
        if kept is not None:
            return step_report(step, REUSED, kept["seconds"], result=kept["result"])
        seconds = None  # finished by a run that was killed before it could note how long it took
    record = {"settings": dict(step.given), "inputs": inputs, "seconds": seconds, "result": found}
    # The record alone says that the step is done: a kill between the two files repeats nothing.
    write_json(_record_of(step, out), record)
    if step.stage.output is None:
        write_json(step.output, found)
    return step_report(step, REUSED if is_reused else DONE, seconds, result=found)


def _shown(plan: Sequence[Step], out: Path, counts: bool) -> list[StepReport]:
    """The plan as it stands: what is finished, and what each step will read."""
    kept = [_kept(step, out) for step in plan]
    reports = []
    for step, record in zip(plan, kept):
        same = (one for each, one in zip(plan, kept) if one and each.table == step.table)
        took = [one["seconds"] for one in same if one["seconds"] is not None]
        mean = round(sum(took) / len(took), 2) if took else None
        report = step_report(
            step,
            TO_DO if record is None else FINISHED,
            mean if record is None else record["seconds"],
            rows=_rows(step, plan) if counts else {},
            result=None if record is None else record["result"],
        )
        reports.append(report)
    return reports


def step_report(step: Step, state: str, seconds: float | None, **more: Any) -> StepReport:
    """A step with what has become of it."""
    return StepReport(
        name=step.name,
        command=step.command,
        settings=step.given,
        options=step.options,
        output=str(step.output),
        state=state,
        seconds=seconds,
        **more,
    )


def _record_of(step: Step, out: Path) -> Path:
    return out / STEPS / f"{step.name}.json"


def _kept(step: Step, out: Path) -> dict[str, Any] | None:
    """The record of a step that has been done under these settings, and whose output is there."""
    path = _record_of(step, out)
    is_there = step.stage.output is None or step.output.exists()
    record = read_record(path) if is_there and path.is_file() else None
    return record if record is not None and record["settings"] == step.given else None


def _files(step: Step) -> Iterator[tuple[str, CorpusConfig]]:
    """The input files of a step by the setting that names them."""
    for each in dataclasses.fields(step.config):  # type: ignore[arg-type]  # a dataclass, as all
        value = getattr(step.config, each.name)
        if isinstance(value, CorpusConfig):
            yield each.name, value


def _rows(step: Step, plan: Sequence[Step]) -> dict[str, int | None]:
    """By setting, the rows of the files that a step reads; None of what is not written yet."""
    with _told_of(f"step {step.name}"):
        return {name: _counted(files, plan) for name, files in _files(step)}


def _counted(files: CorpusConfig, plan: Sequence[Step]) -> int | None:
    total = 0
    for path in files.paths:
        # Behind a step's folder stands one of its files, behind its file the file's columns.
        writer = next(
            (one for one in plan if f"{path}/".startswith((f"{one.output}/", f"{one.output}:"))),
            None,
        )
        if writer is not None and not writer.output.exists():
            planned = getattr(writer.config, "planned_rows", {})
            if (rows := planned.get(path.removeprefix(f"{writer.output}/"))) is None:
                return None
            total += rows
        elif path.startswith(HUB_PREFIX) or "://" in path:
            return None
        else:
            total += Corpus(replace(files, paths=(path,), language=())).scan().num_rows
    return total


def _inputs(step: Step) -> dict[str, Any]:
    """The settings of a step, with digests of the files and folders that they name."""
    return {name: _digest(value) for name, value in step.given.items()} | {
        name: {
            one.name: _digest(getattr(one, "location", None)) for one in resolve_paths(files.paths)
        }
        for name, files in _files(step)
    }


def _digest(value: Any) -> Any:
    """The digest of the file or folder that a value names; another value as it is."""
    path = Path(value) if isinstance(value, str) else None
    if path is not None and path.is_file():
        return digest_file(path)
    if path is not None and path.is_dir():
        files = (each for each in path.rglob("*") if each.is_file())
        return digest_json({str(each.relative_to(path)): digest_file(each) for each in files})
    return value
