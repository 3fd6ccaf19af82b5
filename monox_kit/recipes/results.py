"""What the finished steps of a run say: its models, and what each scored.

Nothing but steps is read here, so that a run on other machines says as much as one that ended just
now. A model is known by its command, a score by whose output it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monox_kit.training.config import ObjectiveConfig

if TYPE_CHECKING:
    from monox_kit.recipes.run import RunReport, StepReport

BASELINE = "ce"
# The axis whose options are draws of the same thing.
SEED = "seed"
_TRAINED = ("train-teacher", "train-student")


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One model of a run.

    Attributes:
        name: of its step.
        method: that a student was trained with; empty of a teacher.
        encoder: that it was trained from.
        task: the options of the texts that it is of, such as `books`; empty where a run has one.
        options: by axis of several options, its other options but that of its seed.
        seed: of its training.
        temperature: of its soft targets; None of other methods.
        labelled: gold-labelled rows that it, or else its teacher, learned from; None where that is
            not known yet.
        dev: its accuracy on the dev set that chose its weights, in percent; None before that.
        dev_loss: its loss there.
        training: its `TrainingSummary.to_json()`; None of one that is not finished.
        evaluation: its `EvalReport.to_json()`; None where there is none yet.
        teachers: names of the teachers behind it.
    """

    name: str
    method: str
    encoder: str
    task: str
    options: Mapping[str, str]
    seed: str
    temperature: float | None
    labelled: int | None
    dev: float | None
    dev_loss: float | None
    training: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    teachers: tuple[str, ...]

    @property
    def title(self) -> str:
        """The method with what else tells it from others, such as `kd temperature0.1`."""
        method = self.method or "teacher"
        named = [one for one in self.options.values() if one != _slug(method)]
        if any(one.startswith(_slug(method)) for one in named):
            return " ".join(named)
        return " ".join([method, *named])

    @property
    def others(self) -> set[tuple[str, str]]:
        """Its options but that of its method."""
        method = _slug(self.method)
        return {item for item in self.options.items() if not item[1].startswith(method)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """The models of a run.

    Attributes:
        teachers: in the plan's order.
        students: likewise.
        comparisons: by the names of a first and a second model, their `Comparison.to_json()`.
        missing: names of the steps that are not finished.
    """

    teachers: Sequence[Model]
    students: Sequence[Model]
    comparisons: Mapping[tuple[str, str], Mapping[str, Any]]
    missing: Sequence[str]

    @property
    def tasks(self) -> list[str]:
        """The tasks that were tested, in the plan's order."""
        return list(dict.fromkeys(one.task for one in self.students if one.evaluation))


def read_results(report: RunReport) -> Results:
    """The models of a run, as far as it is finished."""
    steps = _Steps(report.steps)
    models = [steps.model(one) for one in report.steps if one.command in _TRAINED]
    return Results(
        teachers=[one for one in models if not one.method],
        students=[one for one in models if one.method],
        comparisons=steps.comparisons(),
        missing=[one.name for one in report.steps if one.result is None],
    )


def merged(found: Sequence[Results]) -> Results:
    """The models of a run, and those of further runs by methods that it lacks, such as a baseline.

    Models of a method that it has are left out: they may be of other texts.
    """
    first, *others = found
    students, teachers, missing = list(first.students), list(first.teachers), list(first.missing)
    for other in others:
        methods = {one.method for one in students if one.training is not None}
        lent = [one for one in other.students if one.method not in methods]
        students += lent
        teachers += [] if teachers else other.teachers
        missing += [one.name for one in lent if one.name in other.missing]
    comparisons = {pair: value for one in found for pair, value in one.comparisons.items()}
    return Results(teachers=teachers, students=students, comparisons=comparisons, missing=missing)


class _Steps:
    """The steps of a run, and what each is of."""

    def __init__(self, steps: Sequence[StepReport]) -> None:
        self._steps = steps
        self._by_output = {one.output: one for one in steps}
        options: dict[str, set[str]] = {}
        for step in steps:
            for axis, option in step.options.items():
                options.setdefault(axis, set()).add(option)
        self._varied = {axis for axis, found in options.items() if len(found) > 1} - {SEED}

    def model(self, step: StepReport) -> Model:
        """The model that a training step has made, or is to make."""
        settings, result = step.settings, step.result
        before = list(self._before(step))
        data = {
            axis: option
            for one in before
            for axis, option in one.options.items()
            if one.command.startswith("data ")
        }
        teachers = [one for one in before if one.command == "train-teacher"]
        own = {
            axis: one
            for axis, one in step.options.items()
            if axis in self._varied and axis not in data
        }
        learned = [step, *teachers]
        is_student = step.command == "train-student"
        evaluation = self._of(step, "evaluate", "model")
        dev = None if result is None else _dev(result)
        return Model(
            name=step.name,
            method=str(settings["method"]) if is_student else "",
            encoder=str(settings["model"]),
            task=" ".join(option for axis, option in data.items() if axis != SEED),
            options=own,
            seed=str(settings.get("seed", 1)),
            temperature=_temperature(settings),
            labelled=next((n for one in learned if (n := _gold_rows(one)) is not None), None),
            dev=None if dev is None else 100 * dev,
            dev_loss=None if result is None else result["dev_loss"],
            training=result,
            evaluation=evaluation,
            teachers=tuple(one.name for one in teachers),
        )

    def comparisons(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The results of all comparisons, by the names of the models' steps."""
        found = {}
        for one in self._steps:
            if one.command == "compare" and one.result is not None:
                pair = [self._by_output.get(one.settings[key]) for key in ("first", "second")]
                if pair[0] is not None and pair[1] is not None:
                    found[pair[0].name, pair[1].name] = one.result
        return found

    def _of(self, step: StepReport, command: str, setting: str) -> Mapping[str, Any] | None:
        """The result of the command that was run on what a step has written."""
        return next(
            (
                one.result
                for one in self._steps
                if one.command == command
                and one.settings[setting] == step.output
                and one.result is not None
            ),
            None,
        )

    def _before(self, step: StepReport) -> Iterator[StepReport]:
        """The steps that a step reads from, and those that these read from, each once."""
        waiting, seen = [step], {step.name}
        while waiting:
            paths = list(_texts(waiting.pop().settings))
            for one in self._steps:
                inside = (f"{one.output}/", f"{one.output}:")
                if one.name not in seen and any(
                    path == one.output or path.startswith(inside) for path in paths
                ):
                    seen.add(one.name)
                    waiting.append(one)
                    yield one


def _temperature(settings: Mapping[str, Any]) -> float | None:
    """The temperature of a student's soft targets; None where it has none."""
    if settings.get("method") != "kd" or settings.get("kd_loss") == "mse":
        return None
    return float(settings.get("temperature", ObjectiveConfig().temperature))


def _slug(method: str) -> str:
    """A method as it stands among the options of a step."""
    return method.replace("-", "_")


def _texts(settings: Mapping[str, Any]) -> Iterator[str]:
    """Every text among some settings."""
    for value in settings.values():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str):
                yield one


def _dev(training: Mapping[str, Any]) -> float | None:
    """The dev result that chose the weights: accuracy, or micro-F1 of several labels a row."""
    found = training["dev_accuracy"]
    return training.get("dev_micro_f1") if found is None else found


def _gold_rows(step: StepReport) -> int | None:
    """The gold-labelled rows that a training step has learned from."""
    if step.result is None:
        return None
    found = step.result["counts"].get("gold_rows")
    return None if found is None else int(found)
