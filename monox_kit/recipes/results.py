"""What the finished steps of a run say: its models, and their scores over seeds.

Nothing but steps is read here, so that a run on other machines says as much as one that ended just
now. A model is known by its command, a score by whose output it is of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from monox_kit.evaluation.statistics import over_seeds
from monox_kit.problem import MEASURES
from monox_kit.report.scores import Estimate, Scores, System
from monox_kit.training.config import ObjectiveConfig

if TYPE_CHECKING:
    from monox_kit.recipes.run import RunReport, StepReport

BASELINE = "ce"
# The order of the paper's tables; methods of later versions come behind.
_METHODS = (BASELINE, "self-training", "pl", "kd")
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


def scores_of(results: Results, task: str) -> Scores:
    """The systems of a task that were tested, each over its seeds."""
    students = [one for one in results.students if one.task == task and one.evaluation]
    teachers = [one for one in results.teachers if one.task == task and one.evaluation]
    groups = by_title([*teachers, *sorted(students, key=_rank)])
    evaluations = [one.evaluation for one in (*students, *teachers) if one.evaluation]
    rows: dict[str, int] = {}
    for evaluation in evaluations:
        for tag, found in evaluation["languages"].items():
            rows.setdefault(tag, found["num_rows"])
    plain = chosen((one for one in students if one.method == BASELINE), lambda one: BASELINE)
    return Scores(
        source_language=str(evaluations[0]["source_language"]),
        rows=rows,
        systems={name: system_of(models, results) for name, models in groups.items()},
        baseline=plain[BASELINE][0].title if plain else BASELINE,
        measure=MEASURES[str(evaluations[0]["measure"])],
        task=task,
    )


def by_title(models: Iterable[Model]) -> dict[str, list[Model]]:
    """Models that differ by their seeds alone, under their common title."""
    groups: dict[str, list[Model]] = {}
    for one in models:
        groups.setdefault(one.title, []).append(one)
    return groups


def system_of(
    models: Sequence[Model], results: Results, baselines: Sequence[Model] | None = None
) -> System:
    """What models that differ by their seeds alone score, on average, and above the baseline.

    Args:
        models: of one title, evaluated.
        results: the run's.
        baselines: what they are compared with, seed by seed; None for the run's baseline that is
            most like them.
    """
    evaluations = [one.evaluation for one in models if one.evaluation is not None]
    measure = str(evaluations[0]["measure"])
    devs = [one.dev for one in models if one.dev is not None]
    if baselines is None:
        baselines = _baselines(models[0], results.students)
    compared = list(_beside(models, baselines, results))
    return System(
        title=models[0].title,
        languages={
            tag: _estimate([one["languages"][tag] for one in evaluations], measure)
            for tag in evaluations[0]["languages"]
        },
        average=_optional(evaluations, "target_average"),
        difference=_optional(compared, "target_difference"),
        gains={
            tag: _estimate([one["languages"][tag] for one in compared], "difference")
            for tag in (compared[0]["languages"] if compared else ())
        },
        is_paired=all(one["is_paired"] for one in compared),
        dev=mean(devs) if devs else None,
        seeds=tuple(one.seed for one in models) if len(models) > 1 else (),
    )


def _baselines(model: Model, students: Sequence[Model]) -> list[Model]:
    """The baseline with a model's options, or else the one that did best on dev."""
    found = [
        one
        for one in students
        if one.method == BASELINE and one.task == model.task and one.evaluation
    ]
    same = [one for one in found if _others(one) == _others(model)]
    return chosen(same or found, lambda one: BASELINE).get(BASELINE, [])


def _others(model: Model) -> set[tuple[str, str]]:
    """A model's options but that of its method."""
    method = _slug(model.method)
    return {item for item in model.options.items() if not item[1].startswith(method)}


def _beside(
    models: Sequence[Model], baselines: Sequence[Model], results: Results
) -> Iterator[dict[str, Any]]:
    """Each model beside the baseline of its seed; nothing where a seed has none."""
    by_seed = {one.seed: one for one in baselines}
    known = all(one.seed in by_seed and one.name != by_seed[one.seed].name for one in models)
    for model in models if known and models[0].method else ():
        baseline = by_seed[model.seed]
        found = results.comparisons.get((baseline.name, model.name))
        assert model.evaluation is not None and baseline.evaluation is not None
        if found is None:
            yield {**_unpaired(baseline.evaluation, model.evaluation), "is_paired": False}
        else:
            yield {**found, "is_paired": True}


def _unpaired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two evaluations as a comparison that knows nothing of which rows each has right.

    Its intervals take the errors as independent, so they are wider than paired ones.
    """
    measure = str(first["measure"])

    def less(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Any:
        if one[key] is None or other[key] is None:
            return None, None
        (low, high), (least, most) = one[f"{key}_interval"], other[f"{key}_interval"]
        value = other[key] - one[key]
        below = math.hypot(other[key] - least, high - one[key])
        above = math.hypot(most - other[key], one[key] - low)
        return value, (value - below, value + above)

    languages = {}
    for tag in first["languages"].keys() & second["languages"].keys():
        value, interval = less(measure, first["languages"][tag], second["languages"][tag])
        languages[tag] = {"difference": value, "difference_interval": interval}
    value, interval = less("target_average", first, second)
    return {
        "languages": languages,
        "target_difference": value,
        "target_difference_interval": interval,
    }


def chosen(models: Iterable[Model], by: Callable[[Model], Any]) -> dict[Any, list[Model]]:
    """Of each group, the models whose options did best on dev, over their seeds.

    The test languages have no part in it. Options of which a seed is missing that others have are
    no candidates, and equal accuracy is decided by the lower loss.

    Args:
        models: of one task.
        by: the key of a model's group.
    """
    groups: dict[Any, list[Model]] = {}
    for one in models:
        groups.setdefault(by(one), []).append(one)
    best = {}
    for key, group in groups.items():
        variants = list(by_title(group).values())
        most = max(map(len, variants))
        best[key] = max((one for one in variants if len(one) == most), key=_on_dev)
    return best


def _on_dev(models: Sequence[Model]) -> tuple[float, float]:
    """How good models are on dev, for comparison."""
    known = [(one.dev, one.dev_loss) for one in models if one.dev is not None]
    if not known:
        return -1.0, 0.0
    return mean(dev for dev, _ in known), -mean(loss or 0.0 for _, loss in known)


def _rank(model: Model) -> int:
    return _METHODS.index(model.method) if model.method in _METHODS else len(_METHODS)


def _estimate(found: Sequence[Mapping[str, Any]], key: str) -> Estimate:
    values, intervals = [one[key] for one in found], [one[f"{key}_interval"] for one in found]
    return Estimate.of_shares(*over_seeds(values, intervals))


def _optional(found: Sequence[Mapping[str, Any]], key: str) -> Estimate | None:
    """As `_estimate`; None where a seed has no value."""
    if not found or any(one[key] is None for one in found):
        return None
    return _estimate(found, key)


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
