"""The demo's stages, top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document, Logits
from monox_kit.demo.config import DemoConfig
from monox_kit.demo.own_data import REQUIRED_FILES, TEST_FILES, count_rows, require_files
from monox_kit.demo.race import race_models
from monox_kit.demo.result import DemoReport
from monox_kit.demo.stages import Stages
from monox_kit.digest import digest_file
from monox_kit.durable import write_json
from monox_kit.evaluation import (
    EvaluateConfig,
    interval,
    read_test,
    report_on,
    score_languages,
    target_average_resamples,
)
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.exporting.config import AUTO, DEFAULT_FORM
from monox_kit.hardware import installed_versions, read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import open_folder
from monox_kit.models.load import load_model
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, Silent
from monox_kit.stage import holds_record
from monox_kit.tasks.debian.prepare import DebianConfig, prepare_debian
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig, TeacherConfig
from monox_kit.training.run import train_student, train_teacher

METHODS = ("ce", "pl", "kd")
_SETTINGS_FILE = "settings.json"
# data, teacher, its export, label, 3 students, their evaluations, export, parity, 2 races
_NUM_STAGES = 14
_ENGLISH_TEST = "test.en.jsonl"
_CHECK_ROWS = 100
_MIN_AGREEMENT = 0.98  # stricter than the command's default: the teacher's labels are all there is
# Rows of each language, and what so few can show of a graph that changes one label in 25; where
# they do not, the search keeps the fp32 graph.
_GATE_ROWS = 100
_GATE = ("agreement=0.93", "worst=0.8", "kl=0.05")
_INT8 = "int8-smooth"
_PARITY_ROWS = 30  # per language
_RACE_ROWS = 256
_LANGUAGE_RACE_ROWS = 16


def run_demo(config: DemoConfig, out: Path, *, progress: Progress | None = None) -> DemoReport:
    """Run every stage into `out`, or what of it is not finished yet.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    # Everything that can be wrong with the options is found before the first stage.
    if config.data is not None:
        require_files(config.data)
        progress.note(
            "`data`: your corpus has its own sizes; `labelled`, `unlabelled`, `dev`, `test_rows` "
            "and `languages` are not used"
        )
    for model in (config.teacher_model, config.student_model):
        open_folder(model, progress)
    holds_record(out, _SETTINGS_FILE)
    write_json(out / _SETTINGS_FILE, {**asdict(config), "data": str(config.data or "debian")})
    return _Demo(config, out, progress).report()


class _Demo:
    """One run: a method per stage, each returning its result as plain JSON values."""

    def __init__(self, config: DemoConfig, out: Path, progress: Progress) -> None:
        self._config, self._out, self._progress = config, out, progress
        # Absolute: a relative path that is not there would be taken for a hub name.
        self._home = out.absolute()
        self._data = config.data or out / "data"
        self._tests_teacher = config.data is None or (config.data / _ENGLISH_TEST).is_file()
        self._stages = Stages(out, _NUM_STAGES + self._tests_teacher, progress)
        if not self._tests_teacher:
            progress.note(
                f"`data` {config.data}: there is no {_ENGLISH_TEST}, so that the teacher is not "
                "tested, and the table has no English row"
            )

    def report(self) -> DemoReport:
        """Every stage in order."""
        corpus = self._corpus()
        training = {"teacher": self._teacher()}
        exports = {"teacher": self._export_teacher()}
        labelling = self._label()
        training |= {method: self._student(method) for method in METHODS}
        tested = ("teacher", *METHODS) if self._tests_teacher else METHODS
        evaluated = {name: self._evaluate(name) for name in tested}
        best = max(METHODS, key=lambda name: _dev_rank(training[name]))
        exports["student"] = self._export_student(best)
        exported = evaluated["exported"] = self._exported(best)
        labelling_race = self._race_labelling()
        inference_races = self._race_inference(best)
        return DemoReport(
            out=str(self._out),
            settings=asdict(self._config) | {"data": str(self._config.data or "debian")},
            corpus=corpus,
            evaluations={name: value["report"] for name, value in evaluated.items()},
            differences={
                name: _difference(evaluated[name], evaluated["ce"])
                for name in ("pl", "kd", "exported")
                if evaluated[name]["target_average_resamples"]
            },
            training=training,
            labelling=labelling,
            best=best,
            exports=exports,
            agreement=exported["agreement"],
            labelling_race=labelling_race,
            inference_races=inference_races,
            sizes_bytes=self._sizes(best),
            stage_s=self._stages.seconds,
            environment={"hardware": read_hardware().to_json(), **installed_versions()},
        )

    def _corpus(self) -> dict[str, Any]:
        config = self._config
        if config.data is not None:
            tests = [Path(path).name for path in self._test_files()]
            digests = self._digests(*REQUIRED_FILES, *tests)
            return self._stages.compute("data", digests, lambda: count_rows(self._data, digests))
        debian = DebianConfig(
            labelled=config.labelled,
            unlabelled=config.unlabelled,
            dev=config.dev,
            test_rows=config.test_rows,
            languages=config.languages,
            seed=config.seed,
        )
        return self._stages.write(
            "data",
            self._data,
            lambda: prepare_debian(debian, self._data, progress=self._progress),
        )

    def _teacher(self) -> dict[str, Any]:
        config = TeacherConfig(
            model=self._config.teacher_model,
            train=self._files("labelled.jsonl"),
            dev=self._files("dev.jsonl"),
            loop=replace(
                self._loop(self._config.teacher_steps, self._config.teacher_learning_rate),
                max_length=self._config.teacher_max_length,
                embeddings="frozen",
            ),
        )
        out = self._out / "teacher"
        return self._stages.write(
            "train-teacher", out, lambda: train_teacher(config, out, progress=self._progress)
        )

    def _export_teacher(self) -> dict[str, Any]:
        """Export the teacher beside it, checked on the English dev set."""
        config = ExportConfig(
            model=str(self._home / "teacher"),
            graph=DEFAULT_FORM,
            check=self._files("dev.jsonl"),
            check_rows=_CHECK_ROWS,
            min_agreement=_MIN_AGREEMENT,
        )
        return self._export("export-teacher", "teacher-onnx", config)

    def _export_student(self, name: str) -> dict[str, Any]:
        """Export a student: trimmed to the demo's languages, and through the gate in each."""
        tests = self._test_files()
        texts = self._files("labelled.jsonl", "unlabelled.jsonl", "dev.jsonl")
        config = ExportConfig(
            model=str(self._home / name),
            precision=AUTO,
            graph=DEFAULT_FORM,
            # The whole search would take minutes: one graph form, the int8 that agrees best.
            candidates=(_INT8,),
            trim=replace(texts, paths=(*texts.paths, *tests)),
            check=CorpusConfig(paths=tests),
            check_rows=_GATE_ROWS,
            gate=_GATE,
        )
        return self._export("export-student", f"{name}-onnx", config)

    def _export(self, stage: str, name: str, config: ExportConfig) -> dict[str, Any]:
        bundle = self._out / name
        return self._stages.write(
            stage, bundle, lambda: export_model(config, bundle, progress=self._progress)
        )

    def _label(self) -> dict[str, Any]:
        """The teacher's logits for D_C: the labelled and the unlabelled English text."""
        config = LabelConfig(
            teacher="onnx",
            model=str(self._home / "teacher-onnx"),
            corpus=self._files("labelled.jsonl", "unlabelled.jsonl"),
            shard_rows=1024,  # small, so that an interrupted demo loses little
        )
        store = self._out / "store"
        return self._stages.write(
            "label", store, lambda: label_corpus(config, store, progress=self._progress)
        )

    def _student(self, method: str) -> dict[str, Any]:
        loop = self._loop(self._config.student_steps, self._config.student_learning_rate)
        config = StudentConfig(
            model=self._config.student_model,
            method=method,  # type: ignore[arg-type]  # one of METHODS
            store=() if method == "ce" else (self._out / "store",),
            labelled=self._files("labelled.jsonl"),
            dev=self._files("dev.jsonl"),
            objective=self._objective(method),
            loop=replace(loop, embeddings="frozen", freeze_layers=self._config.freeze_layers),
        )
        out = self._out / method
        return self._stages.write(
            f"train-student-{method}",
            out,
            lambda: train_student(config, out, progress=self._progress),
        )

    def _objective(self, method: str) -> ObjectiveConfig:
        """What the method uses of the demo's settings."""
        if method == "kd":
            return ObjectiveConfig(temperature=self._config.temperature)
        if method == "pl":
            return ObjectiveConfig(threshold=self._config.threshold)
        return ObjectiveConfig()

    def _evaluate(self, name: str) -> dict[str, Any]:
        """Per language; the English teacher in English only."""
        files = (str(self._data / _ENGLISH_TEST),) if name == "teacher" else self._test_files()
        config = EvaluateConfig(model=name, test=CorpusConfig(paths=files), seed=self._config.seed)
        inputs = {**self._model(name), "tests": [digest_file(Path(path)) for path in files]}

        def compute() -> dict[str, Any]:
            return self._tested(name, config)[2]

        return self._stages.compute(f"evaluate-{name}", {**inputs, **asdict(config)}, compute)

    def _tested(
        self, name: str, config: EvaluateConfig
    ) -> tuple[dict[str, list[Document]], Mapping[str, Logits], dict[str, Any]]:
        """By language, the test rows and what a model says of them; and the results."""
        model = load_model(str(self._home / name))
        labels = model.classifier.labels
        documents = read_test(config.test, labels)
        logits = score_languages(model, documents, config.batch_tokens, self._progress).logits
        resampled = target_average_resamples(labels, documents, logits, config)
        report = report_on(name, labels, documents, logits, config)
        results = {"report": report.to_json(), "target_average_resamples": resampled.tolist()}
        return documents, logits, results

    def _exported(self, best: str) -> dict[str, Any]:
        """The exported student on every test row: per language, and against PyTorch."""
        bundle = f"{best}-onnx"
        files = self._test_files()
        config = EvaluateConfig(
            model=bundle, test=CorpusConfig(paths=files), seed=self._config.seed
        )
        inputs = {**self._model(best), **self._model(bundle), **asdict(config)}
        inputs["tests"] = [digest_file(Path(path)) for path in files]

        def compute() -> dict[str, Any]:
            documents, logits, results = self._tested(bundle, config)
            sample = {name: rows[:_PARITY_ROWS] for name, rows in documents.items()}
            reference = load_model(str(self._home / best))
            expected = score_languages(
                reference, sample, config.batch_tokens, self._progress
            ).logits
            found = np.concatenate([logits[name][: len(rows)] for name, rows in sample.items()])
            problem = problem_of(reference.classifier.labels)
            compared = agreement(np.concatenate(list(expected.values())), found, problem)
            return {**results, "agreement": compared.to_json()}

        return self._stages.compute("check-exported", inputs, compute)

    def _race_labelling(self) -> dict[str, Any]:
        """The teacher in PyTorch and in ONNX Runtime on the same unlabelled texts."""
        inputs = {**self._model("teacher"), **self._model("teacher-onnx"), "rows": _RACE_ROWS}
        inputs |= self._digests("unlabelled.jsonl")

        def compute() -> dict[str, Any]:
            texts = list(Corpus(self._files("unlabelled.jsonl")).documents())[:_RACE_ROWS]
            return self._race("teacher", "teacher-onnx", texts)

        return self._stages.compute("time-labelling", inputs, compute)

    def _race_inference(self, best: str) -> dict[str, Any]:
        """The best student in PyTorch and as exported, per language."""
        bundle = f"{best}-onnx"
        inputs = {**self._model(best), **self._model(bundle), "rows": _LANGUAGE_RACE_ROWS}
        inputs["tests"] = [digest_file(Path(path)) for path in self._test_files()]

        def compute() -> dict[str, Any]:
            files = CorpusConfig(paths=self._test_files())
            labels = open_folder(str(self._home / bundle)).labels
            by_language = read_test(files, labels)
            results = {}
            with self._progress.task("timing inference", len(by_language), "languages") as task:
                for language, rows in by_language.items():
                    task.detail(language)
                    results[language] = self._race(best, bundle, rows[:_LANGUAGE_RACE_ROWS])
                    task.advance()
            return results

        return self._stages.compute("time-inference", inputs, compute)

    def _race(self, model: str, bundle: str, documents: list[Document]) -> dict[str, Any]:
        graph = load_model(str(self._home / bundle))
        pair = {
            "torch fp32": load_model(str(self._home / model)),
            f"onnx {_precision(graph.folder.record)}": graph,
        }
        return race_models(pair, documents).to_json()

    def _loop(self, steps: int, learning_rate: float) -> LoopConfig:
        return LoopConfig(
            max_steps=steps,
            learning_rate=learning_rate,
            head_factor=self._config.head_factor,
            max_length=self._config.max_length,
            eval_every=max(1, steps // 2),
            checkpoint_every=50,
            seed=self._config.seed,
        )

    def _files(self, *names: str) -> CorpusConfig:
        return CorpusConfig(paths=tuple(str(self._data / name) for name in names))

    def _test_files(self) -> tuple[str, ...]:
        return tuple(sorted(str(path) for path in self._data.glob(TEST_FILES)))

    def _digests(self, *names: str) -> dict[str, str]:
        return {name: digest_file(self._data / name) for name in names}

    def _model(self, name: str) -> dict[str, str]:
        """The digest of a model that an earlier stage wrote."""
        return {f"{name} digest": open_folder(str(self._home / name)).model_digest}

    def _sizes(self, best: str) -> dict[str, int]:
        names = {"teacher": "teacher", "teacher, ONNX": "teacher-onnx"}
        names |= {f"student ({best})": best, f"student ({best}), ONNX": f"{best}-onnx"}
        return {title: _weight_bytes(self._out / name) for title, name in names.items()}


def _dev_rank(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Students in order of the English dev set: accuracy, then the lower loss."""
    return summary["dev_accuracy"], -summary["dev_loss"]


def _difference(system: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """How far a system's target average is above the baseline's, with a paired interval."""
    key = "target_average_resamples"
    resampled = np.array(system[key]) - np.array(baseline[key])
    value = system["report"]["target_average"] - baseline["report"]["target_average"]
    return {"value": value, "interval": list(interval(resampled))}


def _weight_bytes(folder: Path) -> int:
    names = ("*.safetensors", "*.onnx", "*.onnx.data")
    return sum(path.stat().st_size for name in names for path in folder.glob(name))


def _precision(record: Any) -> str:
    return record.precision if record is not None else "fp32"
